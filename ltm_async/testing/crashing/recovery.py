"""What must hold after an operation was stopped anywhere: I1 to I9, read around the adapters.

======  ==================================================================================
I1      a row with a blob has its object, whole, with the row's hash and size
I2      a blob is live in the ledger exactly while one row names it
I3, I4  told *stored* is there, told *failed* had no effect, and neither changes later
I5      a batch is there whole or not at all
I6      a version never comes twice
I7      what has expired is not read
I8      after collections past every lease, and an audit, objects are what rows name
I9      no other namespace is touched
======  ==================================================================================
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from ... import LTMBackend
from ...blobs.local import UNFINISHED
from ...entry import blob_path, hash_of, namespace_path
from ...results import RetrieveBatchResult, VerifyResult
from ...stores import LEASE_US
from ..clock import ManualClock
from .attempts import Attempt, Told
from .operations import Operation
from .places import Pair, RawBlob, RawRow
from .state import FOUND, NAMESPACE, RUNNING_WRITERS, STRAY, Entry, State

LEASE_S = LEASE_US / 1e6


class Look(NamedTuple):
    """Everything there is in a pair of stores, all namespaces."""

    rows: Sequence[RawRow]
    ledger: Sequence[RawBlob]
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


async def look_at(pair: Pair) -> Look:
    rows, ledger = await pair.catalog.look()
    return Look(sorted(rows), sorted(ledger), await pair.blobs.look())


class Fresh(NamedTuple):
    """A backend that knows nothing of what happened."""

    ltm: LTMBackend
    clock: ManualClock


@contextlib.asynccontextmanager
async def opened(pair: Pair, now_us: int) -> AsyncIterator[Fresh]:
    clock = pair.catalog.clock_at(now_us)
    async with pair.opened(clock) as (catalog, blobs):
        yield Fresh(LTMBackend(catalog, blobs, namespace=NAMESPACE, on_unavailable="raise"), clock)


async def check_recovery(
    pair: Pair, before: Look, operation: Operation, attempt: Attempt, now_us: int
) -> None:
    """Judge what a fresh backend finds after *attempt* began at *now_us*, and what rests.

    Raises:
        AssertionError: Something does not hold; the message begins with which.
    """
    async with opened(pair, now_us) as fresh:
        found = await _recover(fresh.ltm)
        at_once = await look_at(pair)
        _check_told(found, at_once, operation, attempt, now_us)
        _check_versions(before, at_once, operation, attempt)
        check_agreement(at_once)
        assert _of_running_writer(at_once) == "pending", "I2: a running writer lost its blob"
        assert at_once.of_neighbours() == before.of_neighbours(), "I9: a neighbour was changed"

        rest = await check_rest(pair, fresh, killed=attempt.told is Told.KILLED)
        assert rest.rows == at_once.rows, "I4, I8: collecting changed the rows"
        assert rest.of_neighbours() == before.of_neighbours(), "I9: a neighbour was collected"


class _Recovered(NamedTuple):
    read: RetrieveBatchResult
    listed: Sequence[str]
    verified: VerifyResult


async def _recover(ltm: LTMBackend) -> _Recovered:
    keys = [*FOUND.keys, "new large", "new small", "reserved"]
    return _Recovered(
        await ltm.retrieve_batch(keys),
        [entry.key for entry in (await ltm.list_entries()).entries],
        await ltm.verify(),
    )


def _check_told(
    found: _Recovered, at_once: Look, operation: Operation, attempt: Attempt, now_us: int
) -> None:
    """There is a state that *attempt*'s caller must reckon with."""
    allowed = [FOUND, operation.done]
    if attempt.told is Told.DONE and not operation.never_fails:
        allowed = [operation.done]
    elif attempt.told is Told.FAILED and not operation.keeps_house:
        allowed = [FOUND]
    assert not found.read.errors, f"I1: unreadable: {found.read.errors}"
    assert found.verified.sound, f"I2: verify() found {found.verified.problems}"
    for state in allowed:
        if _is_read(found.read, state, now_us) and at_once.keys() == state.keys:
            break
    else:
        there = {key: str(result.value)[:40] for key, result in found.read.results.items()}
        raise AssertionError(
            f"I3, I4, I5: told {attempt.told.value}, but there is {there} "
            f"and rows of {sorted(at_once.keys())}"
        )
    assert found.listed == sorted(state.entries), "I7: listed and read entries differ"
    if operation.keeps_house and attempt.flawless:
        waiting = [blob for blob in at_once.ledger if blob.namespace == NAMESPACE]
        due = [blob for blob in waiting if blob.state != "live" and (blob.due_at or 0) <= now_us]
        assert not due, f"I8: it said that it collected {due}"


def _is_read(read: RetrieveBatchResult, state: State, now_us: int) -> bool:
    if read.results.keys() != state.entries.keys():
        return False

    def is_expected(key: str, entry: Entry) -> bool:
        result = read.results[key]
        ends = None if entry.ttl_s is None else now_us + entry.ttl_s * 1_000_000
        return (
            result.value == entry.value
            and entry.metadata in (None, result.metadata)
            and (result.row and result.row.expires_at) == ends
        )

    return all(is_expected(key, entry) for key, entry in state.entries.items())


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
    """I1 and I2: rows, ledger and objects tell the same.

    Raises:
        AssertionError: They do not.
    """
    states = {(blob.namespace, blob.blob_id): blob for blob in look.ledger}
    named = Counter((row.namespace, row.blob_id) for row in look.rows if row.blob_id)
    assert all(count == 1 for count in named.values()), "I2: two rows name one blob"
    live: set[tuple[str, str | None]] = {
        name for name, blob in states.items() if blob.state == "live"
    }
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


async def check_rest(
    pair: Pair, fresh: Fresh, *, killed: bool, reservations_lost: bool = False
) -> Look:
    """I8: past every lease, collections and then an audit leave what the rows name.

    Args:
        killed: A process died, so unfinished files may be there for the audit.
        reservations_lost: So may whole objects that no ledger knows.

    Raises:
        AssertionError: They leave more, or less.
    """
    fresh.clock.advance(LEASE_S + 1)
    await _collect(fresh)
    collected = await look_at(pair)
    check_agreement(collected)
    leftover = [blob for blob in collected.ledger if blob.namespace == NAMESPACE]
    leftover = [blob for blob in leftover if blob.state != "live"]
    assert not leftover, f"I8: left in the ledger: {leftover}"
    strays = collected.paths() - collected.named()
    unfinished = {path for path in strays if path.endswith(UNFINISHED)}
    assert killed or not unfinished, f"I8: a living process left {unfinished}"
    unknown = strays - unfinished - {STRAY.path}
    assert reservations_lost or not unknown, f"I8: objects left over: {unknown}"

    audit = await fresh.ltm.collect_garbage(audit=True, stray_age=timedelta(0))
    assert audit.deleted == len(strays), f"I8: of {len(strays)} strays the audit left some: {audit}"
    rest = await look_at(pair)
    check_agreement(rest)
    assert rest.paths() == rest.named(), "I8: objects are not those that rows name"
    return rest


async def _collect(fresh: Fresh) -> None:
    """Collect until nothing is left to."""
    for _ in range(5):
        result = await fresh.ltm.collect_garbage()
        if not result.deleted and not result.errors:
            return
        fresh.clock.advance(61)  # after which what could not be deleted is due again
    raise AssertionError(f"I8: five collections found something, at last {result}")
