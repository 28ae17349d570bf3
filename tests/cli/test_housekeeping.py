"""Cleaning up, proving, and what is about the memory itself."""

from __future__ import annotations

import pathlib
import sqlite3
from contextlib import closing

from .running import Run, damage, environment, fill, process


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
