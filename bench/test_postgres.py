"""What only PostgreSQL has: a pooler in between, and the calls that others are not raced with."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bench import arenas
from bench.bare_postgres import BarePostgres, bare_pool
from bench.conftest import Bench, url_of
from bench.figures import ratio
from bench.links import delayed
from bench.racing import race
from bench.sides import Entries, Ours, batch_call
from bench.workloads import ROUNDS, entries, keys
from ltm_async import LTMBackend
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import Postgres

TTL_S = 60
FAR_MS = 30
BUDGET = 1.5


@pytest.mark.parametrize("method", ["touch", "delete"])
def test_one_entry(bench: Bench, dsn: str, method: str) -> None:
    everything = keys(0, bench.pick(5_000, 20))
    shuffled = random.Random(1).sample(everything, len(everything))

    async def main() -> None:
        async with arenas.postgres(dsn) as arena:
            await arena.fill(entries(everything, -1))

            async def ours(key: str) -> None:
                if method == "touch":
                    assert (await arena.ours.ltm.touch(key, ttl=TTL_S)).raise_for_error().touched
                else:
                    assert (await arena.ours.ltm.delete(key)).raise_for_error().deleted

            sides: dict[str, Callable[[str], Awaitable[object]]] = {"ours": ours}
            for name, side in arena.rivals.items():
                sides[name] = _bare_call(side, method)
            run = await race(sides, lambda turn: shuffled[turn], rounds=bench.pick(500, 2))
            bench.report_race(arena, f"one {method}", run, size=1)

    bench.run(main)


def _bare_call(bare: Any, method: str) -> Callable[[str], Awaitable[object]]:
    return (lambda key: bare.touch(key, TTL_S)) if method == "touch" else bare.delete


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_through_a_pooler(
    bench: Bench, dsn: str, database: str, pgbouncer: PgBouncer, verb: str, count: int
) -> None:
    """In transaction mode, where no statement can be prepared by name."""
    what = f"{verb}_batch {count} through PgBouncer"
    rounds, size, count = bench.pick(ROUNDS[count], 2), count, bench.pick(count, 7)
    everything = keys(0, bench.pick(5_000, 20))

    def prepare(turn: int) -> Entries:
        return entries(random.Random(turn).sample(everything, count), turn)

    async def main() -> None:
        pooler = url_of(pgbouncer, database)
        async with (
            arenas.postgres(dsn) as arena,
            LTMBackend(pooler, "memory:") as through,
            bare_pool(pooler, statement_cache_size=0) as pool,
        ):
            await arena.fill(entries(everything, -1))
            run = await race(
                {
                    "ours": batch_call(Ours(through), verb),
                    "ours direct": batch_call(arena.ours, verb),
                    "bare asyncpg through it": batch_call(BarePostgres(pool, table="pooled"), verb),
                },
                prepare,
                rounds=rounds,
            )
            for rival in [*run.wall_ms][1:]:
                bench.report(ratio(arena.store, what, run.wall_ms, rival, size=size))

    bench.run(main)


@pytest.mark.parametrize("verb", ["store", "retrieve"])
@pytest.mark.parametrize("count", [1, 100])
def test_a_server_far_away(
    bench: Bench, postgres: Postgres, dsn: str, verb: str, count: int
) -> None:
    """Where round trips decide: a batch is one, as the bare driver's statement is."""
    what = f"{verb}_batch {count}, {FAR_MS} ms away"
    size, count = count, bench.pick(count, 7)
    everything = keys(0, bench.pick(1_000, 20))

    async def main(port: int) -> None:
        far = dsn.replace(f":{postgres.port}/", f":{port}/")
        async with arenas.postgres(far) as arena:
            await arena.fill(entries(everything, -1))
            run = await race(
                {name: batch_call(side, verb) for name, side in arena.sides.items()},
                lambda turn: entries(random.Random(turn).sample(everything, count), turn),
                rounds=bench.pick(20, 2),
            )
            bench.report_race(arena, what, run, limit=BUDGET, size=size)

    with delayed(postgres.port, FAR_MS) as port:
        bench.run(lambda: main(port))
