"""Running tests on a copy of the tree, mutated or not."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

from .mutant import Mutant, StalePatchError

TIMEOUT_S = 600.0
COPIED = ("ltm_async", "tests", "examples", "pyproject.toml", "README.md", "CHANGELOG.md")
PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "pytest_benchmark.plugin", "xdist.plugin")
"""Those that the tests need: to import all that are installed takes longer than most tests."""
LINKED = (".npm-servers", ".venv-servers")
"""The servers of the tests, which no mutant changes."""
_NO_KILL = re.compile(
    r"\b(ImportError|ModuleNotFoundError|SyntaxError|NameError|UnboundLocalError)"
)
"""What a careless patch dies of, whatever the tests look at."""
_RAN = (0, 1)
"""What pytest ends with after it has run all it was asked to run."""


class NotRunError(Exception):
    """pytest could not begin: a test of that name is not there, or a module cannot be imported."""


class Verdict(enum.Enum):
    KILLED = "killed"
    SURVIVED = "survived"
    INVALID = "invalid"
    """Nothing can be said: the patch or its test is broken."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What became of one mutant."""

    mutant: Mutant
    verdict: Verdict
    said: str
    """By what it was killed, or what is wrong with it."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """Of one test."""

    kind: str
    """"passed", "failed", "error" (outside of the test itself), "skipped" or "absent"."""
    message: str = ""


class Tree:
    """A copy of the tree, for one trial at a time."""

    def __init__(self, source: pathlib.Path, folder: pathlib.Path) -> None:
        self._folder = folder
        for name in COPIED:
            if (source / name).is_dir():
                shutil.copytree(
                    source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            elif (source / name).exists():
                shutil.copy2(source / name, folder)
        for name in LINKED:
            if (source / name).exists():
                (folder / name).symlink_to((source / name).resolve())

    def try_mutant(self, mutant: Mutant) -> Trial:
        began = time.monotonic()
        try:
            with self._mutated(mutant):
                [outcome] = self.run([mutant.test])
        except (StalePatchError, NotRunError, subprocess.TimeoutExpired) as exc:
            verdict, said = Verdict.INVALID, str(exc)
        else:
            verdict, said = judge(outcome)
        return Trial(mutant, verdict, said, time.monotonic() - began)

    def run(self, tests: Sequence[str], *options: str) -> list[Outcome]:
        """What becomes of each of *tests* here."""
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        plugins = [option for plugin in PLUGINS for option in ("-p", plugin)]
        always = ("-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}")
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, *always, *options, *tests],
            cwd=self._folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if ran.returncode not in _RAN:
            raise NotRunError(f"{ran.stdout[-2_000:]}{ran.stderr[-2_000:]}".strip())
        outcomes = _outcomes(report)
        return [outcomes.get(_place(test), Outcome("absent")) for test in tests]

    def imports(self, package: str) -> pathlib.Path:
        """From where a process that runs here has *package*."""
        code = f"import {package}; print({package}.__file__)"
        said = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self._folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return pathlib.Path(said.stdout.strip())

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            # Before the site's packages, where an editable installation leads to the tree itself.
            "PYTHONPATH": str(self._folder),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    @contextmanager
    def _mutated(self, mutant: Mutant) -> Iterator[None]:
        texts = mutant.of(self._folder)
        before = {file: file.read_text() for file in texts}
        _write(texts)
        try:
            yield
        finally:
            _write(before)


def judge(outcome: Outcome) -> tuple[Verdict, str]:
    """What the outcome of its test says of a mutant, and by what."""
    if outcome.kind == "passed":
        return Verdict.SURVIVED, ""
    if outcome.kind != "failed":
        return Verdict.INVALID, f"the test has no verdict ({outcome.kind}): {outcome.message}"
    if _NO_KILL.search(outcome.message):
        return Verdict.INVALID, f"the patch is broken: {outcome.message}"
    return Verdict.KILLED, outcome.message


def _write(texts: dict[pathlib.Path, str]) -> None:
    for file, text in texts.items():
        file.write_text(text)
        if file.suffix == ".py":  # compiled code is told apart by second and size only
            pathlib.Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def _place(test: str) -> tuple[str, str]:
    """The class and name that a report gives to *test*."""
    function, bracket, parameters = test.partition("[")
    file, *inner = function.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *inner[:-1]]), inner[
        -1
    ] + bracket + parameters


def _outcomes(report: pathlib.Path) -> dict[tuple[str, str], Outcome]:
    outcomes: dict[tuple[str, str], Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        place = case.get("classname", ""), case.get("name", "")
        found = outcomes.setdefault(place, Outcome("passed"))
        for kind in ("failure", "error", "skipped"):
            said = case.find(kind)
            if said is not None and found.kind != "failed":
                lines = said.get("message", "").strip().splitlines() or [""]
                kind = "failed" if kind == "failure" else kind
                found = outcomes[place] = Outcome(kind, lines[0])
    return outcomes
