"""What is stored and read, and how two ways of doing it are timed side by side."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ltm_async import LTMBackend

from .bare import Bare

T = TypeVar("T")

R = TypeVar("R")

ROOT = Path(__file__).parents[1]
WARMUP = 3
BATCHES = [(1, 500), (100, 500), (500, 500), (10_000, 500), (10_000, 10_000)]
"""Entries of a call, and how many of them make one transaction on all sides."""
ROUNDS = {1: 400, 100: 150, 500: 80, 10_000: 12}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the report."""

    what: str
    value: float
    unit: str
    low: float | None = None
    """First quartile; *value* is the median."""
    high: float | None = None
    limit: float | None = None
    """The budget: *value* should be at most this."""
    detail: str = ""


def titled(verb: str, count: int, batch_size: int) -> str:
    return f"{verb} {count:,}" + (f" by {batch_size:,}" if count > 500 else "")


def keys(start: int, count: int) -> list[str]:
    """Keys that spread over the whole table, as those of many agents do."""
    return [f"agent:{n * 7919 % 1000:03}:note:{n:08}" for n in range(start, start + count)]


def document(key: str, turn: int) -> dict[str, Any]:
    """About 200 bytes of JSON; another *turn* gives another text, so no write is skipped."""
    return {
        "agent": key[6:9],
        "kind": "observation",
        "turn": turn,
        "confidence": 0.25 + turn % 64 / 128,
        "tags": ["orders", "returns", f"t{turn % 10}"],
        "text": f"In turn {turn} the customer of {key} asked for a refund, and prefers e-mail.",
    }


def entries(names: Sequence[str], turn: int) -> list[dict[str, Any]]:
    return [{"key": key, "value": document(key, turn)} for key in names]


def large_entries(names: Sequence[str], byte_size: int) -> list[dict[str, Any]]:
    """Values of *byte_size* bytes as JSON."""
    room = byte_size - len('{"page":""}')
    return [
        {"key": key, "value": {"page": os.urandom(room // 2 + 1).hex()[:room]}} for key in names
    ]


def blocking(call: Callable[[T], R]) -> Callable[[T], Awaitable[R]]:
    """*call* as a side of a race; it runs on the loop and blocks it."""

    async def side(work: T) -> R:
        return call(work)

    return side


def python(*arguments: str) -> str:
    """What a new interpreter printed; it keeps what it compiled, as one that is deployed has."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def phases(code: str, *arguments: str) -> dict[str, float]:
    """Milliseconds of each phase of a new process, and of all up to the last.

    *code* prints a JSON list of names and of what ``time.monotonic`` said at each one's end.
    """
    began = previous = time.monotonic()
    spent_ms = {}
    for name, at in json.loads(python("-c", code, *arguments)):
        spent_ms[name] = (at - previous) * 1e3
        previous = at
    return {**spent_ms, "in all": (previous - began) * 1e3}


@contextlib.asynccontextmanager
async def both(folder: str, *, batch_size: int = 500) -> AsyncIterator[tuple[LTMBackend, Bare]]:
    """The library and its bare rival in one folder, hence on one disk."""
    bare = Bare(folder, batch_size=batch_size)
    with contextlib.closing(bare):
        async with LTMBackend(
            f"sqlite:///{folder}/ltm.db", f"{folder}/blobs", batch_size=batch_size, timeout=None
        ) as ltm:
            yield ltm, bare


async def race(
    sides: Mapping[str, Callable[[T], Awaitable[object]]],
    prepare: Callable[[int], T],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds, by *clock*, of every side in every round.

    In a round all sides do the same work, one right after the other, the first of a round being
    the last of the next: a slow moment of the machine hits all of them.
    """
    spent_ms: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(WARMUP + rounds):
        work = prepare(turn)
        for name in order:
            began = clock()
            await sides[name](work)
            elapsed_ms = (clock() - began) * 1e3
            if turn >= WARMUP:
                spent_ms[name].append(elapsed_ms)
        order.append(order.pop(0))
    return spent_ms


def spread(what: str, spent_ms: Sequence[float], *, limit: float | None = None) -> Figure:
    low, middle, high = statistics.quantiles(spent_ms)
    detail = f"{min(spent_ms):.3g} to {max(spent_ms):.3g} ms, {len(spent_ms)} times"
    return Figure(
        what=what, value=middle, unit="ms", low=low, high=high, limit=limit, detail=detail
    )


def ratio(
    what: str, spent_ms: Mapping[str, Sequence[float]], over: str, *, limit: float | None = None
) -> Figure:
    """The median, over all rounds, of our time divided by that of *over* in the same round."""
    pairs = zip(spent_ms["ours"], spent_ms[over], strict=True)
    low, middle, high = statistics.quantiles([ours / bare for ours, bare in pairs])
    ours_ms, bare_ms = statistics.median(spent_ms["ours"]), statistics.median(spent_ms[over])
    return Figure(
        what=f"{what}, over {over}",
        value=middle,
        unit="×",
        low=low,
        high=high,
        limit=limit,
        detail=f"{ours_ms:.3g} / {bare_ms:.3g} ms, {len(spent_ms[over])} rounds",
    )


@contextlib.asynccontextmanager
async def watched_loop(late_ms: list[float]) -> AsyncIterator[None]:
    """Collect how late a timer of 5 ms comes while the body runs."""

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            late_ms.append((time.perf_counter() - began) * 1e3 - 5)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.02)
    late_ms.clear()
    try:
        yield
        await asyncio.sleep(0.006)  # the timer that the body's last step may have delayed
    finally:
        watcher.cancel()


@contextlib.contextmanager
def settled_gc() -> Iterator[None]:
    """Spare both sides the collector's walks over the objects of pytest."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
