"""Storing, reading, deleting and listing entries."""

from __future__ import annotations

import json
import pathlib
import re
import sqlite3
from contextlib import closing

import pytest

from ..corpus import same
from .running import CANARY, Run, damage_row, fill


class TestEntries:
    def test_a_value_comes_back(self, ltm: Run) -> None:
        value = '{"likes": ["tea", null, -0.0, 12345678901234567890]}'
        stored = ltm("store", "user:7", value, "--ttl", "60", "--metadata", '{"from": "chat"}')
        assert (stored.code, stored.err) == (0, "")
        assert stored.json["stored"] is stored.json["inlined"] is True
        assert stored.json["expires_at"].endswith("Z")
        assert not stored.json.keys() & {"error", "error_type", "degraded"}
        assert ltm("get", "user:7") == (0, f"{value}\n", "")

    def test_all_that_is_known_is_shown_on_request(self, ltm: Run) -> None:
        ltm("store", "k", "1", "--metadata", '{"from": "chat"}')
        hit = ltm("get", "k", "--full").json
        assert (hit["found"], hit["value"], hit["version"]) == (True, 1, 1)
        assert hit["metadata"] == {"from": "chat"}
        assert hit["expires_at"] is None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", hit["created_at"])

    @pytest.mark.parametrize("full", [[], ["--full"]])
    def test_no_such_key_is_1(self, ltm: Run, full: list[str]) -> None:
        done = ltm("get", "nothing", *full)
        assert (done.code, done.err) == (1, "ltm: no such key\n")
        assert (json.loads(done.out)["found"] is False) if full else (done.out == "")

    def test_a_stored_null_is_found(self, ltm: Run) -> None:
        ltm("store", "k", "null")
        assert ltm("get", "k") == (0, "null\n", "")

    def test_deleting_says_whether_there_was_one(self, ltm: Run) -> None:
        ltm("store", "k", "1")
        first, second = ltm("delete", "k"), ltm("delete", "k")
        assert (first.code, first.json["deleted"], first.err) == (0, True, "")
        assert (second.code, second.json["deleted"]) == (1, False)
        assert second.err == "ltm: no such key\n"

    @pytest.mark.parametrize(
        "args",
        [
            ["store", "k", "2", "--if-absent"],
            ["store", "k", "2", "--if-version", "7"],
            ["store", "nothing", "2", "--if-version", "1"],
            ["delete", "k", "--if-version", "7"],
            ["delete", "nothing", "--if-version", "7"],
        ],
    )
    def test_a_conflict_is_4_and_changes_nothing(self, ltm: Run, args: list[str]) -> None:
        ltm("store", "k", "1")
        done = ltm(*args)
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith("ltm: expected ")
        assert ltm("get", "k").out == "1\n"

    def test_the_version_of_a_result_is_good_for_the_next(self, ltm: Run) -> None:
        version = str(ltm("store", "k", "1", "--if-absent").json["version"])
        assert ltm("store", "k", "2", "--if-version", version).code == 0
        assert ltm("delete", "k", "--if-version", version).code == 4

    def test_text_needs_no_quotes(self, ltm: Run) -> None:
        ltm("store", "k", "--text", 'say "yes"')
        assert ltm("get", "k").json == 'say "yes"'

    @pytest.mark.parametrize("text", [[], ["--text"]])
    def test_a_value_may_come_from_a_file(
        self, ltm: Run, folder: pathlib.Path, text: list[str]
    ) -> None:
        (folder / "value").write_bytes('{"a":\n "☃"}\n'.encode())
        assert ltm("store", "k", "--file", "value", *text).code == 0
        assert ltm("get", "k").json == ('{"a":\n "☃"}\n' if text else {"a": "☃"})

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("☃ 🚀", '"☃ 🚀"'),
            ("\x1b[31m", r'"\u001b[31m"'),
            ("\x9b31m", r'"\u009b31m"'),
            ("\u202eevil", r'"\u202eevil"'),
            ("\ud800", r'"\ud800"'),
            ("two\nlines", r'"two\nlines"'),
        ],
    )
    def test_no_value_can_steer_a_terminal(self, ltm: Run, value: str, shown: str) -> None:
        ltm("store", "k", json.dumps(value))
        done = ltm("get", "k")
        assert done.out == f"{shown}\n"
        assert same(done.json, value)


class TestListing:
    def test_one_entry_is_one_line(self, ltm: Run) -> None:
        for key in ("b/2", "a/1", "b/1\n"):
            ltm("store", key, '"a value"')
        done = ltm("list")
        assert [line["key"] for line in done.lines] == ["a/1", "b/1\n", "b/2"]
        assert [line["byte_size"] for line in done.lines] == [9, 9, 9]
        assert "a value" not in done.out

    @pytest.mark.parametrize(
        ("args", "keys"),
        [
            (["k00000"], ["k000000", "k000001", "k000002"]),
            (["--limit", "2"], ["k000000", "k000001"]),
            (["--after", "k000001"], ["k000002"]),
            (["k", "--after", "k000000", "--limit", "1"], ["k000001"]),
            (["nothing"], []),
        ],
    )
    def test_entries_can_be_chosen(
        self, ltm: Run, folder: pathlib.Path, args: list[str], keys: list[str]
    ) -> None:
        fill(folder, 3)
        done = ltm("list", *args)
        assert (done.code, [line["key"] for line in done.lines]) == (0, keys)

    @pytest.mark.parametrize("limit", [None, 499, 500, 501, 1000, 1234])
    def test_all_pages_are_listed(self, ltm: Run, folder: pathlib.Path, limit: int | None) -> None:
        fill(folder, 1234)
        done = ltm("list", *([] if limit is None else ["--limit", str(limit)]))
        assert len(done.lines) == (limit or 1234)

    @pytest.mark.parametrize("limit", [[], ["--limit", "1100"]])
    def test_damaged_entries_are_named_hide_no_other_and_are_3(
        self, ltm: Run, folder: pathlib.Path, limit: list[str]
    ) -> None:
        fill(folder, 1200)
        for key in ("k000000", "k000499", "k001000"):
            damage_row(folder, key)
        done = ltm("list", *limit)
        assert done.code == 3
        assert len(done.lines) == (1097 if limit else 1197)
        assert [line.split(": ")[1] for line in done.err.splitlines()] == [
            "left out 'k000000'",
            "left out 'k000499'",
            "left out 'k001000'",
            "damaged entries",
        ]
        assert done.err.splitlines()[-1] == "ltm: damaged entries: 3"
        assert CANARY not in done.err + done.out

    def test_a_damaged_key_is_named_once_and_safe_to_show(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        """Also where a page ends with it, and the next begins with it again."""
        fill(folder, 1200)
        with closing(sqlite3.connect(folder / "ltm.db")) as db, db:
            db.execute(
                "UPDATE ltm_entries SET key = CAST(? AS TEXT) WHERE key = 'k000499'",
                (b"k000499\x1b[31m\xff",),
            )
        done = ltm("list")
        assert (done.code, len(done.lines)) == (3, 1199)
        named, counted = done.err.splitlines()
        assert named.startswith(r"ltm: left out 'k000499\x1b[31m\udcff': a row's key has a lone ")
        assert counted == "ltm: damaged entries: 1"

    def test_stats_count(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 3, size=5000)
        ltm("store", "small", "1")
        stats = ltm("stats").json
        assert (stats["entries"], stats["inlined"], stats["blobs"]) == (4, 1, 3)


def test_list_prints_those_whose_metadata_match(ltm: Run) -> None:
    for number, kind in enumerate(["note", "task", "note"]):
        ltm("store", f"k{number}", "1", "--metadata", f'{{"kind": "{kind}"}}')
    listed = ltm("list", "--where", '{"kind": "note"}').lines
    assert [entry["key"] for entry in listed] == ["k0", "k2"]
    (first,) = ltm("list", "--where", '{"kind": {"$ne": "note"}}', "--limit", "1").lines
    assert first["key"] == "k1"
    assert ltm("list", "--where", "{kind}").code == 2
    assert ltm("list", "--where", '{"kind": {"$near": 1}}').code == 2


def test_search_prints_what_was_stored_with_its_text(ltm: Run) -> None:
    ltm("store", "a", '"green tea"', "--index-text", "--metadata", '{"kind": "note"}')
    ltm("--index-text", "store", "b", '"black tea"')
    ltm("store", "c", '"no tea is found where no text is kept"')
    found = ltm("search", "tea black")
    assert (found.code, found.err) == (0, "ltm: found: 2\n")
    assert [hit["key"] for hit in found.lines] == ["b", "a"]
    assert [hit["key"] for hit in ltm("search", "tea", "--where", '{"kind": "note"}').lines] == [
        "a"
    ]
    assert len(ltm("search", "tea", "--limit", "1").lines) == 1
    assert ltm("search", "coffee") == (0, "", "ltm: found: 0\n")
    assert ltm("search", "?!").code == ltm("search", "tea", "--limit", "201").code == 2


@pytest.mark.parametrize(("value", "found"), [("true", 1), ("0", 0), ("", 0)])
def test_whether_texts_are_kept_may_be_said_by_the_environment(
    ltm: Run, monkeypatch: pytest.MonkeyPatch, value: str, found: int
) -> None:
    monkeypatch.setenv("LTM_INDEX_TEXT", value)
    ltm("store", "a", '"tea"')
    assert len(ltm("search", "tea").lines) == found
    ltm("store", "a", '"tea"', "--no-index-text")
    assert ltm("search", "tea").lines == []
    monkeypatch.setenv("LTM_INDEX_TEXT", "maybe")
    done = ltm("store", "a", "1")
    assert (done.code, "LTM_INDEX_TEXT must be true or false" in done.err) == (2, True)
