"""What must hold after an operation was stopped anywhere: I1 to I9, read around the adapters."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import asyncpg

from ltm_async import LTMBackend
from ltm_async.blobs.local import UNFINISHED
from ltm_async.entry import blob_path, hash_of, namespace_path
from ltm_async.results import RetrieveBatchResult, VerifyResult
from ltm_async.testing import ManualClock

from ..databases import DatabasePlace
from ..servers.firestore import documents_at
from . import buckets
from .operations import (
    FOUND,
    LEASE_S,
    NAMESPACE,
    RUNNING_WRITERS,
    STRAY,
    Attempt,
    Entry,
    Files,
    InMemory,
    OnServers,
    Operation,
    Pair,
    State,
    Told,
)

T = TypeVar("T", bound=NamedTuple)


class Row(NamedTuple):
    namespace: str
    key: str
    version: int
    content_hash: str
    byte_size: int
    inlined_value: str | None
    blob_id: str | None
    expires_at: int | None


class Ledgered(NamedTuple):
    namespace: str
    blob_id: str
    key: str
    state: str
    byte_size: int
    due_at: int | None


class Look(NamedTuple):
    """Everything there is in a pair of stores, all namespaces."""

    rows: Sequence[Row]
    ledger: Sequence[Ledgered]
    objects: Mapping[str, bytes]

    def keys(self) -> frozenset[str]:
        return frozenset(row.key for row in self.rows if row.namespace == NAMESPACE)

    def named(self) -> frozenset[str]:
        """The paths that the rows of the namespace name."""
        return frozenset(
            blob_path(NAMESPACE, row.blob_id)
            for row in self.rows
            if row.namespace == NAMESPACE and row.blob_id is not None
        )

    def paths(self) -> frozenset[str]:
        prefix = namespace_path(NAMESPACE)
        return frozenset(path for path in self.objects if path.startswith(prefix))

    def of_neighbours(self) -> Look:
        prefix = namespace_path(NAMESPACE)
        return Look(
            [row for row in self.rows if row.namespace != NAMESPACE],
            [blob for blob in self.ledger if blob.namespace != NAMESPACE],
            {path: data for path, data in self.objects.items() if not path.startswith(prefix)},
        )


def look_at(pair: Pair) -> Look:
    if isinstance(pair, Files):
        return _look_at_files(pair)
    if isinstance(pair, InMemory):
        return _look_in_memory(pair)
    if isinstance(pair, OnServers):
        look = {
            "firestore": look_into_firestore,
            "postgres": look_into_postgres,
            "supabase": look_into_postgres,
            "sqlite": look_into_sqlite,
        }[pair.places.of_catalog]
        rows, ledger = look(pair.places.catalog)
        return Look(rows, ledger, buckets.objects(pair.places))
    raise TypeError(f"nobody knows how to look into {pair!r}")


def _look_at_files(pair: Files) -> Look:
    return Look(*look_into_sqlite([pair.catalog_path]), buckets.files_in(pair.blob_root))


def look_into_sqlite(place: Sequence[Any]) -> tuple[list[Row], list[Ledgered]]:
    with contextlib.closing(sqlite3.connect(place[0])) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = conn.execute(f"SELECT {', '.join(Row._fields)} FROM ltm_entries ORDER BY 1, 2")
        ledger = conn.execute(f"SELECT {', '.join(Ledgered._fields)} FROM ltm_blobs ORDER BY 1, 2")
        return list(map(Row._make, rows)), list(map(Ledgered._make, ledger))


def look_into_postgres(place: Sequence[Any]) -> tuple[list[Row], list[Ledgered]]:
    """*place* is that of a database, or begins with one."""
    return asyncio.run(_look_into_postgres(DatabasePlace(*place[:3])))


async def _look_into_postgres(place: DatabasePlace) -> tuple[list[Row], list[Ledgered]]:
    conn = await asyncpg.connect(place.dsn)
    async with conn.transaction(isolation="repeatable_read"):
        rows = await conn.fetch(
            f"SELECT {', '.join(Row._fields)} FROM {place.schema}.ltm_entries ORDER BY 1, 2"
        )
        ledger = await conn.fetch(
            f"SELECT {', '.join(Ledgered._fields)} FROM {place.schema}.ltm_blobs ORDER BY 1, 2"
        )
    await conn.close()
    return list(map(Row._make, rows)), list(map(Ledgered._make, ledger))


def look_into_firestore(place: Sequence[Any]) -> tuple[list[Row], list[Ledgered]]:
    def found(kind: type[T], collection: str) -> list[T]:
        documents = documents_at(place[0], place[1], collection)
        return sorted(kind(*(document[name] for name in kind._fields)) for document in documents)

    return found(Row, "ltm_entries"), found(Ledgered, "ltm_blobs")


def _look_in_memory(pair: InMemory) -> Look:
    spaces = pair.catalog._spaces.items()
    return Look(
        [
            Row(name, key, row.version, *row[2:6], row.expires_at)
            for name, space in spaces
            for key, row in space.rows.items()
        ],
        [
            Ledgered(name, blob_id, blob.key, blob.state, blob.byte_size, blob.due_at)
            for name, space in spaces
            for blob_id, blob in space.blobs.items()
        ],
        {path: data for path, (data, _) in pair.blobs._objects.items()},
    )


class Fresh(NamedTuple):
    """A backend that knows nothing of what happened, and the loop to use it in."""

    ltm: LTMBackend
    loop: asyncio.Runner
    clock: ManualClock


@contextlib.contextmanager
def opened(pair: Pair, now_us: int) -> Iterator[Fresh]:
    clock = pair.clock_at(now_us)
    catalog, blobs = pair.open(clock)
    with asyncio.Runner() as loop:
        try:
            ltm = LTMBackend(catalog, blobs, namespace=NAMESPACE, on_unavailable="raise")
            yield Fresh(ltm, loop, clock)
        finally:
            loop.run(pair.close(catalog, blobs))


def check_recovery(
    pair: Pair, before: Look, operation: Operation, attempt: Attempt, now_us: int
) -> None:
    """Judge what a fresh backend finds after *attempt* began at *now_us*, and what rests."""
    with opened(pair, now_us) as fresh:
        found = fresh.loop.run(_recover(fresh.ltm))
        at_once = look_at(pair)
        state = _check_told(found, at_once, operation, attempt, now_us)
        _check_versions(before, at_once, operation, attempt)
        check_agreement(at_once)
        assert _of_running_writer(at_once) == "pending", "I2: a running writer lost its blob"
        assert at_once.of_neighbours() == before.of_neighbours(), "I9: a neighbour was changed"

        rest = check_rest(pair, fresh, killed=attempt.told is Told.KILLED)
        assert rest.keys() == at_once.keys(), "I8: collecting changed the rows"
        assert rest.of_neighbours() == before.of_neighbours(), "I9: a neighbour was collected"
        again = fresh.loop.run(_recover(fresh.ltm))
        assert _entries_of(again.read) == _expected(state, now_us), "I4: it changed at rest"


class Recovered(NamedTuple):
    read: RetrieveBatchResult
    listed: Sequence[str]
    verified: VerifyResult


async def _recover(ltm: LTMBackend) -> Recovered:
    keys = [*FOUND.keys, "new large", "new small", "reserved"]
    return Recovered(
        await ltm.retrieve_batch(keys),
        [entry.key for entry in (await ltm.list_entries()).entries],
        await ltm.verify(),
    )


def _check_told(
    found: Recovered, at_once: Look, operation: Operation, attempt: Attempt, now_us: int
) -> State:
    """Return the state that is there, one of those that *attempt*'s caller must reckon with."""
    allowed = [FOUND, operation.done]
    if attempt.told is Told.DONE:
        allowed = [operation.done]
    elif attempt.told is Told.FAILED and not operation.keeps_house:
        allowed = [FOUND]
    assert not found.read.errors, f"I1: unreadable: {found.read.errors}"
    assert found.verified.sound, f"verify() found {found.verified.problems}"
    entries = _entries_of(found.read)
    for state in allowed:
        if entries == _expected(state, now_us) and at_once.keys() == state.keys:
            break
    else:
        raise AssertionError(
            f"I3, I4, I5: told {attempt.told.value}, but there is {_brief(entries)} "
            f"and rows of {sorted(at_once.keys())}"
        )
    assert found.listed == sorted(state.entries), "I7: listed and read entries differ"
    if operation.keeps_house and attempt.flawless:
        waiting = [blob for blob in at_once.ledger if blob.namespace == NAMESPACE]
        due = [blob for blob in waiting if blob.state != "live" and (blob.due_at or 0) <= now_us]
        assert not due, f"it said that it collected {due}"
    return state


def _entries_of(read: RetrieveBatchResult) -> dict[str, tuple[Any, ...]]:
    return {
        key: (result.value, result.metadata, result.row and result.row.expires_at)
        for key, result in read.results.items()
    }


def _expected(state: State, now_us: int) -> dict[str, tuple[Any, ...]]:
    def seen(entry: Entry) -> tuple[Any, ...]:
        ends = None if entry.ttl_s is None else now_us + entry.ttl_s * 1_000_000
        return entry.value, entry.metadata, ends

    return {key: seen(entry) for key, entry in state.entries.items()}


def _brief(entries: Mapping[str, tuple[Any, ...]]) -> str:
    return ", ".join(f"{key}={str(entry)[:40]}" for key, entry in sorted(entries.items()))


def _check_versions(before: Look, after: Look, operation: Operation, attempt: Attempt) -> None:
    """A row that changed has a version that was never used, and the one that was told."""
    latest = max(row.version for row in before.rows)
    for row in after.rows:
        if row.namespace != NAMESPACE:
            continue
        assert row in before.rows or row.version > latest, f"I6: {row.key} has an old version"
        if attempt.version is not None and row.key in operation.stores:
            assert row.version == attempt.version, f"I6: {row.key} has not the version told"


def check_agreement(look: Look) -> None:
    """I1 and I2: rows, ledger and objects tell the same."""
    states = {(blob.namespace, blob.blob_id): blob for blob in look.ledger}
    named = Counter((row.namespace, row.blob_id) for row in look.rows if row.blob_id)
    assert all(count == 1 for count in named.values()), "I2: two rows name one blob"
    live = {name for name, blob in states.items() if blob.state == "live"}
    assert live == set(named), f"I2: live in the ledger {live}, named by rows {set(named)}"
    for row in look.rows:
        assert (row.inlined_value is None) != (row.blob_id is None), f"{row.key} has not one value"
        if row.blob_id is None:
            data = (row.inlined_value or "").encode()
        else:
            path = blob_path(row.namespace, row.blob_id)
            assert path in look.objects, f"I1: the object of {row.key} is missing"
            data = look.objects[path]
            blob = states[row.namespace, row.blob_id]
            assert (blob.key, blob.byte_size) == (row.key, row.byte_size), f"I2: {blob} for {row}"
        assert len(data) == row.byte_size, f"I1: {row.key} has {len(data)} bytes"
        assert hash_of(data) == row.content_hash, f"I1: {row.key} has another content"


def _of_running_writer(look: Look) -> str | None:
    if RUNNING_WRITERS.path not in look.objects:
        return None
    return next(
        (blob.state for blob in look.ledger if blob.blob_id == RUNNING_WRITERS.blob_id), None
    )


def check_rest(pair: Pair, fresh: Fresh, *, killed: bool, reservations_lost: bool = False) -> Look:
    """I8: past every lease, collections and then an audit leave what the rows name."""
    fresh.clock.advance(LEASE_S + 1)
    fresh.loop.run(_collect(fresh))
    collected = look_at(pair)
    check_agreement(collected)
    leftover = [blob for blob in collected.ledger if blob.namespace == NAMESPACE]
    leftover = [blob for blob in leftover if blob.state != "live"]
    assert not leftover, f"I8: left in the ledger: {leftover}"
    strays = collected.paths() - collected.named()
    unfinished = {path for path in strays if path.endswith(UNFINISHED)}
    assert killed or not unfinished, f"a living process left {unfinished}"
    unknown = strays - unfinished - {STRAY.path}
    assert reservations_lost or not unknown, f"I8: objects left over: {unknown}"

    found = fresh.loop.run(_audit(fresh.ltm))
    assert found == len(strays), f"I8: the audit deleted {found} of {len(strays)} strays"
    rest = look_at(pair)
    check_agreement(rest)
    assert rest.paths() == rest.named(), "I8: files are not those that rows name"
    return rest


async def _collect(fresh: Fresh) -> None:
    """Collect until nothing is left to."""
    for _ in range(5):
        result = await fresh.ltm.collect_garbage()
        assert not result.errors, f"a collection met {result.errors}"
        if not result.deleted:
            return
        fresh.clock.advance(61)
    raise AssertionError("I8: collections found something five times")


async def _audit(ltm: LTMBackend) -> int:
    result = await ltm.collect_garbage(audit=True, stray_age=timedelta(0))
    assert not result.errors, f"the audit met {result.errors}"
    verified = await ltm.verify()
    assert verified.sound, f"verify() found {verified.problems} at rest"
    assert (verified.pending_blobs, verified.dead_blobs, verified.strays) == (0, 0, 0)
    return result.deleted
