"""Snapshots, and what has changed since."""

from __future__ import annotations

import json
import pathlib
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

from .running import Run, environment, fill


def cursor_told(err: str) -> str:
    said, _, cursor = err.strip().rpartition(" ")
    assert said == "ltm: go on with --cursor"
    return cursor


def test_what_changed_since_a_snapshot_is_printed_one_a_line(ltm: Run) -> None:
    ltm("store", "a", "1")
    made = ltm("snapshot", "before")
    assert (made.code, made.err, made.json["name"], made.json["entry_count"]) == (
        0,
        "",
        "before",
        1,
    )
    ltm("store", "b", "2", "--metadata", '{"x": 1}')
    ltm("delete", "a")
    done = ltm("changes", "--since", made.json["id"])
    assert done.code == 0
    assert [(line["kind"], line["key"]) for line in done.lines] == [
        ("stored", "b"),
        ("deleted", "a"),
    ]
    assert done.lines[0]["entry"]["metadata"] == {"x": 1}
    cursor = cursor_told(done.err)
    assert done.lines[-1]["cursor"] == cursor
    forgotten = ltm("snapshot", "--delete", made.json["id"])
    assert (forgotten.code, forgotten.json["deleted"]) == (0, True)
    assert ltm("changes", "--since", made.json["id"]).code == 2
    again = ltm("snapshot", "--delete", made.json["id"])
    assert (again.code, again.err) == (1, "ltm: no such snapshot\n")
    assert ltm("snapshot").code == ltm("snapshot", "n", "--delete", "0").code == 2
    nothing = ltm("changes", "--cursor", cursor)
    assert (nothing.code, nothing.out, cursor_told(nothing.err)) == (0, "", cursor)


def test_many_pages_are_printed_to_their_end(ltm: Run, folder: pathlib.Path) -> None:
    fill(folder, 1200)
    assert len(ltm("changes").lines) == 1200


def test_wrong_use_is_told(ltm: Run) -> None:
    ltm("store", "a", "1")
    both = ltm("changes", "--since", "x", "--cursor", "y")
    assert (both.code, both.out) == (2, "")
    assert "exclude each other" in both.err
    for args, said in (
        (["--since", "absent"], "no such snapshot"),
        (["--cursor", "nonsense"], "cursor is none"),
        (["--poll", "0"], "poll is 0"),
    ):
        done = ltm("changes", *args)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
        assert "go on" not in done.err
    assert ltm("snapshot", "").code == 2


def test_damaged_entries_are_reported_and_counted(ltm: Run, folder: pathlib.Path) -> None:
    fill(folder, 3)
    with closing(sqlite3.connect(folder / "ltm.db")) as db, db:
        db.execute("UPDATE ltm_entries SET metadata = '[]' WHERE key = 'k000001'")
    done = ltm("changes")
    assert (done.code, [line["kind"] for line in done.lines]) == (
        3,
        ["stored", "damaged", "stored"],
    )
    assert done.err.endswith("ltm: damaged entries: 1\n")


def test_following_prints_what_comes_and_tells_its_cursor_when_interrupted(
    ltm: Run, folder: pathlib.Path
) -> None:
    ltm("store", "a", "1")
    command = [sys.executable, "-m", "ltm_async", "changes", "--follow", "--poll", "0.1"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["key"] == "a"
            ltm("store", "b", "2")
            assert json.loads(process.stdout.readline())["key"] == "b"
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
            cursor = cursor_told(process.stderr.read())
        finally:
            process.kill()  # it follows for ever
    # It may come before what was printed last is known to be.
    assert {line["key"] for line in ltm("changes", "--cursor", cursor).lines} <= {"b"}
