"""The figures of a run as they come: what was measured is kept, whatever becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from bench.figures import Figure
from bench.results import NOT_REACHED

_INTERRUPTED = "was interrupted"


def report_figure(node: pytest.Item, figure: Figure) -> None:
    """Add *figure* to those of the benchmark that *node* is."""
    node.user_properties.append(("figure", figure))


class Collector:
    """A plugin of pytest: the figures of all that ran, and of what there are none or not all."""

    def __init__(self, after_each: Callable[[], object]) -> None:
        """*after_each* is called when a benchmark has ended."""
        self.figures: list[Figure] = []
        self.missing: dict[str, str] = {}
        """The benchmarks that did not end well, and why."""
        self._after_each = after_each

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.missing = {_name(item): NOT_REACHED for item in session.items}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.skipped:
            self.missing[_name(item)] = "was skipped"
        elif call.excinfo is not None:  # its type alone: texts tell of paths and ports
            self.missing[_name(item)] = f"failed: {call.excinfo.typename}"
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """What an interrupted benchmark had told counts, though pytest makes no report of it."""
        name = _name(item)
        self.missing[name] = _INTERRUPTED
        try:
            done = yield
        finally:
            self.figures += [told for _, told in item.user_properties if isinstance(told, Figure)]
        if self.missing[name] == _INTERRUPTED:
            del self.missing[name]
        self._after_each()
        return done


def _name(item: pytest.Item) -> str:
    return item.nodeid.removeprefix("bench/")
