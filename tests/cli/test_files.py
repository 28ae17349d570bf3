"""Exports and imports by the command line."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from .running import CANARY, Run, damage, damage_row, fill


class TestFiles:
    def test_an_export_goes_into_another_memory(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 700, size=2000)
        ltm("store", "late", "1", "--ttl", "3600", "--metadata", '{"a": [1]}')
        done = ltm("export", "file.jsonl")
        assert (done.code, done.err) == (0, "")
        assert done.json == {
            "success": True,
            "exported": 701,
            "damaged": 0,
            "last_key": "late",
        }
        other = ["--catalog", "sqlite:///other.db", "--storage", "other"]
        done = ltm("import", "file.jsonl", *other)
        assert (done.code, done.err) == (0, "")
        assert (done.json["imported"], done.json["lines"]) == (701, 702)
        assert ltm("export", *other).out == (folder / "file.jsonl").read_text()
        assert ltm("verify", *other).json["sound"] is True

    def test_without_a_file_it_goes_to_stdout(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 2)
        dash, nothing = ltm("export", "-"), ltm("export")
        assert dash == nothing
        assert dash.err == "ltm: exported 2 entries\n"
        assert [line.get("key") for line in dash.lines] == [None, "k000000", "k000001"]

    def test_a_file_is_readable_by_its_owner_only(self, ltm: Run, folder: pathlib.Path) -> None:
        ltm("export", "file")
        assert (folder / "file").stat().st_mode & 0o777 == 0o600

    def test_a_file_is_not_replaced_unasked(self, ltm: Run, folder: pathlib.Path) -> None:
        (folder / "file").write_text("precious " * 1000)
        done = ltm("export", "file")
        assert (done.code, done.out) == (2, "")
        assert "--append" in done.err
        assert (folder / "file").read_text().startswith("precious")
        assert ltm("export", "file", "--append").code == 2
        assert (folder / "file").read_text().startswith("precious")
        assert ltm("export", "file", "--overwrite").code == 0
        assert len((folder / "file").read_text().splitlines()) == 1

    @pytest.mark.parametrize("cut", [0, 20, 42, 100, -1, -30])
    def test_an_export_that_was_cut_is_continued(
        self, ltm: Run, folder: pathlib.Path, cut: int
    ) -> None:
        fill(folder, 20)
        whole = ltm("export").out
        (folder / "file").write_text(whole[:cut])
        assert ltm("export", "file", "--append").code == 0
        assert (folder / "file").read_text() == whole

    def test_half_a_line_is_cut_off_though_its_entry_is_gone(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        fill(folder, 3)
        lines = ltm("export").out.splitlines(keepends=True)
        (folder / "file").write_text("".join(lines)[:-5])
        ltm("delete", "k000002")
        assert ltm("export", "file", "--append").code == 0
        assert (folder / "file").read_text() == "".join(lines[:3])

    def test_a_complete_export_is_continued_by_nothing(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        fill(folder, 20)
        ltm("export", "file")
        whole = (folder / "file").read_text()
        assert ltm("export", "file", "--append").json["exported"] == 0
        assert (folder / "file").read_text() == whole

    def test_a_key_to_start_after_can_be_given(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 5)
        whole = ltm("export").out
        parts = ltm("export", "--after", "k000002").out
        assert parts.splitlines() == whole.splitlines()[:1] + whole.splitlines()[-2:]
        (folder / "file").write_text("".join(whole.splitlines(keepends=True)[:4]))
        assert ltm("export", "file", "--append", "--after", "k000002").code == 0
        assert (folder / "file").read_text() == whole

    def test_a_prefix_chooses_what_is_exported(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 5)
        ltm("store", "other", "1")
        assert len(ltm("export", "--prefix", "k").lines) == 6

    def test_an_export_goes_on_past_damaged_entries_names_them_and_is_3(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        fill(folder, 1200, size=2000)
        whole = ltm("export").out.splitlines()
        damage(folder, "k000007")
        damage_row(folder, "k000600")
        done = ltm("export", "file")
        assert done.code == 3
        assert done.json == {
            "success": False,
            "exported": 1198,
            "damaged": 2,
            "last_key": "k001199",
        }
        assert done.err.splitlines() == [
            "ltm: left out 'k000007': a blob does not have the size that its row says",
            "ltm: left out 'k000600': stored text is not JSON: JSONDecodeError",
        ]
        rest = [*whole[:8], *whole[9:601], *whole[602:]]
        assert (folder / "file").read_text().splitlines() == rest

    def test_an_export_to_stdout_counts_them_in_words(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 3, size=2000)
        damage(folder, "k000001")
        done = ltm("export")
        assert (done.code, len(done.lines)) == (3, 3)
        assert done.err.splitlines()[-1] == ("ltm: exported 2 entries, left out 1 that are damaged")
        assert CANARY not in done.err

    def test_what_was_damaged_comes_back_from_an_export(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        fill(folder, 3, size=2000)
        ltm("export", "backup")
        damage(folder, "k000001")
        damage_row(folder, "k000002")
        assert ltm("export", "file").code == 3
        assert ltm("delete", "k000001").code == 0
        assert ltm("import", "backup").json["imported"] == 3
        assert ltm("verify").json["sound"] is True
        assert ltm("export").out == (folder / "backup").read_text()

    def test_a_bad_line_is_2_and_what_is_before_it_is_kept(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        fill(folder, 3)
        lines = ltm("export").out.splitlines(keepends=True)
        bad = f'{{"key": "x", "value": "{CANARY}\n'
        (folder / "file").write_text("".join([*lines[:2], bad, lines[2], bad, lines[3]]))
        other = ["--catalog", "sqlite:///other.db"]
        done = ltm("import", "file", *other)
        assert (done.code, done.out) == (2, "")
        assert done.err.splitlines()[0] == "ltm: imported 1 entries; continue with --skip 2"
        assert done.err.splitlines()[1].startswith("ltm: line 3: not JSON")
        assert ltm("stats", *other).json["entries"] == 1
        done = ltm("import", "file", "--keep-going", *other)
        assert (done.code, done.json["imported"], done.json["invalid"]) == (2, 3, 2)
        assert re.findall(r"line (\d)", done.err) == ["3", "5"]
        assert CANARY not in done.err

    def test_lines_can_be_passed_over(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 3)
        ltm("export", "file")
        done = ltm("import", "file", "--skip", "3", "--catalog", "sqlite:///other.db")
        assert (done.json["imported"], done.json["lines"]) == (1, 4)

    def test_an_import_goes_on_where_its_state_says(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 1200)
        whole = ltm("export").out
        lines = whole.splitlines(keepends=True)
        (folder / "file").write_text("".join([*lines[:1001], "broken\n"]))
        into = ["file", "--resume", "state", "--catalog", "sqlite:///other.db"]
        assert ltm("import", *into).code == 2
        state = json.loads((folder / "state").read_text())
        assert state["lines"] == 1001
        (folder / "file").write_text(whole)
        done = ltm("import", *into)
        assert (done.code, done.json["imported"]) == (0, 200)
        assert ltm("stats", "--catalog", "sqlite:///other.db").json["entries"] == 1200
        assert not (folder / "state").exists(), "a later import would pass over everything"

    def test_the_state_of_another_file_is_refused(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 3)
        ltm("export", "file")
        (folder / "state").write_text(
            '{"format":"ltm-async-import","version":1,"lines":2,"fingerprint":"another"}'
        )
        done = ltm("import", "file", "--resume", "state")
        assert (done.code, done.out) == (2, "")
        assert "not what the earlier import ended with" in done.err
        assert (folder / "state").exists()
