"""Calls that cross in one PostgreSQL: whatever waits for whom, nothing is lost.

A transaction looks, waits for a lock and looks again, and others commit in between. So one call is
held at its commit with all its locks, a second waits for it, and a third does what it can meanwhile
to a key that the second has, too. Then an order has to explain what all three were told, and rows,
blobs, texts and vectors have to agree.

By default one crossing of 25, see :mod:`tests.crossings`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

import pytest

from ltm_async import MemoryBlobStore, PostgresCatalog
from ltm_async.testing import RecordedClient, Recorder

from .crossings import (
    ALL,
    CALLS,
    OF_MANY,
    THERE,
    bring_about,
    call,
    client_of,
    judge,
    noting,
)
from .databases import Console, Database, DatabaseClock, wait_for
from .servers.postgres import Postgres

HELD, WAITING, MEANWHILE = "held", "waiting", "meanwhile"
MIDDLE = "m"
"""The key of what is held, and one of what waits; its other one is before this or behind."""
EVERY = 1 if ALL else 25
"""Prime to the number of each that is crossed, so that all of them are, by and by."""

HOLD = """
CREATE FUNCTION {}hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'held' THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(TG_TABLE_SCHEMA, 0));
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT OR UPDATE OR DELETE ON {}ltm_entries
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {}hold();
"""

LOCK = "SELECT pg_advisory_lock(hashtextextended($1, 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended($1, 0))"
WAITS = """
SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'
"""
CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND wait_event_type = 'Lock'
"""


class Clients(NamedTuple):
    database: Database
    clock: DatabaseClock
    blobs: MemoryBlobStore
    catalogs: dict[str, PostgresCatalog]


@pytest.fixture
def held_database(postgres_server: Postgres, console: Console) -> Iterator[Database]:
    database = Database(postgres_server, console)
    database.run(HOLD)
    yield database
    database.drop()


@pytest.fixture
async def clients(held_database: Database) -> AsyncIterator[Clients]:
    database = held_database
    catalogs = {
        name: PostgresCatalog(
            f"{database.dsn}?application_name={name}", schema=database.schema, max_size=2
        )
        for name in (HELD, WAITING, MEANWHILE)
    }
    yield Clients(database, database.clock_at(None), MemoryBlobStore(), catalogs)
    for catalog in catalogs.values():
        await catalog.aclose()


async def cross(
    clients: Clients,
    namespace: str,
    calls: dict[str, tuple[str, list[str]]],
    there: dict[str, str],
    *,
    rolled_back: bool,
) -> None:
    """Begin *calls* one after another; the first goes on when the last has ended, or waits too."""
    database = clients.database
    recorder = Recorder()

    def client(name: str) -> RecordedClient:
        return client_of(recorder, name, clients.catalogs[name], clients.blobs, namespace)

    for key, what in there.items():
        await bring_about(client(MEANWHILE), what, key, clients.clock)
    tasks: list[asyncio.Task[None]] = []
    database.rows(LOCK, database.schema)
    try:
        for name, (what, keys) in calls.items():
            tasks.append(asyncio.create_task(call(client(name), what, keys)))
            await wait_for(lambda: tasks[-1].done() or database.rows(WAITS, name))  # noqa: B023
        free = there[MIDDLE] == "nothing"  # a delete finds nothing that it could wait for
        assert tasks[0].done() == (free and calls[HELD][0] == "delete")
        assert tasks[1].done() == (tasks[0].done() or (free and calls[WAITING][0] == "delete"))
        if rolled_back:  # after which the library tries it again
            assert database.rows(CANCEL, HELD) or tasks[0].done()
    finally:
        database.rows(UNLOCK, database.schema)
        await asyncio.gather(*tasks)

    await judge(recorder, clients.catalogs[MEANWHILE], clients.blobs, namespace, list(there))


@pytest.mark.parametrize("waiting", OF_MANY)
@pytest.mark.parametrize("held", OF_MANY)
async def test_calls_that_cross_lose_nothing(
    clients: Clients, record_property: Callable[[str, object], None], held: str, waiting: str
) -> None:
    crossings = list(itertools.product(THERE, ["a", "z"], THERE, CALLS, [False, True]))
    first = (OF_MANY.index(held) * len(OF_MANY) + OF_MANY.index(waiting)) % EVERY
    chosen = crossings[first::EVERY]
    record_property("crossings", len(chosen))
    for number, (middle, other, there, meanwhile, rolled_back) in enumerate(chosen):
        calls = {
            HELD: (held, [MIDDLE]),
            WAITING: (waiting, [other, MIDDLE]),
            MEANWHILE: (meanwhile, [other]),
        }
        had = {MIDDLE: middle, other: there}
        with noting(f"{calls}, where there was {had}, {rolled_back=}"):
            await cross(clients, f"n{number}", calls, had, rolled_back=rolled_back)
