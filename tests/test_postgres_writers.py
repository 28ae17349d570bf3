"""Writers on the same keys of one PostgreSQL: no deadlock reaches a caller, and an order explains.

``LTM_WRITERS_S`` has them go on for other than the few seconds of the default.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
import pytest

from ltm_async import LTMBackend, MemoryBlobStore, PostgresCatalog
from ltm_async.protocols import BlobStore

from .databases import Console, Database, wait_for

WRITERS = 16
KEYS = [f"key {number:03}" for number in range(60)]
SECONDS = float(os.environ.get("LTM_WRITERS_S", "6"))


class Wrote(NamedTuple):
    """One acknowledged batch."""

    version: int
    tag: str
    keys: frozenset[str]


def value_of(tag: str, key: str, number: int) -> Any:
    """Some are blobs."""
    return [tag, key, "x" * 1_500 if number % 5 == 0 else ""]


async def write(
    database: Database, blobs: BlobStore, writer: int, until: float, seed: int
) -> tuple[list[Wrote], int]:
    """Store, delete and read shuffled batches in a pool of one's own; what was acknowledged."""
    seeded = random.Random(seed * 1_000 + writer)
    catalog = PostgresCatalog(database.dsn, schema=database.schema, max_size=1 + writer % 2)
    ltm = LTMBackend(catalog, blobs, on_unavailable="raise")
    wrote: list[Wrote] = []
    loop = asyncio.get_running_loop()
    turn = 0
    while loop.time() < until:
        turn += 1
        tag = f"{writer}-{turn}"
        keys = seeded.sample(KEYS, seeded.randint(1, len(KEYS)))
        choice = seeded.random()
        if choice < 0.15:
            deleted = await ltm.delete_batch(keys)
            assert deleted.success, deleted.errors
        elif choice < 0.25:
            read = await ltm.retrieve_batch(keys)
            assert read.errors == {}
        else:
            entries = [
                {"key": key, "value": value_of(tag, key, number)} for number, key in enumerate(keys)
            ]
            stored = await ltm.store_batch(entries)
            assert stored.success, stored.errors
            (version,) = set(stored.versions.values())
            assert version is not None
            wrote.append(Wrote(version, tag, frozenset(keys)))
        if turn % 10 == 0:
            await ltm.collect_garbage()
    await catalog.aclose()
    return wrote, turn


def explain(found: dict[str, tuple[int, Any]], wrote: Sequence[Wrote]) -> None:
    """Each key has what its last writer wrote, unless it was deleted after that."""
    versions = [batch.version for batch in wrote]
    assert len(set(versions)) == len(versions), "two batches have one version"
    by_version = {batch.version: batch for batch in wrote}
    for key, (version, value) in found.items():
        batch = by_version[version]
        assert key in batch.keys
        assert value[:2] == [batch.tag, key]


@pytest.mark.timeout(SECONDS + 60)
async def test_sixteen_writers_with_overlapping_shuffled_keys(
    database: Database, console: Console
) -> None:
    before = _deadlocks(console)
    blobs = MemoryBlobStore()
    seed = int(os.environ.get("LTM_SEED", "1"))
    until = asyncio.get_running_loop().time() + SECONDS
    done = await asyncio.gather(
        *(write(database, blobs, writer, until, seed) for writer in range(WRITERS))
    )
    wrote = [batch for batches, _ in done for batch in batches]
    assert min(turns for _, turns in done) > 2

    ltm = LTMBackend(
        PostgresCatalog(database.dsn, schema=database.schema), blobs, on_unavailable="raise"
    )
    read = await ltm.retrieve_batch(KEYS)
    assert read.errors == {}
    found = {
        key: (result.row.version, result.value)
        for key, result in read.results.items()
        if result.row is not None
    }
    explain(found, wrote)
    last = max(wrote)
    deleted_after = {
        key
        for (key, version) in database.rows("SELECT key, version FROM {}ltm_deletions")
        if version > last.version
    }
    for key in last.keys - deleted_after:
        assert found[key][0] == last.version, "the last batch is not there whole"

    verified = await ltm.verify()
    assert verified.sound, verified.problems
    assert verified.pending_blobs == 0
    await ltm._runner.stores().catalog.aclose()
    sys.stdout.write(
        f"\n{sum(turns for _, turns in done)} calls in {SECONDS:.0f} s, {len(wrote)} batches "
        f"stored; {_deadlocks(console) - before} deadlocks in the server, none told; seed {seed}\n"
    )


def _deadlocks(console: Console) -> int:
    count = console.value("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
    assert isinstance(count, int)
    return count


async def test_many_first_writers_of_the_same_keys(database: Database) -> None:
    """Nothing is there to lock yet; each batch is whole, and versions grow with each change."""
    catalogs = [
        PostgresCatalog(database.dsn, schema=database.schema, max_size=1 + number)
        for number in range(6)
    ]
    backends = [LTMBackend(catalog, "memory:", on_unavailable="raise") for catalog in catalogs]
    seeded = random.Random(3)
    await asyncio.gather(*(catalog.open() for catalog in catalogs))
    for turn in range(30):
        keys = [f"{turn}-{number}" for number in range(40)]

        async def store(ltm: LTMBackend, tag: int, keys: list[str]) -> int:
            entries = [{"key": key, "value": tag} for key in seeded.sample(keys, len(keys))]
            result = await ltm.store_batch(entries)
            assert result.success, result.errors
            (version,) = set(result.versions.values())
            assert version is not None
            return version

        versions = await asyncio.gather(
            *(store(ltm, tag, keys) for tag, ltm in enumerate(backends))
        )
        read = await backends[0].retrieve_batch(keys)
        (tag,) = {result.value for result in read.results.values()}
        assert versions[tag] == max(versions), "what was written last is not what is there"
        (absent,) = await asyncio.gather(backends[0].retrieve("never"))
        assert not absent.found

    async def first(ltm: LTMBackend, key: str) -> bool:
        from ltm_async import ConflictError

        try:
            return (await ltm.store(key, 1, if_absent=True)).stored
        except ConflictError:
            return False

    for turn in range(30):
        won = await asyncio.gather(*(first(ltm, f"one {turn}") for ltm in backends))
        assert won.count(True) == 1
    await asyncio.gather(*(catalog.aclose() for catalog in catalogs))


@pytest.mark.parametrize("call", ["commit", "delete"])
async def test_rows_are_locked_in_the_order_of_their_keys(database: Database, call: str) -> None:
    """One that waits holds what comes before, and nothing that comes behind."""
    keys = ["b", "é", "a", "Z", "c"]
    ltm = LTMBackend(PostgresCatalog(database.dsn, schema=database.schema), "memory:")
    await ltm.store_batch({"key": key, "value": 1} for key in keys)
    waiting, looking = [await asyncpg.connect(database.dsn) for _ in range(2)]
    locked = f"SELECT FROM {database.schema}.ltm_entries WHERE key = $1 FOR UPDATE"
    sql = {
        "commit": "ltm_commit('', 'w', $1, $2, $3, $2, $4, $2, $5, $5, $5, $2, '{1,1,1,1,1}')",
        "delete": "ltm_delete('', $1, 'w', NULL)",
    }
    arguments = [keys]
    if call == "commit":
        arguments = [keys, ["1"] * 5, [1] * 5, [None] * 5, [None] * 5]  # type: ignore[list-item]
    async with waiting.transaction():
        await waiting.execute(locked, "b")
        blocked = asyncio.create_task(
            looking.fetch(f"SELECT * FROM {database.schema}.{sql[call]}", *arguments)
        )
        await wait_for(
            lambda: database.rows(
                "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
                looking.get_server_pid(),
            )
        )
        for key in keys:
            if key == "b":
                continue
            free = database.rows(
                f"SELECT FROM {{}}ltm_entries WHERE key = '{key}' FOR UPDATE SKIP LOCKED"
            )
            assert bool(free) is (key > "b"), key
    await blocked
    for conn in (waiting, looking):
        await conn.close()
    await ltm._runner.stores().catalog.aclose()


async def test_a_row_that_is_renewed_while_a_sweep_looks_is_not_swept(database: Database) -> None:
    """The sweep leaves it out, or waits and looks again; what it saw before does not count."""
    catalog = PostgresCatalog(database.dsn, schema=database.schema)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    clock = database.clock_at(None)
    for key in ("renewed", "ended"):
        await ltm.store(key, 1, ttl=10)
    clock.advance(11)
    renewing = await asyncpg.connect(database.dsn)
    async with renewing.transaction():
        await renewing.execute(
            f"UPDATE {database.schema}.ltm_entries SET expires_at = NULL WHERE key = 'renewed'"
        )
        sweep = asyncio.create_task(ltm.cleanup_expired())
        await wait_for(
            lambda: (
                sweep.done()
                or database.rows("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            )
        )
    assert (await sweep).deleted == 1
    found = await ltm.retrieve_batch(["renewed", "ended"])
    assert (list(found.results), found.missing) == (["renewed"], ["ended"])
    await renewing.close()
    await catalog.aclose()


@pytest.mark.parametrize("first", ["a", "c"])
async def test_what_is_first_written_while_a_delete_waits_for_another_key_stays(
    database: Database, first: str
) -> None:
    """The delete found no row of it to lock, so neither its blob nor its text is to go."""
    catalog = PostgresCatalog(database.dsn, schema=database.schema)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise", index_text=True)
    value = ["written meanwhile", "x" * 3_000]
    await ltm.store("b", 1)
    holding = await asyncpg.connect(database.dsn)
    async with holding.transaction():
        await holding.execute(
            f"SELECT FROM {database.schema}.ltm_entries WHERE key = 'b' FOR UPDATE"
        )
        deletion = asyncio.create_task(ltm.delete_batch([first, "b"]))
        await wait_for(
            lambda: database.rows("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        )
        await ltm.store(first, value)
    assert (await deletion).missing == [first]
    await ltm.collect_garbage()
    assert (await ltm.retrieve(first)).value == value
    assert [hit.key for hit in (await ltm.search("meanwhile")).results] == [first]
    assert (await ltm.verify()).problems == {}
    await holding.close()
    await catalog.aclose()
