"""PostgresCatalog beside bare asyncpg: batches, single calls, many callers, cleanups, a pooler.

There are two rivals: a program that holds a connection for itself, over which the budgets are, and
one that borrows from asyncpg's pool for each statement, as a program of many tasks has to.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from bench.bare_postgres import BarePostgres, Entries, bare_connection, bare_pool
from bench.conftest import Bench, url_of
from bench.sides import Call, all_sides, bare_call, our_call, retrieve_batch, store_batch
from bench.workloads import BATCHES, ROUNDS, Figure, entries, keys, race, ratio, titled
from ltm_async import LTMBackend
from tests.servers.pgbouncer import PgBouncer

if TYPE_CHECKING:
    import asyncpg

BUDGET = 1.5
CLEANUP_BUDGET = 1.3
CALLERS = 64
LIVE_FOREVER = 2**60
HELD, POOLED = "bare asyncpg", "bare asyncpg's pool"

batches = pytest.mark.parametrize(("count", "batch_size"), BATCHES)


def report(bench: Bench, title: str, spent_ms: dict[str, list[float]], limit: float | None) -> None:
    bench.report(ratio(title, spent_ms, HELD, limit=limit), ratio(title, spent_ms, POOLED))


@batches
@pytest.mark.parametrize("fresh", [True, False], ids=["new", "existing"])
def test_store_batch(bench: Bench, dsn: str, count: int, batch_size: int, fresh: bool) -> None:
    title = titled("store_batch", count, batch_size) + (" new" if fresh else " existing")
    count = bench.pick(count, 7)
    everything = keys(0, bench.pick(20_000, 20))

    def prepare(turn: int) -> Entries:
        if fresh:
            return entries(keys(turn * count, count), turn)
        return entries(random.Random(turn).sample(everything, count), turn)

    async def main() -> dict[str, list[float]]:
        async with all_sides(dsn, batch_size=batch_size) as sides:
            if not fresh:
                await sides.fill(entries(everything, -1))
            spent_ms = await race(
                {
                    "ours": lambda work: store_batch(sides.ltm, work),
                    HELD: sides.held.store_batch,
                    POOLED: sides.pooled.store_batch,
                },
                prepare,
                rounds=bench.pick(ROUNDS.get(count, 2), 2),
            )
            last = [entry["key"] for entry in prepare(len(spent_ms["ours"]))]
            stored = await retrieve_batch(sides.ltm, last)
            assert stored == await sides.held.retrieve_batch(last)
            return spent_ms

    report(bench, title, bench.run(main), BUDGET)


@batches
def test_retrieve_batch(bench: Bench, dsn: str, count: int, batch_size: int) -> None:
    title = titled("retrieve_batch", count, batch_size)
    count = bench.pick(count, 7)
    everything = keys(0, bench.pick(20_000, 20))

    async def main() -> dict[str, list[float]]:
        async with all_sides(dsn, batch_size=batch_size) as sides:
            await sides.fill(entries(everything, 0))
            stored = await retrieve_batch(sides.ltm, everything)
            assert stored == await sides.held.retrieve_batch(everything)
            return await race(
                {
                    "ours": lambda wanted: retrieve_batch(sides.ltm, wanted),
                    HELD: sides.held.retrieve_batch,
                    POOLED: sides.pooled.retrieve_batch,
                },
                lambda turn: random.Random(turn).sample(everything, count),
                rounds=bench.pick(ROUNDS.get(count, 2), 2),
            )

    report(bench, title, bench.run(main), BUDGET)


@pytest.mark.parametrize("method", ["store", "retrieve", "touch", "delete"])
def test_one_entry(bench: Bench, dsn: str, method: str) -> None:
    everything = keys(0, bench.pick(20_000, 20))
    shuffled = random.Random(1).sample(everything, len(everything))

    async def main() -> dict[str, list[float]]:
        async with all_sides(dsn) as sides:
            await sides.fill(entries(everything, -1))
            calls = {
                "ours": our_call(sides.ltm, method),
                HELD: bare_call(sides.held, method),
                POOLED: bare_call(sides.pooled, method),
            }
            return await race(
                {name: on_one_key(call) for name, call in calls.items()},
                lambda turn: (shuffled[turn], turn),
                rounds=bench.pick(1_000, 2),
            )

    limit = BUDGET if method in {"store", "retrieve"} else None
    report(bench, f"{method}, one entry", bench.run(main), limit)


@pytest.mark.parametrize("method", ["store", "retrieve"])
def test_many_callers(bench: Bench, dsn: str, method: str) -> None:
    """A closed loop: each caller begins its next call when its last one has returned."""
    calls = bench.pick(1_024, 80)
    everything = keys(0, bench.pick(20_000, 20))

    async def main() -> dict[str, list[float]]:
        async with all_sides(dsn) as sides:
            await sides.fill(entries(everything, -1))
            return await race(
                {
                    "ours": by_all_callers(our_call(sides.ltm, method)),
                    POOLED: by_all_callers(bare_call(sides.pooled, method)),
                },
                lambda turn: [
                    (key, turn) for key in random.Random(turn).choices(everything, k=calls)
                ],
                rounds=bench.pick(12, 2),
            )

    spent_ms = bench.run(main)
    title = f"{method}, {CALLERS} callers"
    for side, times_ms in spent_ms.items():
        per_second = calls / statistics.median(times_ms) * 1e3
        bench.report(Figure(what=f"{title}, calls a second: {side}", value=per_second, unit="/s"))
    bench.report(ratio(title, spent_ms, POOLED))


def on_one_key(call: Call) -> Callable[[tuple[str, int]], Awaitable[object]]:
    return lambda work: call(*work)


def by_all_callers(call: Call) -> Callable[[list[tuple[str, int]]], Awaitable[None]]:
    async def all_callers(work: list[tuple[str, int]]) -> None:
        todo = iter(work)

        async def caller() -> None:
            for key, turn in todo:
                await call(key, turn)

        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(caller())

    return all_callers


def test_cleanup_does_not_depend_on_what_is_live(bench: Bench, dsn: str) -> None:
    few, many, limit = bench.pick(10_000, 50), bench.pick(1_000_000, 100), bench.pick(500, 10)
    rounds = bench.pick(25, 2)

    async def main() -> dict[str, list[float]]:
        async with (
            LTMBackend(f"{dsn}?schema=few", "memory:") as small,
            LTMBackend(f"{dsn}?schema=many", "memory:") as big,
            bare_connection(dsn) as conn,
        ):
            for schema, live in ("few", few), ("many", many):
                await _add_rows(conn, schema, live, "live", LIVE_FOREVER)
                await _add_rows(conn, schema, limit * (rounds + 10), "expired", 1)
                await conn.execute(f"VACUUM ANALYZE {schema}.ltm_entries")

            async def clean(ltm: LTMBackend) -> None:
                done = await ltm.cleanup_expired(limit)
                assert done.raise_for_error().deleted == limit

            return await race(
                {"ours": lambda _: clean(big), "few": lambda _: clean(small)},
                lambda _: None,
                rounds=rounds,
            )

    title = f"cleanup_expired({limit}) with {many:,} live rows"
    bench.report(ratio(title, bench.run(main), "few", limit=CLEANUP_BUDGET))


async def _add_rows(
    conn: asyncpg.Connection[asyncpg.Record], schema: str, count: int, suffix: str, ends: int
) -> None:
    """Insert rows around the library, spread evenly over the range of keys."""
    await conn.execute(
        f"""INSERT INTO {schema}.ltm_entries
        SELECT '', to_char(n::float8 / $1, 'FM0.0000000') || $2, 1, 'w', 'sha256:' || n, 202,
            '"' || repeat('x', 200) || '"', NULL, '{{}}', $3::bigint + n, 1, 1
        FROM generate_series(0, $1 - 1) AS n""",
        count,
        suffix,
        ends,
        timeout=600,
    )


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_through_a_pooler(
    bench: Bench, dsn: str, database: str, pgbouncer: PgBouncer, verb: str, count: int
) -> None:
    """In transaction mode, where no statement can be prepared by name."""
    title = f"{verb}_batch {count} through PgBouncer"
    count = bench.pick(count, 7)
    everything = keys(0, bench.pick(20_000, 20))
    ours: Callable[[LTMBackend, Any], Awaitable[object]] = (
        store_batch if verb == "store" else retrieve_batch
    )

    def prepare(turn: int) -> Any:
        names = random.Random(turn).sample(everything, count)
        return entries(names, turn) if verb == "store" else names

    async def main() -> dict[str, list[float]]:
        pooler = url_of(pgbouncer, database)
        async with (
            all_sides(dsn) as sides,
            LTMBackend(pooler, "memory:") as through,
            bare_pool(pooler, statement_cache_size=0) as pool,
        ):
            await sides.fill(entries(everything, -1))
            bare = BarePostgres(pool, table="pooled")
            return await race(
                {
                    "ours": lambda work: ours(through, work),
                    "ours direct": lambda work: ours(sides.ltm, work),
                    "bare asyncpg through it": getattr(bare, f"{verb}_batch"),
                },
                prepare,
                rounds=bench.pick(ROUNDS.get(count, 2), 2),
            )

    spent_ms = bench.run(main)
    for rival in [*spent_ms][1:]:
        bench.report(ratio(title, spent_ms, rival))
