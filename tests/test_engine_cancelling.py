"""Cancelling a query: it ends at once, whenever that is, and the engine goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async import ClosedError, DeadlineError, DuckDBQueryEngine, LTMBackend, UnavailableError
from ltm_async.engine import pool
from ltm_async.engine.pool import Pool
from ltm_async.engine.tables import Table

HEAVY = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE hash(a.range, b.range) = 7"
STUBBORN = "SELECT max(md5(repeat(range::VARCHAR, 20000))) FROM range(1000000)"
"""One call of a function over a page of its values takes a second, and is not interrupted."""


@pytest.fixture
async def engine() -> AsyncIterator[DuckDBQueryEngine]:
    ltm = LTMBackend("memory:", "memory:", on_unavailable="raise")
    engine = DuckDBQueryEngine(ltm, threads=2, max_queries=3)
    await engine.open()
    yield engine
    await engine.aclose()
    await ltm.aclose()


def running() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith("ltm-duckdb-") and name[-1].isdigit()}


async def cancelled(call: Any, after: Any) -> None:
    task = asyncio.create_task(call)
    await after
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def busy(engine: DuckDBQueryEngine) -> None:
    """Wait until DuckDB is at work."""
    base = await engine._base()
    while base.pool._free >= len(base.pool._threads):  # noqa: ASYNC110  # threads tell no one
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)


async def test_a_heavy_query_is_interrupted_when_it_is_cancelled_and_not_after_it_has_ended(
    engine: DuckDBQueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uninterrupted it would run for days."""
    interrupts: list[int] = []
    interrupt = Table._interrupt

    def counting(table: Table) -> None:
        interrupts.append(1)
        interrupt(table)

    monkeypatch.setattr(Table, "_interrupt", counting)
    async with await engine.load() as loaded:
        for _ in range(5):
            interrupts.clear()
            await cancelled(loaded.query(HEAVY), busy(engine))
            await asyncio.wait_for(all_idle(engine), 30)
            await asyncio.sleep(2 * pool.EVERY_S)  # one more may have been due
            needed = len(interrupts)
            assert needed >= 1
            assert (await loaded.query("SELECT sum(range) FROM range(1000000)")).success
            assert len(interrupts) == needed


@pytest.mark.slow
async def test_an_engine_is_sound_after_a_thousand_cancelled_queries(
    engine: DuckDBQueryEngine,
) -> None:
    """Each is cancelled at another of its steps: also between those that take an interrupt."""
    for n in range(1000):
        await cancelled(engine.query(HEAVY), turns(n % 40) if n % 10 else asyncio.sleep(n / 1e5))
    found = await engine.query("SELECT count(*) FROM duckdb_tables", timeout=10)
    assert found.rows == [(1,)], "its own"
    await asyncio.wait_for(all_idle(engine), 5)
    assert len(running()) <= 3


async def test_a_deadline_interrupts_a_query(engine: DuckDBQueryEngine) -> None:
    with pytest.raises(DeadlineError):
        await engine.query(HEAVY, timeout=0.2)
    await asyncio.wait_for(all_idle(engine), 5)
    assert (await engine.query("SELECT 1")).rows == [(1,)]


async def all_idle(engine: DuckDBQueryEngine) -> None:
    base = await engine._base()
    while base.pool._free < len(base.pool._threads):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_what_takes_no_interrupt_is_not_waited_for(engine: DuckDBQueryEngine) -> None:
    """The call ends, its thread when it can; until then these entries are not asked again."""
    async with await engine.load() as loaded:
        await cancelled(loaded.query(STUBBORN), busy(engine))
        with contextlib.suppress(UnavailableError):  # unless it has ended meanwhile
            await loaded.query("SELECT 1")
        assert (await engine.query("SELECT 2")).rows == [(2,)]
        await asyncio.wait_for(all_idle(engine), 30)
        assert (await loaded.query("SELECT 1")).rows == [(1,)]


async def test_closing_interrupts_what_has_not_ended_in_time(
    engine: DuckDBQueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.engine.connecting.CLOSE_TIMEOUT_S", 0.05)
    task = asyncio.create_task(engine.query(HEAVY))
    await busy(engine)
    await engine.aclose()
    with pytest.raises(ClosedError):
        await engine.query("SELECT 1")
    with pytest.raises(UnavailableError, match="interrupted"):
        await task
    assert not running()


# The pool


async def test_a_call_that_is_cancelled_before_its_turn_never_begins() -> None:
    threads = Pool("ltm-duckdb-test", 1)
    go_on, done = threading.Event(), []
    first = asyncio.create_task(threads.run(go_on.wait, lambda: None))
    await turns(3)
    await cancelled(threads.run(lambda: done.append(1), lambda: done.append(2)), turns(3))
    go_on.set()
    assert await first
    await threads.run(lambda: done.append(3), lambda: None)
    assert done == [3]
    await threads.stop(timeout_s=5)


async def test_an_interrupt_is_repeated_until_the_work_ends() -> None:
    """The first ones come before a statement begins, and are lost."""
    threads = Pool("ltm-duckdb-test", 1)
    interrupts: list[int] = []
    ended = threading.Event()

    def work() -> None:
        while len(interrupts) < 5:
            time.sleep(0.001)
        ended.set()

    await cancelled(threads.run(work, lambda: interrupts.append(1)), asyncio.sleep(0.01))
    assert ended.is_set()
    await threads.stop(timeout_s=5)
    assert not {thread.name for thread in threading.enumerate()} & {"ltm-duckdb-test-0"}


async def test_interrupts_go_on_beside_a_call_that_has_lost_its_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 0.0)
    threads = Pool("ltm-duckdb-test", 1)
    interrupts: list[int] = []

    def work() -> None:
        while len(interrupts) < 5:
            time.sleep(0.001)

    await cancelled(threads.run(work, lambda: interrupts.append(1)), asyncio.sleep(0.01))
    assert len(interrupts) < 5
    await threads.run(lambda: None, lambda: None)
    assert len(interrupts) >= 5
    await threads.stop(timeout_s=5)


async def test_a_second_cancellation_does_not_cut_the_first_one_short() -> None:
    threads = Pool("ltm-duckdb-test", 1)
    interrupts: list[int] = []
    ended = threading.Event()

    def work() -> None:
        while len(interrupts) < 5:
            time.sleep(0.001)
        ended.set()

    task = asyncio.create_task(threads.run(work, lambda: interrupts.append(1)))
    await asyncio.sleep(0.01)
    for _ in range(3):
        task.cancel()
        await turns(2)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    await threads.stop(timeout_s=5)


async def test_no_more_threads_are_started_than_are_needed() -> None:
    threads = Pool("ltm-duckdb-test", 3)
    for _ in range(20):
        await threads.run(lambda: None, lambda: None)
        while not threads._free:  # noqa: ASYNC110  # a result is told before its thread is free
            await asyncio.sleep(0)
    assert len(threads._threads) == 1
    release = threading.Event()
    calls = [asyncio.create_task(threads.run(release.wait, lambda: None)) for _ in range(10)]
    await turns(5)
    assert len(threads._threads) == 3
    release.set()
    assert await asyncio.gather(*calls) == [True] * 10
    await threads.stop(timeout_s=5)
    with pytest.raises(ClosedError):
        await threads.run(lambda: None, lambda: None)
