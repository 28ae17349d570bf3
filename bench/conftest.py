"""Fixtures of the benchmarks: full size with ``--benchmark-enable``, else a quick smoke test."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from bench.workloads import Figure, settled_gc

T = TypeVar("T")


class Bench:
    """A typed face of pytest-benchmark, which calls the whole measurement once.

    A measurement times its own rounds: pytest-benchmark runs one function for all of its
    rounds before the next, so that drift of the machine would look like a difference.
    """

    def __init__(self, benchmark: Any) -> None:
        self._benchmark = benchmark
        self.full: bool = benchmark.enabled

    def pick(self, full: int, smoke: int) -> int:
        return full if self.full else min(full, smoke)

    def call(self, measure: Callable[..., T], *args: Any) -> T:
        with settled_gc():
            result: T = self._benchmark.pedantic(measure, args=args, rounds=1, iterations=1)
        return result

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """*main* on a loop of its own, since the one of the tests is in debug mode."""
        return self.call(lambda: asyncio.run(main(), debug=False))

    def report(self, *figures: Figure) -> None:
        known = self._benchmark.extra_info.setdefault("figures", [])
        known.extend(dataclasses.asdict(figure) for figure in figures)


@pytest.fixture
def bench(benchmark: Any) -> Bench:
    return Bench(benchmark)


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ltm-bench-") as path:
        yield path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(900))
