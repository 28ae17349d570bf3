"""mutmut, whose tests are collected once: ``python tests/mutants/mutating.py run``.

By itself it has each mutant's process collect its tests, which takes ten times as long as to run
those that kill it. Here each is forked from a process that has collected them all, and tries first
what has killed lately: the mutants of a function are mostly killed by the same test.
"""

from __future__ import annotations

import gc
import pathlib
from collections.abc import Iterable, Sequence

import pytest
from _pytest.config import _prepareconfig
from mutmut.__main__ import cli
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils.file_utils import change_cwd
from mutmut.workers import isolation

KILLERS = pathlib.Path("killers.txt")
LATELY = 50


class WarmRunner(PytestRunner):  # type: ignore[misc]  # has no type where mutmut is not
    """Runs the tests of mutants in a session that was begun before the fork, and never ends."""

    def warm_up(self) -> None:
        arguments = ["--rootdir=.", *self._pytest_add_cli_args_test_selection]
        with change_cwd("mutants"):
            config = _prepareconfig([*arguments, *self._pytest_add_cli_args])
            config._do_configure()
            self._session = pytest.Session.from_config(config)
            config.hook.pytest_sessionstart(session=self._session)
            self._items = {item.nodeid: item for item in self._session.perform_collect()}
        gc.collect()
        gc.freeze()

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        if mutant_name is None:
            return int(super().run_tests(mutant_name=None, tests=tests))
        with change_cwd("mutants"):
            killers = KILLERS.read_text().splitlines() if KILLERS.exists() else []
            items = [self._items[test] for test in ordered(tests, killers)]
            for item, following in zip(items, [*items[1:], None], strict=True):
                try:
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                except pytest.fail.Exception:  # of pytest-timeout, between two phases of a test
                    return 1
                if self._session.testsfailed:
                    with KILLERS.open("a") as file:
                        file.write(f"{item.nodeid}\n")
                    return 1
        return 0


def ordered(tests: Iterable[str], killers: Sequence[str]) -> list[str]:
    """*tests*, the fastest first, and before the others those that have killed lately."""
    lately = {*killers[-LATELY:]}
    seconds = state().duration_by_test
    return sorted(tests, key=lambda test: (test not in lately, seconds[test]))


if __name__ == "__main__":
    isolation.PytestRunner = WarmRunner
    cli()
