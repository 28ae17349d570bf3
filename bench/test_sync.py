"""What a blocking call takes over the async call that it waits for."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import pytest

from bench.conftest import Bench
from bench.figures import spread
from bench.racing import WARMUP
from bench.workloads import document
from ltm_async import LTMBackend, SyncLTMBackend

OVERHEAD_BUDGET_US = 100.0
ROUNDS = 100
CALLS = 20
"""Of a side in a round, one after the other."""
KEY = "agent:007:note:00000001"


@pytest.mark.parametrize("catalog", ["memory", "sqlite", "postgres"])
@pytest.mark.parametrize("method", ["store", "retrieve"])
def test_a_blocking_call(
    bench: Bench, folder: str, method: str, catalog: str, request: pytest.FixtureRequest
) -> None:
    rounds, calls = bench.pick(ROUNDS, 3), bench.pick(CALLS, 2)
    if catalog == "memory":
        url = "memory:"
    elif catalog == "sqlite":
        # Without the sync of each commit, which varies by several times what is measured here.
        url = f"sqlite:///{folder}/ltm.db?synchronous=NORMAL"
    else:
        url = request.getfixturevalue("dsn")

    def arguments(turn: int) -> tuple[Any, ...]:
        return (KEY, document(KEY, turn)) if method == "store" else (KEY,)

    def measure() -> dict[str, list[list[float]]]:
        """Microseconds of every call of every round, the two sides in turn."""
        ours = SyncLTMBackend(url, folder, timeout=None)
        theirs = LTMBackend(url, folder, timeout=None)
        blocking, awaited = getattr(ours, method), getattr(theirs, method)

        async def wait(work: list[tuple[Any, ...]]) -> list[float]:
            spent_us = []
            for one in work:
                began = time.perf_counter()
                result = await awaited(*one)
                spent_us.append((time.perf_counter() - began) * 1e6)
                assert result.success
            return spent_us

        def block(work: list[tuple[Any, ...]]) -> list[float]:
            spent_us = []
            for one in work:
                began = time.perf_counter()
                result = blocking(*one)
                spent_us.append((time.perf_counter() - began) * 1e6)
                assert result["success"]
            return spent_us

        spent_us: dict[str, list[list[float]]] = {"blocking": [], "async": []}
        order = list(spent_us)
        with asyncio.Runner(debug=False) as runner:
            ours.store(KEY, document(KEY, 0))
            runner.run(theirs.store(KEY, document(KEY, 0)))
            for turn in range(WARMUP + rounds):
                work = [arguments(turn * calls + number) for number in range(calls)]
                for side in order:
                    times = block(work) if side == "blocking" else runner.run(wait(work))
                    if turn >= WARMUP:
                        spent_us[side].append(times)
                order.reverse()
            runner.run(theirs.aclose())
        ours.close()
        return spent_us

    spent_us = bench.call(measure)
    over_us = [
        statistics.median(blocking) - statistics.median(awaited)
        for blocking, awaited in zip(spent_us["blocking"], spent_us["async"], strict=True)
    ]
    what = f"blocking {method} over the async one, {catalog}"
    bench.report(spread("Sync", what, over_us, limit=OVERHEAD_BUDGET_US, unit="µs"))
