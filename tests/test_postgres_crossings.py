"""Calls that cross in one PostgreSQL: whatever waits for whom, nothing is lost.

A transaction looks, waits for a lock and looks again, and others commit in between. So one call is
held at its commit with all its locks, a second waits for it, and a third does what it can meanwhile
to a key that the second has, too. Then an order has to explain what all three were told, and rows,
blobs and texts have to agree.

By default one crossing of 25; ``LTM_CROSSINGS=all``, as of ``make crossings``, leaves none out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from ltm_async import ConflictError, LTMBackend, MemoryBlobStore, PostgresCatalog
from ltm_async.testing import RecordedClient, Recorder, check_history

from .databases import Console, Database, DatabaseClock, wait_for
from .servers.postgres import Postgres

HELD, WAITING, MEANWHILE = "held", "waiting", "meanwhile"
MIDDLE = "m"
"""The key of what is held, and one of what waits; its other one is before this or behind."""
LARGE = "x" * 3_000
EVERY = 1 if os.environ.get("LTM_CROSSINGS") == "all" else 25
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

WAITS = """
SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'
"""

THERE = ["nothing", "small", "large", "ended"]
"""What a key has before."""
CALLS = ["store small", "store large", "store the same", "delete"]
"""Which take any number of keys."""
OF_ONE = [*CALLS, "store first", "touch", "sweep"]


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


async def call(client: RecordedClient, what: str, keys: Sequence[str]) -> None:
    small = ["word", client.name, what]
    match what:
        case "store small":
            await client.store_batch([{"key": key, "value": [*small, key]} for key in keys])
        case "store large":
            await client.store_batch([{"key": key, "value": [*small, key, LARGE]} for key in keys])
        case "store the same":
            await client.store_batch([{"key": key, "value": value_of(key)} for key in keys])
        case "delete":
            await client.delete_batch(keys)
        case "store first":
            with contextlib.suppress(ConflictError):
                await client.store(keys[0], small, if_absent=True)
        case "touch":
            await client.touch(keys[0], metadata={"touched": True})
        case "sweep":
            await client.ltm.cleanup_expired()
            await client.ltm.collect_garbage()


def value_of(key: str) -> list[Any]:
    """What a key has that has something large."""
    return ["word", "at first", key, LARGE]


async def bring_about(client: RecordedClient, there: str, key: str, clock: DatabaseClock) -> None:
    match there:
        case "small":
            await client.store(key, ["word", "at first", key])
        case "large":
            await client.store(key, value_of(key))
        case "ended":
            await client.store(key, value_of(key), ttl=1)
            clock.advance(2)


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

    def client_of(name: str) -> RecordedClient:
        ltm = LTMBackend(
            clients.catalogs[name],
            clients.blobs,
            namespace=namespace,
            index_text=True,
            on_unavailable="raise",
        )
        return recorder.client(name, ltm)

    judge = client_of(MEANWHILE)
    for key, what in there.items():
        await bring_about(judge, what, key, clients.clock)
    tasks: list[asyncio.Task[None]] = []
    lock = f"hashtextextended('{database.schema}', 0)"
    database.rows(f"SELECT pg_advisory_lock({lock})")
    try:
        for name, (what, keys) in calls.items():
            tasks.append(asyncio.create_task(call(client_of(name), what, keys)))
            await wait_for(lambda: tasks[-1].done() or database.rows(WAITS, name))  # noqa: B023
        if rolled_back:  # after which the library tries it again
            database.rows(f"SELECT pg_cancel_backend(pid) FROM ({WAITS}) AS held", HELD)
    finally:
        database.rows(f"SELECT pg_advisory_unlock({lock})")
        await asyncio.gather(*tasks)

    read = await judge.retrieve_batch(list(there))
    assert not read.errors
    assert check_history(recorder.history()) == []
    await judge.ltm.collect_garbage()
    verified = await judge.ltm.verify()
    assert (verified.problems, verified.pending_blobs) == ({}, 0)
    found = (await judge.ltm.search("word")).results
    assert sorted(hit.key for hit in found) == sorted(read.results)


@pytest.mark.parametrize("waiting", CALLS)
@pytest.mark.parametrize("held", CALLS)
async def test_calls_that_cross_lose_nothing(clients: Clients, held: str, waiting: str) -> None:
    crossings = list(itertools.product(THERE, ["a", "z"], THERE, OF_ONE, [False, True]))
    first = (CALLS.index(held) * len(CALLS) + CALLS.index(waiting)) % EVERY
    for number, (middle, other, there, meanwhile, rolled_back) in enumerate(crossings):
        if number % EVERY != first:
            continue
        calls = {
            HELD: (held, [MIDDLE]),
            WAITING: (waiting, [other, MIDDLE]),
            MEANWHILE: (meanwhile, [other]),
        }
        had = {MIDDLE: middle, other: there}
        try:
            await cross(clients, f"n{number}", calls, had, rolled_back=rolled_back)
        except BaseException as exc:
            exc.add_note(f"{calls}, where there was {had}, {rolled_back=}")
            raise
