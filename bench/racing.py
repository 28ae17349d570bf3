"""Several ways to do the same work, timed side by side."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Times: TypeAlias = dict[str, list[float]]
"""Milliseconds of every side in every round."""

WARMUP = 3
LEAST_ROUNDS = 5
LEAST_LONG_ROUNDS = 3
AT_MOST_S = 1.0
TICK_S = 0.005


class Race(NamedTuple):
    wall_ms: Times
    """What a caller waits."""
    cpu_ms: Times
    """What this process computes, its threads included: a server beside it does not count."""


async def race(
    sides: Mapping[str, Callable[[T], Awaitable[object]]],
    prepare: Callable[[int], T],
    *,
    rounds: int,
    at_most_s: float = AT_MOST_S,
    warmup: int = WARMUP,
) -> Race:
    """Run *rounds* rounds, or as many as fit into *at_most_s* seconds, but no fewer than five.

    Three are enough where one takes half as long.

    In a round all sides do the same work, one right after the other, the first of a round being
    the last of the next: a slow moment of the machine hits all of them.
    """
    wall_ms: Times = {name: [] for name in sides}
    cpu_ms: Times = {name: [] for name in sides}
    order = list(sides)
    until = time.monotonic() + at_most_s
    turn, done, least = 0, 0, LEAST_ROUNDS
    while done < rounds and (done < least or time.monotonic() < until):
        began_round = time.monotonic()
        work = prepare(turn)
        for name in order:
            began, cpu_began = time.perf_counter(), time.process_time()
            await sides[name](work)
            spent, computed = time.perf_counter() - began, time.process_time() - cpu_began
            if turn >= warmup:
                wall_ms[name].append(spent * 1e3)
                cpu_ms[name].append(computed * 1e3)
        done += turn >= warmup
        spent_s = time.monotonic() - began_round
        if spent_s > at_most_s / 8:
            warmup = min(warmup, turn + 1)  # what takes so long is warm after one round
        if spent_s > at_most_s / 2:
            least = LEAST_LONG_ROUNDS
        turn += 1
        order.append(order.pop(0))
    return Race(wall_ms, cpu_ms)


def blocking(call: Callable[[T], R]) -> Callable[[T], Awaitable[R]]:
    """*call* as a side of a race; it runs on the loop and blocks it."""

    async def side(work: T) -> R:
        return call(work)

    return side


def by_callers(
    count: int, call: Callable[[T], Awaitable[object]]
) -> Callable[[list[T]], Awaitable[None]]:
    """A closed loop: each caller begins its next call when its last one has returned."""

    async def all_callers(work: list[T]) -> None:
        todo = iter(work)

        async def caller() -> None:
            for one in todo:
                await call(one)

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(caller())

    return all_callers


async def longest_stall_ms(call: Awaitable[object]) -> float:
    """How late a timer of 5 ms came at worst while *call* ran."""
    late_ms: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late_ms.append((time.perf_counter() - began - TICK_S) * 1e3)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(4 * TICK_S)
    late_ms.clear()
    try:
        await call
        await asyncio.sleep(1.2 * TICK_S)  # the timer that the last step may have delayed
    finally:
        watcher.cancel()
    return max(late_ms)


@contextlib.contextmanager
def settled_gc() -> Iterator[None]:
    """Spare both sides the collector's walks over the objects of pytest."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
