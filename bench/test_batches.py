"""Inlined entries on each catalog beside its bare driver: batches, single calls, many callers."""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from bench.arenas import FIRESTORE_COMMIT, Arena, OpenArena
from bench.conftest import Bench
from bench.figures import Figure, ratio, spread
from bench.racing import by_callers, longest_stall_ms, race
from bench.sides import Entries, OneEntry, batch_call, one_call
from bench.workloads import BATCHES, ROUNDS, document, entries, keys, titled

BUDGET = 1.5
GROWTH_BUDGET = 1.2
CALLERS = [1, 4, 16, 64]

batches = pytest.mark.parametrize(("count", "batch_size"), BATCHES)
verbs = pytest.mark.parametrize("verb", ["store", "retrieve"])


def is_firestore(arena: Arena) -> bool:
    """Whose emulator takes a millisecond for each entry, and whose commits are of 500 at most."""
    return arena.store.startswith("Firestore")


@batches
@pytest.mark.parametrize("fresh", [True, False], ids=["new", "existing"])
def test_store_batch(
    bench: Bench, open_arena: OpenArena, count: int, batch_size: int, fresh: bool
) -> None:
    title = titled("store_batch", count, batch_size) + (" new" if fresh else " existing")
    rounds, size, count = bench.pick(ROUNDS[count], 2), count, bench.pick(count, 7)

    async def main() -> None:
        async with open_arena(batch_size=batch_size) as arena:
            if is_firestore(arena) and size > FIRESTORE_COMMIT:
                return  # twenty commits of the row before
            everything = keys(0, max(count, bench.pick(arena.kept, 20)))

            def prepare(turn: int) -> Entries:
                if fresh:
                    return entries(keys(turn * count, count), turn)
                return entries(random.Random(turn).sample(everything, count), turn)

            if not fresh:
                await arena.fill(entries(everything, -1))
            sides = arena.sides | (arena.without_feed if size <= 500 else {})
            run = await race(
                {name: side.store_batch for name, side in sides.items()}, prepare, rounds=rounds
            )
            written = prepare(1)
            wanted = [entry["key"] for entry in written]
            found = [await side.retrieve_batch(wanted) for side in sides.values()]
            assert all(one == found[0] for one in found)
            assert {*found[0]} == {*wanted}
            bench.report_race(arena, title, run, limit=BUDGET, size=size)

    bench.run(main)


@batches
def test_retrieve_batch(bench: Bench, open_arena: OpenArena, count: int, batch_size: int) -> None:
    title = titled("retrieve_batch", count, batch_size)
    rounds, size, count = bench.pick(ROUNDS[count], 2), count, bench.pick(count, 7)

    async def main() -> None:
        async with open_arena(batch_size=batch_size) as arena:
            if is_firestore(arena) and size > FIRESTORE_COMMIT:
                return  # twenty commits of the row before
            everything = keys(0, max(count, bench.pick(arena.kept, 20)))
            await arena.fill(entries(everything, 0))
            found = [await side.retrieve_batch(everything) for side in arena.sides.values()]
            assert all(one == found[0] for one in found)
            assert len(found[0]) == len(everything)
            run = await race(
                {name: side.retrieve_batch for name, side in arena.sides.items()},
                lambda turn: random.Random(turn).sample(everything, count),
                rounds=rounds,
            )
            bench.report_race(arena, title, run, limit=BUDGET, size=size)

    bench.run(main)


@verbs
def test_an_entry_takes_the_same_in_every_batch(
    bench: Bench, open_arena: OpenArena, verb: str
) -> None:
    """The same entries in calls of 100, of 500 and of all; each call is one transaction."""

    async def main() -> None:
        async with open_arena(batch_size=10_000) as arena:
            count = bench.pick(FIRESTORE_COMMIT if is_firestore(arena) else 10_000, 20)
            everything = keys(0, count)
            await arena.ours.store_batch(entries(everything, -1))
            call = batch_call(arena.ours, verb)

            async def by(size: int, work: Entries) -> None:
                for start in range(0, count, size):
                    await call(work[start : start + size])

            calls: dict[str, Callable[[Entries], Awaitable[None]]] = {
                f"{size:,}": partial(by, size)
                for size in (min(size, count) for size in (100, 500, count))
            }
            run = await race(calls, lambda turn: entries(everything, turn), rounds=bench.pick(5, 2))
            few, *others = run.wall_ms
            for many in others:
                what = f"{verb}_batch, time for an entry in calls of {many}"
                figure = ratio(arena.store, what, run.wall_ms, few, ours=many, limit=GROWTH_BUDGET)
                bench.report(figure)

    bench.run(main)


@verbs
def test_one_entry(bench: Bench, open_arena: OpenArena, verb: str) -> None:

    async def main() -> None:
        async with open_arena() as arena:
            kept = bench.pick(arena.kept, 20)
            everything = keys(0, kept)
            shuffled = random.Random(1).sample(everything, kept)
            await arena.fill(entries(everything, -1))
            run = await race(
                {name: one_call(side, verb) for name, side in arena.sides.items()},
                lambda turn: (shuffled[turn % kept], document(shuffled[turn % kept], turn)),
                rounds=bench.pick(500, 2),
            )
            bench.report_race(arena, f"one {verb}", run, limit=BUDGET, size=1)

    bench.run(main)


@verbs
def test_many_callers(bench: Bench, open_arena: OpenArena, verb: str) -> None:

    async def main() -> None:
        async with open_arena() as arena:
            calls = bench.pick(128 if is_firestore(arena) else 256, 8)
            everything = keys(0, bench.pick(arena.kept, 20))

            def prepare(turn: int) -> list[OneEntry]:
                chosen = random.Random(turn).choices(everything, k=calls)
                return [(key, document(key, turn)) for key in chosen]

            await arena.fill(entries(everything, -1))
            sides = {
                "ours": one_call(arena.ours, verb),
                arena.concurrent: one_call(arena.rivals[arena.concurrent], verb),
            }
            for callers in CALLERS:
                run = await race(
                    {name: by_callers(callers, call) for name, call in sides.items()},
                    prepare,
                    rounds=bench.pick(10, 2),
                )
                what = f"{verb}, {callers} callers"
                per_second = calls / statistics.median(run.wall_ms["ours"]) * 1e3
                bench.report(
                    ratio(arena.store, what, run.wall_ms, arena.concurrent, size=callers),
                    Figure(
                        store=arena.store,
                        what=f"{what}, calls a second",
                        value=per_second,
                        unit="/s",
                        size=callers,
                    ),
                )

    bench.run(main)


@verbs
def test_the_loop_while_a_large_batch_is_under_way(
    bench: Bench, open_arena: OpenArena, verb: str
) -> None:

    async def main() -> None:
        async with open_arena() as arena:
            count = bench.pick(1_000 if is_firestore(arena) else 10_000, 20)
            everything = keys(0, count)
            await arena.ours.store_batch(entries(everything, 0))
            call = batch_call(arena.ours, verb)
            worst_ms = [
                await longest_stall_ms(call(entries(everything, turn)))
                for turn in range(1, bench.pick(5, 2) + 1)
            ]
            what = f"longest loop stall in {verb}_batch {count:,}"
            bench.report(spread(arena.store, what, worst_ms))

    bench.run(main)
