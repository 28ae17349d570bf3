"""Options, wrong use and failing stores: the exit code, and words without secrets."""

from __future__ import annotations

import importlib
import pathlib
import re
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import closing

import pytest

import ltm_async
from ltm_async import cli, commands, exits

from .running import CANARY, ROOT, Run, damage, environment, fill, process

COMMANDS = [
    "store",
    "get",
    "delete",
    "list",
    "search",
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


class TestHelp:
    def test_every_command_is_listed_and_explained(self, ltm: Run) -> None:
        done = ltm("--help")
        assert (done.code, done.err) == (0, "")
        commands_text = done.out.split("Commands:")[1].split("Exit codes:")[0]
        listed = re.findall(r"^  (\w+) +\S.*[.]$", commands_text, re.MULTILINE)
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
            value
            for name, value in vars(exits).items()
            if name.isupper() and isinstance(value, int)
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
    assert {name for name, code in codes.items() if code == exits.CONFLICT} == {"ConflictError"}
    wrong = {name for name, code in codes.items() if code == exits.WRONG_USE}
    assert wrong == {"ConfigError", "InvalidEntryError"}
    assert set(codes.values()) == {exits.WRONG_USE, exits.STORE_FAILED, exits.CONFLICT}


def test_a_secret_of_the_address_is_hidden_in_what_a_store_says() -> None:
    session = commands.Session(catalog=f"postgresql://me:{CANARY}@host/db")
    assert session.hide(f"no answer from {session.catalog}") == (
        "no answer from postgresql://…@host/db"
    )
