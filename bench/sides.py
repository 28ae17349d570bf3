"""The library and its rivals on PostgreSQL, side by side in one database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from bench.bare_postgres import BarePostgres, Entries, bare_connection, bare_pool
from bench.workloads import document
from ltm_async import LTMBackend

if TYPE_CHECKING:
    import asyncpg

Call: TypeAlias = Callable[[str, int], Awaitable[object]]
"""One method for a key, in a turn."""


class Sides(NamedTuple):
    """The library and its rivals in one database, each with a table of its own."""

    ltm: LTMBackend
    held: BarePostgres
    pooled: BarePostgres
    console: asyncpg.Connection[asyncpg.Record]

    async def fill(self, work: Entries) -> None:
        """Store *work* on all sides, and have the planner know of it."""
        await self.held.store_batch(work)
        await self.pooled.store_batch(work)
        await store_batch(self.ltm, work)
        for table in "ltm_entries", "held", "pooled":
            await self.console.execute(f"VACUUM ANALYZE {table}")


@contextlib.asynccontextmanager
async def all_sides(dsn: str, *, batch_size: int = 500) -> AsyncIterator[Sides]:
    async with (
        LTMBackend(dsn, "memory:", batch_size=batch_size) as ltm,
        bare_connection(dsn) as conn,
        bare_pool(dsn) as pool,
    ):
        held = BarePostgres(conn, table="held", batch_size=batch_size)
        pooled = BarePostgres(pool, table="pooled", batch_size=batch_size)
        await held.install()
        await pooled.install()
        yield Sides(ltm, held, pooled, conn)


async def store_batch(ltm: LTMBackend, work: Entries) -> None:
    done = await ltm.store_batch(work)
    assert done.raise_for_error().stored == len(work)


async def retrieve_batch(ltm: LTMBackend, wanted: Sequence[str]) -> dict[str, Any]:
    read = await ltm.retrieve_batch(wanted)
    assert read.raise_for_error().found == len(wanted)
    return {key: entry.value for key, entry in read.results.items()}


def our_call(ltm: LTMBackend, method: str) -> Call:
    async def store(key: str, turn: int) -> None:
        assert (await ltm.store(key, document(key, turn))).raise_for_error().stored

    async def retrieve(key: str, _: int) -> None:
        assert (await ltm.retrieve(key)).raise_for_error().found

    async def touch(key: str, _: int) -> None:
        assert (await ltm.touch(key, ttl=60)).raise_for_error().touched

    async def delete(key: str, _: int) -> None:
        assert (await ltm.delete(key)).raise_for_error().deleted

    return {"store": store, "retrieve": retrieve, "touch": touch, "delete": delete}[method]


def bare_call(bare: BarePostgres, method: str) -> Call:
    return {
        "store": lambda key, turn: bare.store(key, document(key, turn)),
        "retrieve": lambda key, _: bare.retrieve(key),
        "touch": lambda key, _: bare.touch(key, 60),
        "delete": lambda key, _: bare.delete(key),
    }[method]
