"""Each catalog beside its bare driver, on one server: where races are held."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from bench.bare_firestore import BareFirestore
from bench.bare_postgres import BarePostgres, bare_connection, bare_pool
from bench.bare_sqlite import BareSQLite, InAThread, OnTheLoop
from bench.bare_supabase import bare_client
from bench.sides import Entries, Ours, Side
from ltm_async import LTMBackend
from tests.projects import RestPlace
from tests.servers.firestore import new_project
from tests.servers.postgrest import token_of

FIRESTORE_COMMIT = 500
"""Writes of a commit, at most."""
WITHOUT_FEED = " without the feed's index"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """The library and its rivals, each with a table of its own."""

    store: str
    ours: Ours
    rivals: dict[str, Side]
    """The budgets are over the first."""
    concurrent: str
    """Which of them many callers may use at once."""
    without_feed: dict[str, Side] = dataclasses.field(default_factory=dict)
    """The first rival with a table that no change feed burdens, to show what the feed costs."""
    again: Callable[[], LTMBackend]
    """Makes another backend on the same place."""
    settle: Callable[[], Awaitable[object]] | None = None
    """Tells the planner of what is stored."""
    kept: int = 5_000
    """Entries that are there before what is measured."""

    @property
    def sides(self) -> dict[str, Side]:
        return {"ours": self.ours, **self.rivals}

    async def fill(self, work: Entries) -> None:
        """Store *work* on all sides."""
        for side in (*self.sides.values(), *self.without_feed.values()):
            for start in range(0, len(work), 5_000):
                await side.store_batch(work[start : start + 5_000])
        if self.settle is not None:
            await self.settle()


OpenArena: TypeAlias = Callable[..., AbstractAsyncContextManager[Arena]]
"""Takes ``batch_size``; what it makes begins empty."""


@contextlib.asynccontextmanager
async def sqlite(folder: str, *, batch_size: int = 500) -> AsyncIterator[Arena]:
    options: dict[str, Any] = {"batch_size": batch_size}
    equal = BareSQLite(folder, **options)
    bare = BareSQLite(folder, **options, more_indexes="", name="without-feed.db")
    name = "bare sqlite3"
    with contextlib.closing(equal), contextlib.closing(bare):
        url, blobs = f"sqlite:///{folder}/ltm.db", f"{folder}/blobs"

        def make() -> LTMBackend:
            return LTMBackend(url, blobs, timeout=None, **options)

        async with make() as ltm:
            yield Arena(
                again=make,
                store="SQLite",
                ours=Ours(ltm),
                rivals={name: OnTheLoop(equal), f"{name} in a thread": InAThread(equal)},
                concurrent=f"{name} in a thread",
                without_feed={name + WITHOUT_FEED: OnTheLoop(bare)},
            )


@contextlib.asynccontextmanager
async def postgres(dsn: str, *, batch_size: int = 500) -> AsyncIterator[Arena]:
    """One rival holds a connection for itself, one borrows from a pool for each statement."""
    options: dict[str, Any] = {"batch_size": batch_size}

    def make() -> LTMBackend:
        return LTMBackend(dsn, "memory:", timeout=None, **options)

    async with (
        make() as ltm,
        bare_connection(dsn) as conn,
        bare_pool(dsn) as pool,
    ):
        held = BarePostgres(conn, table="held", **options)
        pooled = BarePostgres(pool, table="pooled", **options)
        plain = BarePostgres(conn, table="plain", more_indexes="", **options)
        for bare in (held, pooled, plain):
            await bare.install()
        name = "bare asyncpg"
        yield Arena(
            store="PostgreSQL",
            again=make,
            ours=Ours(ltm),
            rivals={name: held, f"{name}'s pool": pooled},
            concurrent=f"{name}'s pool",
            without_feed={name + WITHOUT_FEED: plain},
            settle=lambda: conn.execute("VACUUM ANALYZE", timeout=600),
        )


@contextlib.asynccontextmanager
async def supabase(place: RestPlace, *, batch_size: int = 500) -> AsyncIterator[Arena]:
    """As a new user, who sees none of the other rows."""
    me = uuid.uuid4().hex
    place = place._replace(access_token=token_of(me))

    def make() -> LTMBackend:
        return LTMBackend(
            place.catalog(), "memory:", namespace=me, batch_size=batch_size, timeout=None
        )

    async with (
        make() as ltm,
        bare_client(place.url, place.schema, place.access_token, me, batch_size=batch_size) as bare,
    ):
        name = "a bare httpx2 call"
        yield Arena(
            store="Supabase", again=make, ours=Ours(ltm), rivals={name: bare}, concurrent=name
        )


@contextlib.asynccontextmanager
async def firestore(transport: str, *, batch_size: int = 500) -> AsyncIterator[Arena]:
    project = new_project()
    bare = BareFirestore(project)
    name = "a bare AsyncClient"

    def make() -> LTMBackend:
        url = f"firestore://{project}?transport={transport}"
        return LTMBackend(url, "memory:", timeout=None, batch_size=batch_size)

    async with make() as ltm:
        yield Arena(
            store=f"Firestore, {transport}",
            again=make,
            ours=Ours(ltm),
            rivals={name: bare},
            concurrent=name,
            kept=FIRESTORE_COMMIT,
        )
    await bare.aclose()
