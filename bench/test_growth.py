"""The same work in tables of ten thousand, a hundred thousand and a million rows.

Supabase runs the functions of PostgreSQL, behind a gateway, and Firestore's emulator keeps its
documents in memory without the indexes of the service: there the tables stay small.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bench import large_postgres, large_sqlite
from bench.arenas import OpenArena
from bench.conftest import Bench
from bench.figures import ratio
from bench.growing import COMMON, COPIES_OF, NEEDLE, Grown
from bench.racing import WARMUP, race
from bench.sides import Entries, batch_call
from bench.workloads import entries, keys

SIZES = [10_000, 100_000, 1_000_000]
SMALL_SIZES = [1_000, 10_000]
GROWTH_BUDGET = 1.2
CLEANUP_BUDGET = 1.3
BARE_BUDGET = 1.5
LIMIT = 500
FOUND = 10
ROUNDS = 25
BARE = {"PostgreSQL": "bare asyncpg", "SQLite": "bare sqlite3"}

stores = pytest.mark.parametrize("store", BARE)
Work = Callable[[Any, int], Awaitable[object]]
"""What a side does in a turn."""


@pytest.fixture
def module_and_place(request: pytest.FixtureRequest, store: str) -> tuple[Any, str]:
    if store == "PostgreSQL":
        return large_postgres, str(request.getfixturevalue("dsn"))
    return large_sqlite, str(request.getfixturevalue("folder"))


@asynccontextmanager
async def all_of(
    made: Mapping[int, AbstractAsyncContextManager[Grown]],
) -> AsyncIterator[dict[int, Grown]]:
    async with AsyncExitStack() as stack:
        yield {rows: await stack.enter_async_context(one) for rows, one in made.items()}


async def measure(
    bench: Bench,
    store: str,
    what: str,
    tables: Mapping[int, Grown],
    ours: Work,
    bare: Work,
    limit: float = GROWTH_BUDGET,
) -> None:
    """Race all sizes of both sides in the same rounds."""
    sides: dict[str, Callable[[int], Awaitable[object]]] = {}
    for rows, table in tables.items():
        sides[_ours(rows)] = lambda turn, table=table: ours(table, turn)  # type: ignore[misc]
        sides[_bare(rows)] = lambda turn, table=table: bare(table, turn)  # type: ignore[misc]
    run = await race(sides, lambda turn: turn, rounds=bench.pick(ROUNDS, 2), at_most_s=3.0)
    few = next(iter(tables))
    for rows in tables:
        times = {"ours": run.wall_ms[_ours(rows)], BARE[store]: run.wall_ms[_bare(rows)]}
        title = f"{what} in {rows:,} rows"
        bench.report(ratio(store, title, times, BARE[store], limit=BARE_BUDGET, size=rows))
        if rows != few:
            over = f"the same in {few:,}"
            times = {"ours": run.wall_ms[_ours(rows)], over: run.wall_ms[_ours(few)]}
            bench.report(ratio(store, title, times, over, limit=limit, size=rows))


def _ours(rows: int) -> str:
    return f"ours in {rows:,}"


def _bare(rows: int) -> str:
    return f"bare in {rows:,}"


@stores
def test_entries(bench: Bench, store: str, module_and_place: tuple[Any, str]) -> None:
    module, place = module_and_place
    sizes = SIZES if bench.full else [2_000, 4_000]
    limit = bench.pick(LIMIT, 10)
    expired = limit * (ROUNDS + WARMUP + 2)

    async def main() -> None:
        made = {rows: module.grown(place, rows, expired) for rows in sizes}
        async with all_of(made) as tables:

            async def store_batch(table: Grown, side: Any, turn: int) -> None:
                await side.store_batch(entries(table.keys(turn, limit), turn))

            async def retrieve(table: Grown, side: Any, turn: int) -> None:
                assert await side.retrieve_batch(table.keys(turn, limit))

            await measure(
                bench,
                store,
                f"cleanup_expired({limit})",
                tables,
                lambda table, _: table.cleanup(limit),
                lambda table, _: table.bare_cleanup(limit),
                CLEANUP_BUDGET,
            )
            await measure(
                bench,
                store,
                f"retrieve_batch {limit}",
                tables,
                lambda table, turn: retrieve(table, table.ours, turn),
                lambda table, turn: retrieve(table, table.bare, turn),
            )
            for table in tables.values():
                await table.mark_moment()
            await measure(
                bench,
                store,
                f"store_batch {limit} existing",
                tables,
                lambda table, turn: store_batch(table, table.ours, turn),
                lambda table, turn: store_batch(table, table.bare, turn),
            )
            await measure(
                bench,
                store,
                f"a page of {limit} changes",
                tables,
                lambda table, _: table.changes(limit),
                lambda table, _: table.bare_changes(limit),
            )

    bench.run(main)


@stores
def test_search(bench: Bench, store: str, module_and_place: tuple[Any, str]) -> None:
    """A word of a hundred entries, whatever the size, and one of every entry: all are ranked."""
    module, place = module_and_place
    sizes = SIZES if bench.full else [2_000, 4_000]
    words = {"search of a word of 100 entries": NEEDLE, "search of a word of all": COMMON}

    async def main() -> None:
        async with all_of({rows: module.grown_texts(place, rows) for rows in sizes}) as tables:
            for what, word in words.items():
                await measure(
                    bench,
                    store,
                    what,
                    tables,
                    lambda table, _, word=word: table.search(word, FOUND),  # type: ignore[misc]
                    lambda table, _, word=word: table.bare_search(word, FOUND),  # type: ignore[misc]
                )

    bench.run(main)


@pytest.mark.parametrize("open_arena", ["supabase", "firestore-light"], indirect=True)
def test_small_tables(bench: Bench, open_arena: OpenArena) -> None:
    few, many = SMALL_SIZES if bench.full else [20, 40]
    count = bench.pick(100, 5)

    def prepare(turn: int) -> dict[int, Entries]:
        names = {rows: random.Random(turn).sample(keys(0, rows), count) for rows in (few, many)}
        return {rows: entries(some, turn) for rows, some in names.items()}

    async def main() -> None:
        async with open_arena() as small, open_arena() as big:
            for rows, arena in ((few, small), (many, big)):
                for start in range(0, rows, COPIES_OF):
                    size = min(COPIES_OF, rows - start)
                    await arena.ours.store_batch(entries(keys(start, size), -1))
            for verb in ("store", "retrieve"):
                in_small, in_big = batch_call(small.ours, verb), batch_call(big.ours, verb)
                over = f"the same in {few:,}"
                run = await race(
                    {
                        "ours": lambda work, call=in_big: call(work[many]),  # type: ignore[misc]
                        over: lambda work, call=in_small: call(work[few]),  # type: ignore[misc]
                    },
                    prepare,
                    rounds=bench.pick(ROUNDS, 2),
                    at_most_s=2.0,
                )
                what = f"{verb}_batch {count} in {many:,} rows"
                bench.report(
                    ratio(small.store, what, run.wall_ms, over, limit=GROWTH_BUDGET, size=many)
                )

    bench.run(main)
