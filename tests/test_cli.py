"""The command ``ltm``: what it prints where, with which exit code, and how it is stopped."""

from __future__ import annotations

import array
import asyncio
import fcntl
import importlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import termios
import time
import tomllib
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import IO, Any, NamedTuple

import pytest

import ltm_async
from ltm_async import LTMBackend, cli, commands

from .corpus import same

ROOT = pathlib.Path(__file__).parents[1]
CANARY = "canary-93d5"
COMMANDS = [
    "store",
    "get",
    "delete",
    "list",
    "stats",
    "cleanup",
    "gc",
    "verify",
    "export",
    "import",
    "schema",
    "doctor",
    "demo",
]


class Done(NamedTuple):
    """What a run printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


def environment(folder: pathlib.Path, **more: str) -> dict[str, str]:
    clean = {  # PYTHONUNBUFFERED, for one, hides what a buffer does at the end
        name: value for name, value in os.environ.items() if not name.startswith(("LTM_", "PYTHON"))
    }
    return {
        **clean,
        "PYTHONPATH": str(ROOT),
        "LTM_CATALOG": f"sqlite:///{folder}/ltm.db",
        "LTM_STORAGE": f"{folder}/blobs",
        **more,
    }


def process(
    folder: pathlib.Path,
    *args: str,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Done:
    """A run in a process of its own."""
    done = subprocess.run(
        [python, "-W", "error", "-m", "ltm_async", *args],
        cwd=folder,
        env=environment(folder) if env is None else env,
        input=data,
        capture_output=True,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name, value in environment(tmp_path).items():
        if name.startswith("LTM_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("LTM_NAMESPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ltm(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A run in this process."""

    def run(*args: str) -> Done:
        code = cli.main(args)
        return Done(code, *capsys.readouterr())

    return run


def fill(folder: pathlib.Path, count: int, size: int = 10) -> None:
    async def store() -> None:
        async with LTMBackend(f"sqlite:///{folder}/ltm.db", folder / "blobs") as memory:
            done = await memory.store_batch(
                {"key": f"k{number:06}", "value": f"{number} {'x' * size}"}
                for number in range(count)
            )
            assert done.stored == count

    asyncio.run(store())


def damage(folder: pathlib.Path) -> None:
    for path in (folder / "blobs").rglob("*"):
        if path.is_file():
            path.write_text(f"{CANARY} was here")


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

    def test_stats_count(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 3, size=5000)
        ltm("store", "small", "1")
        stats = ltm("stats").json
        assert (stats["entries"], stats["inlined"], stats["blobs"]) == (4, 1, 3)


class TestKeepingHouse:
    def test_cleanup_removes_what_has_expired(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 1200)
        with closing(sqlite3.connect(folder / "ltm.db")) as db, db:
            db.execute("UPDATE ltm_entries SET expires_at = 1 WHERE key < 'k001100'")
        assert ltm("cleanup", "--limit", "40").json["deleted"] == 40
        assert ltm("cleanup").json["deleted"] == 1060
        assert ltm("stats").json["entries"] == 100

    def test_gc_deletes_what_no_entry_has(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 3, size=5000)
        fill(folder, 3, size=6000)
        assert ltm("gc", "--dry-run").json["deleted"] == 3
        assert ltm("gc", "--limit", "2").json["deleted"] == 2
        assert ltm("gc").json["deleted"] == 1
        assert ltm("gc").json["deleted"] == 0

    def test_gc_audits_the_storage(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 1, size=5000)
        (blob,) = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
        (blob.parent / f"{'0' * 16}-{'a' * 32}").write_text("stray")
        assert ltm("gc", "--audit").json["deleted"] == 0, "it is not seven days old"
        assert ltm("gc", "--stray-age-days", "0").json["deleted"] == 0, "no audit was asked for"
        assert ltm("gc", "--audit", "--stray-age-days", "0").json["deleted"] == 1
        assert ltm("verify").json["sound"] is True

    def test_verify_finds_what_is_damaged(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 2, size=5000)
        sound = ltm("verify")
        assert (sound.code, sound.err, sound.json["blobs"]) == (0, "", 2)
        damage(folder)
        done = ltm("verify")
        assert (done.code, done.json["sound"]) == (1, False)
        assert sorted(done.json["problems"]) == ["k000000", "k000001"]
        assert done.err == "ltm: 2 problems were found\n"

    def test_the_schema_is_the_one_of_the_catalog(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 1)
        with closing(sqlite3.connect(folder / "own.db")) as own:
            own.executescript(ltm("schema", "sqlite").out)
        with (
            closing(sqlite3.connect(folder / "own.db")) as own,
            closing(sqlite3.connect(folder / "ltm.db")) as made,
        ):
            for query in ("SELECT name, sql FROM sqlite_master ORDER BY 1", "PRAGMA user_version"):
                assert own.execute(query).fetchall() == made.execute(query).fetchall() != []
        assert ltm("--catalog", f"sqlite:///{folder}/own.db", "store", "k", "1").code == 0

    def test_the_doctor_says_what_is_well(self, ltm: Run) -> None:
        done = ltm("doctor")
        assert (done.code, done.err) == (0, "")
        assert len(done.lines) > 10
        assert {tuple(line) for line in done.lines} == {("check", "ok", "detail", "advice")}
        assert [line for line in done.lines if not line["ok"]] == []

    def test_the_doctor_says_what_is_not(self, ltm: Run) -> None:
        done = ltm("doctor", "--catalog", "sqlite:////nothing/here.db")
        assert done.code == 1
        assert done.err == "ltm: not all is well: see what is not ok, and its advice\n"
        (bad,) = [line for line in done.lines if not line["ok"]]
        assert bad["check"] == "catalog connection"
        assert "folder" in bad["advice"]

    def test_the_doctor_needs_no_configuration(self, folder: pathlib.Path) -> None:
        env = environment(folder, LTM_CATALOG="", LTM_STORAGE="")
        done = process(folder, "doctor", env=env)
        assert done.code == 1
        assert "LTM_CATALOG" in done.json["advice"]

    def test_the_demo_runs(self, folder: pathlib.Path) -> None:
        done = process(folder, "demo", "--path", "demo")
        assert done.code == 0, done.err
        assert "Sound: everything came back equal" in done.out
        assert (folder / "demo" / "demo.db").is_file()


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

    def test_a_damaged_entry_is_3_and_what_is_before_it_is_kept(
        self, ltm: Run, folder: pathlib.Path
    ) -> None:
        fill(folder, 1, size=5000)
        damage(folder)
        ltm("store", "a", "1")
        ltm("store", "z", "1")
        done = ltm("export", "file")
        assert (done.code, done.out) == (3, "")
        assert "the entry 'k000000' cannot be read" in done.err
        assert "continue with: ltm export file --append" in done.err
        assert len((folder / "file").read_text().splitlines()) == 2
        done = ltm("export", "file", "--append", "--keep-going")
        assert (done.code, done.json["damaged"], done.json["exported"]) == (3, 1, 1)
        assert "left out 'k000000'" in done.err
        assert CANARY not in done.err

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


class TestOptions:
    @pytest.mark.parametrize("where", ["before", "after", "environment", "both"])
    def test_the_place_of_an_option_is_free(
        self, ltm: Run, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        options = ["--catalog", "sqlite:///its.db", "--storage=its", "--namespace", "its"]
        wrong = ["--catalog", "nothing:", "--storage", "nothing://", "--namespace", "no"]
        args = {
            "before": [*options, "store", "k", "1", "--timeout", "9"],
            "after": ["store", *options, "k", "--timeout", "9", "1"],
            "both": [*wrong, "store", "k", "1", *options],
            "environment": ["store", "k", "1"],
        }[where]
        if where == "environment":
            monkeypatch.setenv("LTM_CATALOG", "sqlite:///its.db")
            monkeypatch.setenv("LTM_STORAGE", "its")
            monkeypatch.setenv("LTM_NAMESPACE", "its")
        assert ltm(*args).code == 0
        with closing(sqlite3.connect("its.db")) as db:
            assert db.execute("SELECT namespace FROM ltm_entries").fetchall() == [("its",)]

    def test_an_option_wins_over_the_environment(
        self, ltm: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LTM_NAMESPACE", "env")
        ltm("store", "k", "1", "--namespace", "")
        assert ltm("--namespace", "", "get", "k").code == 0
        assert ltm("get", "k").code == 1

    def test_a_deadline_that_passes_is_3(self, ltm: Run, folder: pathlib.Path) -> None:
        fill(folder, 1)
        with closing(sqlite3.connect(folder / "ltm.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            done = ltm("store", "k", "1", "--timeout", "0.2")
            assert time.monotonic() - began < 5
            db.execute("ROLLBACK")
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith("ltm: no answer within 0.2 s")


WRONG = {
    "no command": [],
    "an unknown command": ["stroe"],
    "an unknown option": ["list", "--stroage", "x"],
    "no key": ["get"],
    "no value": ["store", "k"],
    "value and file": ["store", "k", "1", "--file", "x"],
    "no such file": ["store", "k", "--file", "nothing"],
    "too many arguments": ["store", "k", "1", CANARY],
    "no JSON": ["store", "k", f'{{"{CANARY}'],
    "NaN": ["store", "k", f'["{CANARY}", NaN]'],
    "no UTF-8": ["store", "k", f'"\udcff{CANARY}"'],
    "text that is no UTF-8": ["store", "k", "--text", f"\udcff{CANARY}"],
    "metadata no JSON": ["store", "k", "1", "--metadata", CANARY],
    "metadata no object": ["store", "k", "1", "--metadata", f'["{CANARY}"]'],
    "an empty key": ["get", ""],
    "a key that is no UTF-8": ["get", f"\udcff{CANARY}"],
    "a TTL of nothing": ["store", "k", "1", "--ttl", "0"],
    "a TTL that is no number": ["store", "k", "1", "--ttl", "soon"],
    "two conditions": ["store", "k", "1", "--if-absent", "--if-version", "1"],
    "version 0": ["store", "k", "1", "--if-version", "0"],
    "limit 0": ["list", "--limit", "0"],
    "a huge age": ["gc", "--audit", "--stray-age-days", "1e300"],
    "an age that is none": ["gc", "--audit", "--stray-age-days", "nan"],
    "a timeout of nothing": ["stats", "--timeout", "0"],
    "an unknown schema": ["schema", "oracle"],
    "append and overwrite": ["export", "f", "--append", "--overwrite"],
    "a file in no folder": ["export", "nothing/here"],
    "an import of nothing": ["import", "nothing"],
    "an import of something else": ["import", "diary"],
    "two places to go on": ["import", "diary", "--skip", "1", "--resume", "state"],
    "a state that is none": ["import", "diary", "--resume", "diary"],
    "an unknown catalog": ["stats", "--catalog", f"nothing://me:{CANARY}@host"],
    "an unknown storage": ["stats", "--storage", f"nothing://me:{CANARY}@host"],
    "a catalog that is no URL": ["stats", "--catalog", f"me-{CANARY}"],
    "an unknown option of a URL": ["stats", "--catalog", f"sqlite:///x?password={CANARY}"],
    "a long namespace": ["stats", "--namespace", CANARY * 50],
}


class TestWrongUse:
    @pytest.mark.parametrize("name", WRONG)
    def test_it_is_2_and_told_without_the_value(
        self, ltm: Run, folder: pathlib.Path, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        (folder / "diary").write_text(f"{CANARY}\n")
        done = ltm(*WRONG[name])
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("ltm: ")
        assert len(done.err.splitlines()) <= 2
        assert CANARY not in done.err + caplog.text
        assert list(folder.glob("*.db")) == [], "nothing was to be opened"

    @pytest.mark.parametrize("name", ["catalog", "storage"])
    def test_what_is_missing_is_named(
        self, ltm: Run, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(f"LTM_{name.upper()}", "")
        done = ltm("stats")
        assert done.code == 2
        assert done.err.startswith(f"ltm: no {name}: --{name} or LTM_{name.upper()}, ")

    def test_an_address_in_the_wrong_place_is_told_without_its_secret(
        self, ltm: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = f"postgresql://me:{CANARY}@host/db"
        monkeypatch.setenv("LTM_CATALOG", address)
        done = ltm("stats", "--timeout", address)
        assert done.code == 2
        assert "timeout" in done.err
        assert CANARY not in done.err

    def test_an_option_that_is_nearly_right_is_named(self, ltm: Run) -> None:
        assert "--storage" in ltm("list", "--stroage", "x").err


class TestStoreFailed:
    @pytest.mark.parametrize(
        "args",
        [["stats"], ["list"], ["verify"], ["cleanup"], ["gc"], ["export"], ["store", "k", CANARY]],
        ids=" ".join,
    )
    def test_it_is_3_and_told_in_one_line(self, ltm: Run, args: list[str]) -> None:
        if args[0] == "store":
            args = [*args, "--text"]
        done = ltm(*args, "--catalog", "sqlite:////nothing/here.db")
        assert (done.code, done.out) == (3, "")
        assert done.err.splitlines()[-1] == "ltm: sqlite: unable to open database file"
        assert CANARY not in done.err

    def test_a_damaged_value_is_told_without_it(
        self, ltm: Run, folder: pathlib.Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        fill(folder, 1, size=5000)
        damage(folder)
        done = ltm("get", "k000000")
        assert (done.code, done.out) == (3, "")
        assert done.err.startswith("ltm: a blob does not have")
        assert CANARY not in done.err + caplog.text

    def test_a_full_disk_is_3(self, folder: pathlib.Path) -> None:
        fill(folder, 3)
        done = process(folder, "export", "/dev/full", "--overwrite")
        assert (done.code, done.out) == (3, "")
        assert done.err.splitlines()[-1].startswith("ltm: No space left on device")

    def test_a_full_disk_below_stdout_is_3(self, folder: pathlib.Path) -> None:
        fill(folder, 3)
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "ltm_async", "stats"],
                env=environment(folder),
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 3
        assert done.stderr.startswith(b"ltm: No space left on device")


class TestProcesses:
    """What holds for a process of its own."""

    def test_json_is_on_stdout_and_words_are_on_stderr(self, folder: pathlib.Path) -> None:
        assert process(folder, "store", "k", '{"a": 1}').json["stored"] is True
        assert process(folder, "get", "k") == (0, '{"a": 1}\n', "")
        assert process(folder, "get", "nothing") == (1, "", "ltm: no such key\n")
        assert process(folder, "store", "k", "1", "--if-absent")[:2] == (4, "")
        assert process(folder, "get")[:2] == (2, "")
        assert process(folder, "stats", "--catalog", "sqlite:////no/x.db")[:2] == (3, "")

    def test_stdin_is_read_for_a_dash(self, folder: pathlib.Path) -> None:
        data = '["☃", "a long text"]'.encode()
        assert process(folder, "store", "k", "-", data=data).code == 0
        assert process(folder, "get", "k").json == ["☃", "a long text"]
        assert process(folder, "store", "k", "-", "--text", data=b"text\n").code == 0
        assert process(folder, "get", "k").json == "text\n"

    def test_an_export_can_be_piped_into_an_import(self, folder: pathlib.Path) -> None:
        fill(folder, 1500)
        exported = process(folder, "export")
        other = environment(folder, LTM_CATALOG="sqlite:///other.db", LTM_STORAGE="other")
        done = process(folder, "import", data=exported.out.encode(), env=other)
        assert (done.code, done.json["imported"]) == (0, 1500)
        assert process(folder, "export", env=other) == exported

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_an_old_terminal_gets_escapes(self, folder: pathlib.Path, encoding: str) -> None:
        process(folder, "store", "ключ", '"☃"')
        env = environment(folder, PYTHONIOENCODING=encoding)
        assert process(folder, "get", "ключ", env=env).out == '"\\u2603"\n'
        assert process(folder, "list", env=env).lines[0]["key"] == "ключ"

    def test_nothing_is_coloured_unless_on_a_terminal(self, folder: pathlib.Path) -> None:
        env = environment(folder, FORCE_COLOR="1", TERM="xterm-256color")
        for args in (["--help"], ["store", "--help"], ["export"], ["verify"], ["stroe"]):
            done = process(folder, *args, env=env)
            assert "\x1b" not in done.out + done.err

    def test_without_typer_it_says_what_to_install(self, folder: pathlib.Path) -> None:
        venv.create(folder / "bare", symlinks=True)
        done = process(folder, "list", python=str(folder / "bare" / "bin" / "python"))
        assert done == (3, "", "ltm needs typer: pip install 'ltm-async[cli]'\n")

    @pytest.mark.parametrize("args", [["list"], ["export"]])
    def test_a_reader_that_stops_ends_it_quietly(
        self, folder: pathlib.Path, args: list[str]
    ) -> None:
        fill(folder, 20_000)
        with started(folder, *args) as run:
            assert run.stdout is not None and run.stderr is not None
            assert json.loads(run.stdout.readline())
            run.stdout.close()
            assert run.stderr.read() == b""
            assert run.wait() == 141

    def test_a_reader_that_is_gone_ends_it_quietly(self, folder: pathlib.Path) -> None:
        fill(folder, 1)
        with started(folder, "get", "k000000") as run:
            assert run.stdout is not None and run.stderr is not None
            run.stdout.close()
            assert run.stderr.read() == b""
            assert run.wait() == 141

    def test_a_shell_sees_no_complaint(self, folder: pathlib.Path) -> None:
        fill(folder, 20_000)
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m ltm_async list | head -1"],
            env=environment(folder),
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["key"] == "k000000"


class started(subprocess.Popen[bytes]):  # noqa: N801  # reads as what it makes
    """A run that is under way, killed at the end if it still is."""

    def __init__(self, folder: pathlib.Path, *args: str) -> None:
        super().__init__(
            [sys.executable, "-W", "error", "-m", "ltm_async", *args],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __exit__(self, *exc: Any) -> None:
        self.kill()
        super().__exit__(*exc)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def waiting_in(pipe: IO[bytes] | None) -> int:
    """Bytes that nobody has read yet."""
    assert pipe is not None
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


class TestInterrupts:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_an_export_that_is_stopped_can_be_continued(
        self, folder: pathlib.Path, how: signal.Signals
    ) -> None:
        fill(folder, 40_000)
        whole = process(folder, "export").out.encode()
        file = folder / "file"
        with started(folder, "export", "file") as run:
            wait_for(lambda: file.exists() and file.stat().st_size > 200_000)
            run.send_signal(how)
            out, err = run.communicate()
        so_far = file.read_bytes()
        assert 0 < len(so_far) < len(whole), "it was faster than the signal"
        assert whole.startswith(so_far)
        if how == signal.SIGINT:
            assert (run.returncode, out) == (130, b"")
            assert re.fullmatch(
                rb"ltm: exported \d+ entries so far; continue with: ltm export file --append\n",
                err,
            )
            assert so_far.endswith(b"\n")
        assert process(folder, "export", "file", "--append").code == 0
        assert file.read_bytes() == whole

    def test_an_export_that_nobody_reads_can_be_stopped(self, folder: pathlib.Path) -> None:
        fill(folder, 5_000, size=200)
        with started(folder, "export") as run:
            assert run.stdout is not None and run.stderr is not None
            wait_for(lambda: waiting_in(run.stdout) > 60_000)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=10) == 130
            assert re.fullmatch(rb"ltm: exported \d+ entries so far\n", run.stderr.read())

    def test_an_import_that_waits_for_input_can_be_stopped(self, folder: pathlib.Path) -> None:
        with started(folder, "import") as run:
            assert run.stdin is not None and run.stderr is not None
            run.stdin.write(process(folder, "export").out.encode())
            run.stdin.flush()
            wait_for((folder / "ltm.db").exists)
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=10) == 130
            assert run.stderr.read() == b"ltm: imported 0 entries; continue with --skip 0\n"


class TestProgress:
    """On a terminal that is stderr alone."""

    @pytest.mark.parametrize(
        ("args", "what"),
        [
            (["export", "-"], "exporting"),
            (["import", "file"], "importing"),
            (["verify"], "verifying"),
            (["cleanup"], "cleaning up"),
            (["gc"], "collecting"),
        ],
    )
    def test_a_bar_is_shown_there_and_nowhere_else(
        self, folder: pathlib.Path, args: list[str], what: str
    ) -> None:
        fill(folder, 3000)
        assert process(folder, "export", "file").code == 0
        expected = process(folder, *args)
        assert what not in expected.err
        out: list[bytes] = []
        ours, its = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "ltm_async", *args],
            cwd=folder,
            env=environment(folder, TERM="xterm-256color"),
            stdout=subprocess.PIPE,
            stderr=its,
        ) as run:
            os.close(its)
            assert run.stdout is not None
            shown = b"".join(read_terminal(ours, run.stdout.fileno(), out))
        os.close(ours)
        assert run.returncode == 0
        assert what.encode() in shown
        assert b"\x1b[" in shown
        out_text = b"".join(out).decode()
        assert "\x1b" not in out_text
        if args[0] != "import":  # which deduplicates the second time
            assert out_text == expected.out


def read_terminal(terminal: int, pipe: int, out: list[bytes]) -> Iterator[bytes]:
    """What comes to *terminal*; what comes through *pipe* meanwhile goes to *out*."""
    todo = [terminal, pipe]
    while todo:
        for readable in select.select(todo, [], [], 30)[0]:
            try:
                data = os.read(readable, 65536)
            except OSError:  # how Linux says that the other side was closed
                data = b""
            if not data:
                todo.remove(readable)
            elif readable == terminal:
                yield data
            else:
                out.append(data)


class TestHelp:
    def test_every_command_is_listed_and_explained(self, ltm: Run) -> None:
        done = ltm("--help")
        assert (done.code, done.err) == (0, "")
        listed = re.findall(r"^  (\w+) +\S.*[.]$", done.out.split("Commands:")[1], re.MULTILINE)
        assert listed == COMMANDS

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_command_explains_itself(self, ltm: Run, command: str) -> None:
        done = ltm(command, "--help")
        assert (done.code, done.err) == (0, "")
        for option in ("--catalog", "--storage", "--namespace", "--timeout"):
            assert option in done.out

    def test_the_exit_codes_are_documented(self, ltm: Run) -> None:
        readme = (ROOT / "README.md").read_text().split("\n## Command line\n")[1].split("\n## ")[0]
        codes = {
            value for name, value in vars(cli).items() if name.isupper() and isinstance(value, int)
        }
        told = " ".join(ltm("--help").out.split("Exit codes:")[1].split())
        assert set(map(int, re.findall(r"(?:^|; )(\d+) ", told.strip()))) == codes
        assert set(map(int, re.findall(r"^\| (\d+) \|", readme, re.MULTILINE))) == codes

    def test_the_readme_names_every_command(self) -> None:
        readme = (ROOT / "README.md").read_text().split("\n## Command line\n")[1].split("\n## ")[0]
        named = set(re.findall(r"`(?:ltm )?(\w+)", readme))
        assert set(COMMANDS) <= named


def test_the_script_is_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["ltm"].partition(":")
    assert getattr(importlib.import_module(module), name) is cli.main


def test_the_core_loads_neither_typer_nor_rich() -> None:
    script = (
        "import sys; from ltm_async import *; import ltm_async.cli, ltm_async.jsonl;"
        "print(sorted({'typer', 'rich', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_every_error_has_an_exit_code() -> None:
    codes = {
        name: cli._code_of(getattr(ltm_async, name)("message"))
        for name in ltm_async.__all__
        if name.endswith("Error")
    }
    assert {name for name, code in codes.items() if code == cli.CONFLICT} == {"ConflictError"}
    wrong = {name for name, code in codes.items() if code == cli.WRONG_USE}
    assert wrong == {"ConfigError", "InvalidEntryError"}
    assert set(codes.values()) == {cli.WRONG_USE, cli.STORE_FAILED, cli.CONFLICT}


def test_a_secret_of_the_address_is_hidden_in_what_a_store_says() -> None:
    session = commands.Session(catalog=f"postgresql://me:{CANARY}@host/db")
    assert session.hide(f"no answer from {session.catalog}") == (
        "no answer from postgresql://…@host/db"
    )
