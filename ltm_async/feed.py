"""The change feed: snapshots, pages of changes, and following them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from .cursors import MAX_CURSOR_CHARS
from .entry import check_text, shown, to_datetime
from .errors import CorruptError, InvalidEntryError
from .protocols import Change
from .reading import check_instants, check_name, decode_metadata
from .results import (
    ChangeInfo,
    ChangesResult,
    DeleteSnapshotResult,
    EntryInfo,
    SnapshotResult,
)
from .stores import Stores

MAX_NAME_BYTES = 256
MAX_SNAPSHOT_ID_BYTES = 64
FIRST_WAIT_S = 0.1
LONGEST_POLL_S = 3600.0
REMEMBERED = 10_000
"""Changes that are known again when a catalog gives them twice."""


def check_since(snapshot_id: object, cursor: object) -> None:
    if snapshot_id is not None and cursor is not None:
        raise InvalidEntryError("since_snapshot_id and cursor exclude each other")
    if snapshot_id is not None:
        check_snapshot_id(snapshot_id, "since_snapshot_id")
    if cursor is not None:
        _check_given("cursor", cursor, MAX_CURSOR_CHARS)


def check_snapshot_id(snapshot_id: object, name: str = "snapshot_id") -> None:
    _check_given(name, snapshot_id, MAX_SNAPSHOT_ID_BYTES)


def _check_given(name: str, given: object, limit: int) -> None:
    check_text(name, given, limit)
    if not given:
        raise InvalidEntryError(f"{name} is empty")


def check_snapshot_name(name: object) -> None:
    check_text("name", name, MAX_NAME_BYTES)
    if not name:
        raise InvalidEntryError(f"name is empty, it needs 1 to {MAX_NAME_BYTES} bytes")


def check_poll(poll: object) -> None:
    if (
        isinstance(poll, bool)
        or not isinstance(poll, (int, float))
        or not 0 < poll <= LONGEST_POLL_S
    ):
        raise InvalidEntryError(
            f"poll is {shown(poll)}, it must be seconds above 0, at most {LONGEST_POLL_S:.0f}"
        )


async def create_snapshot(stores: Stores, name: str) -> SnapshotResult:
    snapshot_id = os.urandom(16).hex()  # so that asking again makes no second one
    row = await stores.to_catalog.unanswered(
        stores.catalog.create_snapshot, stores.namespace, snapshot_id, name
    )
    return SnapshotResult(
        id=row.id,
        name=row.name,
        entry_count=row.entry_count,
        total_bytes=row.total_bytes,
        created_at=to_datetime(row.created_at),
    )


async def delete_snapshot(stores: Stores, snapshot_id: str) -> DeleteSnapshotResult:
    deleted = await stores.to_catalog.unanswered(
        stores.catalog.delete_snapshot, stores.namespace, snapshot_id
    )
    return DeleteSnapshotResult(id=snapshot_id, deleted=deleted)


async def list_page(
    stores: Stores, snapshot_id: str | None, cursor: str | None, limit: int
) -> ChangesResult:
    """Up to *limit* changes; a damaged row keeps no other from being reported."""
    since = cursor if snapshot_id is None else await _watermark(stores, snapshot_id)
    try:
        page = await stores.to_catalog.unanswered(
            stores.catalog.list_changes, stores.namespace, since or "", limit
        )
    except InvalidEntryError:
        if snapshot_id is None:
            raise
        raise CorruptError("a snapshot's watermark is not what was written") from None
    changes: list[ChangeInfo] = []
    first: CorruptError | None = None
    for number, change in enumerate(page.changes, 1):
        kind, entry = change.kind, None
        try:
            entry = _checked(change)
        except CorruptError as exc:
            kind, first = "damaged", first or exc
        changes.append(
            ChangeInfo(
                kind=kind,
                key=change.key,
                version=change.version,
                entry=entry,
                cursor=page.cursor if number == len(page.changes) else since,
            )
        )
    return ChangesResult(changes=changes, cursor=page.cursor, more=page.more, exception=first)


async def _watermark(stores: Stores, snapshot_id: str) -> str:
    row = await stores.to_catalog.unanswered(
        stores.catalog.get_snapshot, stores.namespace, snapshot_id
    )
    if row is None:
        raise InvalidEntryError(
            f"since_snapshot_id is {shown(snapshot_id)}, and there is no such snapshot here"
        )
    return row.watermark


def _checked(change: Change) -> EntryInfo | None:
    row = change.row
    if row is None:
        return None
    check_name(row)
    check_instants(row)
    return EntryInfo.of(row, decode_metadata(row))


class Recent:
    """Changes that were seen lately, for catalogs that give some of them twice."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, int]] = {}

    def is_new(self, change: ChangeInfo) -> bool:
        state = change.kind, change.version
        known = self._states.pop(change.key, None) == state
        self._states[change.key] = state
        if len(self._states) > REMEMBERED:
            del self._states[next(iter(self._states))]
        return not known


async def follow(
    get_page: Callable[[str | None], Awaitable[ChangesResult]], *, poll_s: float | None
) -> AsyncIterator[ChangesResult]:
    """Pages one after the other, to the end, or, with *poll_s*, for ever.

    *get_page* is given the cursor of the page before, None at first. Between two looks that find
    nothing new the wait doubles up to *poll_s*.

    Raises:
        LTMError: A page failed. While it is followed, a store that does not answer is asked again.
    """
    cursor: str | None = None
    recent = Recent()
    wait_s = FIRST_WAIT_S
    while True:
        page = await get_page(cursor)
        changes = [change for change in page.changes if recent.is_new(change)]
        if page.cursor is not None:
            cursor = page.cursor
            yield dataclasses.replace(page, changes=changes)
            if page.more:
                continue
        elif poll_s is None or not page.degraded:
            page.raise_for_error()
        if poll_s is None:
            return
        wait_s = FIRST_WAIT_S if changes else min(2 * wait_s, poll_s)
        await asyncio.sleep(min(wait_s, poll_s))


async def flat(pages: AsyncIterator[ChangesResult]) -> AsyncIterator[ChangeInfo]:
    async for page in pages:
        for change in page.changes:
            yield change
