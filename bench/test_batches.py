"""Batches, single calls, blobs, many callers and cleanups, each beside bare ``sqlite3``."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bench.bare import Bare, Entries
from bench.conftest import Bench
from bench.workloads import (
    BATCHES,
    ROUNDS,
    Figure,
    blocking,
    both,
    entries,
    keys,
    large_entries,
    race,
    ratio,
    spread,
    titled,
    watched_loop,
)
from ltm_async import LTMBackend

BUDGET = 1.5
BLOB_BUDGET = 1.15
CLEANUP_BUDGET = 1.3
LIVE_FOREVER = 2**60

batches = pytest.mark.parametrize(("count", "batch_size"), BATCHES)


async def _store_batch(ltm: LTMBackend, work: Entries) -> None:
    done = await ltm.store_batch(work)
    assert done.raise_for_error().stored == len(work)


async def _retrieve_batch(ltm: LTMBackend, wanted: Sequence[str]) -> dict[str, Any]:
    read = await ltm.retrieve_batch(wanted)
    assert read.raise_for_error().found == len(wanted)
    return {key: entry.value for key, entry in read.results.items()}


async def _fill(ltm: LTMBackend, bare: Bare, work: Entries) -> None:
    await _store_batch(ltm, work)
    bare.store(work)


@batches
@pytest.mark.parametrize("fresh", [True, False], ids=["new", "existing"])
def test_store_batch(bench: Bench, folder: str, count: int, batch_size: int, fresh: bool) -> None:
    title = titled("store_batch", count, batch_size) + (" new" if fresh else " existing")
    count = bench.pick(count, 7)

    def prepare(turn: int) -> Entries:
        return entries(keys(turn * count if fresh else 0, count), turn)

    async def main() -> dict[str, list[float]]:
        async with both(folder, batch_size=batch_size) as (ltm, bare):
            spent_ms = await race(
                {"ours": lambda work: _store_batch(ltm, work), "bare": blocking(bare.store)},
                prepare,
                rounds=bench.pick(ROUNDS.get(count, 2), 2),
            )
            last = [entry["key"] for entry in prepare(len(spent_ms["ours"]))]
            assert await _retrieve_batch(ltm, last) == bare.retrieve(last)
            return spent_ms

    bench.report(ratio(title, bench.run(main), "bare", limit=BUDGET))


@batches
def test_retrieve_batch(bench: Bench, folder: str, count: int, batch_size: int) -> None:
    title = titled("retrieve_batch", count, batch_size)
    count = bench.pick(count, 7)
    everything = keys(0, bench.pick(20_000, 20))

    async def main() -> dict[str, list[float]]:
        async with both(folder, batch_size=batch_size) as (ltm, bare):
            await _fill(ltm, bare, entries(everything, 0))
            assert await _retrieve_batch(ltm, everything) == bare.retrieve(everything)
            return await race(
                {
                    "ours": lambda wanted: _retrieve_batch(ltm, wanted),
                    "bare": blocking(bare.retrieve),
                },
                lambda turn: random.Random(turn).sample(everything, count),
                rounds=bench.pick(ROUNDS.get(count, 2), 2),
            )

    bench.report(ratio(title, bench.run(main), "bare", limit=BUDGET))


@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_one_entry(bench: Bench, folder: str, verb: str) -> None:
    everything = keys(0, bench.pick(10_000, 10))

    async def main() -> dict[str, list[float]]:
        async with both(folder) as (ltm, bare):
            await _fill(ltm, bare, entries(everything, -1))
            ours, theirs = _single_calls(ltm, bare, verb)
            return await race(
                {
                    "ours": ours,
                    "bare": blocking(theirs),
                    "bare in to_thread": lambda work: asyncio.to_thread(theirs, work),
                },
                lambda turn: entries(random.Random(turn).sample(everything, 1), turn),
                rounds=bench.pick(500, 2),
            )

    spent_ms = bench.run(main)
    for rival in ("bare", "bare in to_thread"):
        bench.report(ratio(f"{verb}, one entry", spent_ms, rival, limit=BUDGET))


def _single_calls(
    ltm: LTMBackend, bare: Bare, verb: str
) -> tuple[Callable[[Entries], Awaitable[None]], Callable[[Entries], None]]:
    async def store(work: Entries) -> None:
        done = await ltm.store(work[0]["key"], work[0]["value"])
        assert done.raise_for_error().stored

    async def retrieve(work: Entries) -> None:
        assert (await ltm.retrieve(work[0]["key"])).raise_for_error().found

    def bare_retrieve(work: Entries) -> None:
        assert bare.retrieve([work[0]["key"]])

    return (store, bare.store) if verb == "store" else (retrieve, bare_retrieve)


@pytest.mark.parametrize("callers", [1, 8, 64])
@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_many_callers(bench: Bench, folder: str, verb: str, callers: int) -> None:
    """A closed loop: each caller begins its next call when its last one has returned."""
    calls = bench.pick(512, 8)
    everything = keys(0, bench.pick(10_000, 10))

    async def main() -> dict[str, list[float]]:
        async with both(folder) as (ltm, bare):
            await _fill(ltm, bare, entries(everything, -1))
            ours, theirs = _single_calls(ltm, bare, verb)

            def shared(one: Callable[[Entries], Awaitable[None]]) -> Callable[..., Any]:
                async def all_callers(work: list[Entries]) -> None:
                    todo = iter(work)

                    async def caller() -> None:
                        for single in todo:
                            await one(single)

                    async with asyncio.TaskGroup() as group:
                        for _ in range(callers):
                            group.create_task(caller())

                return all_callers

            return await race(
                {
                    "ours": shared(ours),
                    "bare in to_thread": shared(lambda work: asyncio.to_thread(theirs, work)),
                },
                lambda turn: [
                    entries([key], turn) for key in random.Random(turn).choices(everything, k=calls)
                ],
                rounds=bench.pick(10, 2),
            )

    spent_ms = bench.run(main)
    per_second = calls / statistics.median(spent_ms["ours"]) * 1e3
    title = f"{verb}, {callers} callers"
    bench.report(
        Figure(what=f"{title}, calls a second", value=per_second, unit="/s"),
        ratio(title, spent_ms, "bare in to_thread"),
    )


@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_blobs(bench: Bench, folder: str, verb: str) -> None:
    """The budget is the design's for cloud stores; it names none for local files."""
    count = bench.pick(100, 3)
    stored: list[list[str]] = []

    def prepare(turn: int) -> list[dict[str, Any]]:
        return large_entries(keys(turn * count, count), 64 * 1024)

    async def main() -> dict[str, list[float]]:
        async with both(folder) as (ltm, bare):
            if verb == "store":
                return await race(
                    {
                        "ours": lambda work: _store_batch(ltm, work),
                        "bare": blocking(bare.store_blobs),
                    },
                    prepare,
                    rounds=bench.pick(25, 2),
                )
            for turn in range(5):
                work = prepare(turn)
                await _store_batch(ltm, work)
                bare.store_blobs(work)
                stored.append([entry["key"] for entry in work])
            assert await _retrieve_batch(ltm, stored[0]) == bare.retrieve_blobs(stored[0])
            return await race(
                {
                    "ours": lambda wanted: _retrieve_batch(ltm, wanted),
                    "bare": blocking(bare.retrieve_blobs),
                },
                lambda turn: stored[turn % len(stored)],
                rounds=bench.pick(40, 2),
            )

    bench.report(
        ratio(f"{verb}_batch {count} blobs of 64 KiB", bench.run(main), "bare", limit=BLOB_BUDGET)
    )


def test_loop_stall_of_a_large_batch(bench: Bench, folder: str) -> None:
    count = bench.pick(10_000, 20)

    async def main() -> list[float]:
        worst_ms = []
        async with both(folder) as (ltm, _):
            for turn in range(bench.pick(7, 2)):
                work, late_ms = entries(keys(0, count), turn), list[float]()
                async with watched_loop(late_ms):
                    await _store_batch(ltm, work)
                worst_ms.append(max(late_ms))
        return worst_ms

    bench.report(spread(f"longest loop stall in store_batch {count:,}", bench.run(main)))


def test_cleanup_does_not_depend_on_what_is_live(bench: Bench, folder: str) -> None:
    few, many, limit = bench.pick(10_000, 50), bench.pick(1_000_000, 100), bench.pick(500, 10)

    async def main() -> dict[str, list[float]]:
        few_path, many_path = f"{folder}/few.db", f"{folder}/many.db"
        ours = await _filled(few_path, few), await _filled(many_path, many)
        async with ours[0] as small, ours[1] as big:

            async def clean(ltm: LTMBackend) -> None:
                done = await ltm.cleanup_expired(limit)
                assert done.raise_for_error().deleted == limit

            def prepare(turn: int) -> None:
                for path in (few_path, many_path):
                    _add_rows(path, limit, f"-{turn:04}", expires_at=turn + 1)

            return await race(
                {"ours": lambda _: clean(big), "few": lambda _: clean(small)},
                prepare,
                rounds=bench.pick(25, 2),
            )

    title = f"cleanup_expired({limit}) with {many:,} live rows"
    bench.report(ratio(title, bench.run(main), "few", limit=CLEANUP_BUDGET))


async def _filled(path: str, live: int) -> LTMBackend:
    """A backend over a file with *live* rows, all of which end one day."""
    async with LTMBackend(f"sqlite:///{path}", "memory:") as ltm:
        await ltm.store("schema", None)
    _add_rows(path, live, "", expires_at=LIVE_FOREVER)
    return LTMBackend(f"sqlite:///{path}", "memory:", timeout=None)


def _add_rows(path: str, count: int, suffix: str, *, expires_at: int) -> None:
    """Insert rows around the library, spread evenly over the range of keys."""
    value = '"' + "x" * 200 + '"'
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("BEGIN")
    conn.executemany(
        """INSERT INTO ltm_entries VALUES
        ('', ?, 1, 'w', ?, 202, ?, NULL, '{}', ?, 1, 1)""",
        (
            (f"{n / count:.7f}{suffix}", f"sha256:{n:064}", value, expires_at + n % 7)
            for n in range(count)
        ),
    )
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
