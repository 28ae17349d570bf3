"""Snapshots and changes by the server's time, with a margin for commits that are still under way.

A document has the time at which the server was asked for its change, which is before its commit.
The server gives a commit up after a minute, so what is older than that is there or never will be.
What is younger is reported, and again in the next pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...cursors import (
    DELETIONS_KEPT_US,
    NONE,
    read_cursor,
    read_key,
    refuse_cursor,
    write_cursor,
)
from ...entry import LAST_US
from ...errors import WatermarkExpiredError
from ...protocols import Change, ChangePage, SnapshotRow
from . import layout
from .changes import Changes, Found
from .documents import LONGEST_S, Documents
from .layout import DELETIONS, ENTRIES, PRUNED, SNAPSHOTS, Document, Range, Since
from .server_time import ServerTime

MARGIN_US = round((LONGEST_S + 5) * 1_000_000)
"""Of a pass over the end of the one before: a commit's time, and clocks that differ."""
_FIELDS = (*layout.HEAD_FIELDS, "place")


class TimePass(NamedTuple):
    """A pass over what the server was asked to change from one time to another."""

    since_us: int | None
    """None for all entries, which are then in the order of their keys."""
    upper_us: int | None
    """When it began; None while it has not."""
    collection: str
    after_ns: int
    after: str
    """Go on behind this instant and document, or this key."""

    @classmethod
    def of(cls, cursor: str) -> TimePass:
        if not cursor:
            return cls(None, None, ENTRIES, 0, "")
        shapes = [(int,), (int, int, str, int, str), (NONE, int, str, int, str)]
        fields = read_cursor(cursor, "f", shapes)
        if len(fields) == 1:
            return cls(_time(fields[0]), None, ENTRIES, 0, "")
        since_us, upper_us, collection, after_ns, after = fields
        if collection not in (ENTRIES, DELETIONS):
            refuse_cursor()
        if since_us is None:
            if after_ns or collection == DELETIONS:
                refuse_cursor()
            read_key(after)
        elif bool(after_ns) is not layout.is_entry_name(after):
            refuse_cursor()
        return cls(since_us, _time(upper_us), collection, after_ns, after)

    def __str__(self) -> str:
        return write_cursor("f", *self)


def _time(instant_us: int) -> int:
    """One that the server's time can be, so that any arithmetic on it can be sent."""
    if not MARGIN_US <= instant_us <= LAST_US:
        refuse_cursor()
    return instant_us


def _watermark(began_us: int) -> str:
    return write_cursor("f", began_us - MARGIN_US)


async def list_changes(
    documents: Documents, time: ServerTime, namespace: str, place: TimePass, limit: int
) -> ChangePage:
    space = layout.space_of(namespace)
    since_us = place.since_us
    if since_us is None:
        return await _list_all(documents, time, space, place, limit)
    changes: list[Change] = []
    marks: Mapping[str, Document] = {}
    if place.collection == ENTRIES:
        found = await _query(documents, space, place, limit)
        if place.upper_us is None:
            place = place._replace(upper_us=found.now_us)
        now_us = time.of(found.now_us)
        changes += [_stored(document, now_us) for document in found.documents.values()]
        place = _behind(place, found.documents, space, limit, then=DELETIONS)
    left = limit - len(changes)
    done = False
    if place.collection == DELETIONS and left:
        marks = (await _query(documents, space, place, left)).documents
        place = _behind(place, marks, space, left, then="")
        done = not place.collection
    # What was forgotten is looked up last, and so is whether a deleted key came back.
    names = {ENTRIES: list(marks), PRUNED: [space[:-1]]}
    known = await documents.read(names, fields=("changed_us",))
    if since_us > known.now_us:
        raise WatermarkExpiredError.foreign()
    pruned = known.documents.get(space[:-1])
    if pruned is not None and pruned.data.get("changed_us", 0) >= since_us:
        raise WatermarkExpiredError.pruned()
    changes += [_gone(mark) for name, mark in marks.items() if name not in known.documents]
    cursor = _watermark(place.upper_us or 0) if done else str(place)
    return ChangePage(changes, cursor, more=not done)


async def _list_all(
    documents: Documents, time: ServerTime, space: str, place: TimePass, limit: int
) -> ChangePage:
    """Entries of before they had the time of their change are there, too."""
    low = space + (place.after + "\0" if place.after else "")
    within = Range("place", low, layout.after_all(space))
    found = await documents.query(ENTRIES, within, limit=limit, fields=_FIELDS)
    now_us = time.of(found.now_us)
    began_us = found.now_us if place.upper_us is None else place.upper_us
    changes = [_stored(document, now_us) for document in found.documents.values()]
    if len(changes) < limit:
        return ChangePage(changes, _watermark(began_us), more=False)
    last = str([*found.documents.values()][-1].data["place"])[len(space) :]
    return ChangePage(changes, str(place._replace(upper_us=began_us, after=last)), more=True)


async def _query(documents: Documents, space: str, place: TimePass, limit: int) -> Found:
    since = Since(
        layout.changed_field(space),
        place.since_us or 0,
        LAST_US if place.upper_us is None else place.upper_us,
        place.after_ns,
        place.after,
    )
    fields = _FIELDS if place.collection == ENTRIES else ("key", "expired")
    return await documents.query_since(
        place.collection, since, limit=limit, fields=(*fields, since.field)
    )


def _behind(
    place: TimePass, found: Mapping[str, Document], space: str, limit: int, *, then: str
) -> TimePass:
    """Where to go on after *found*: behind the last, or, where there is no more, in *then*."""
    if len(found) < limit:
        return place._replace(collection=then, after_ns=0, after="")
    last = [*found.values()][-1]
    return place._replace(after_ns=layout.changed_ns(last, space), after=last.name)


def _stored(document: Document, now_us: int) -> Change:
    key = str(document.data.get("key", ""))
    if layout.is_live(document, now_us):
        return Change("stored", key, document.version, layout.to_row(key, document))
    return Change("expired", key, document.version, None)


def _gone(mark: Document) -> Change:
    kind = "expired" if mark.data.get("expired") is True else "deleted"
    return Change(kind, str(mark.data.get("key", "")), mark.version, None)


async def prune_deletions(
    documents: Documents, changes: Changes, space: str, now_us: int, limit: int
) -> None:
    """Have *changes* forget what was deleted long ago, and remember up to where."""
    until = layout.instant(space, now_us - DELETIONS_KEPT_US)
    old = Range("age", layout.first_of(space), until)
    fields = ("age", layout.changed_field(space))
    marks = (await documents.query(DELETIONS, old, limit=limit, fields=fields)).documents
    if not marks:
        return
    for name, mark in marks.items():
        changes.delete(DELETIONS, name, updated=mark.updated)
    last_us = max(layout.changed_ns(mark, space) for mark in marks.values()) // 1_000
    found = await documents.read({PRUNED: [space[:-1]]})
    known = found.documents.get(space[:-1])
    if known is None:
        changes.create(PRUNED, space[:-1], {"changed_us": last_us})
    else:
        last_us = max(last_us, known.data["changed_us"])
        changes.replace(PRUNED, known, {"changed_us": last_us})


async def create_snapshot(
    documents: Documents, time: ServerTime, namespace: str, snapshot_id: str, name: str
) -> SnapshotRow:
    """Raises StaleError where another was as fast with the same id."""
    place = layout.entry_name(namespace, snapshot_id)
    found = await documents.read({SNAPSHOTS: [place]})
    if place in found.documents:
        return _to_snapshot(found.documents[place])
    made = {
        "namespace": namespace,
        "id": snapshot_id,
        "name": name,
        "watermark": _watermark(found.now_us),
        "created_at": time.of(found.now_us),
    }
    changes = Changes()
    changes.create(SNAPSHOTS, place, made)
    await documents.commit(changes)
    return _to_snapshot(Document(place, made, None, 0))


async def get_snapshot(
    documents: Documents, namespace: str, snapshot_id: str
) -> SnapshotRow | None:
    place = layout.entry_name(namespace, snapshot_id)
    found = (await documents.read({SNAPSHOTS: [place]})).documents.get(place)
    return None if found is None else _to_snapshot(found)


async def delete_snapshot(documents: Documents, namespace: str, snapshot_id: str) -> bool:
    """Raises StaleError where another was as fast."""
    place = layout.entry_name(namespace, snapshot_id)
    found = (await documents.read({SNAPSHOTS: [place]}, fields=("id",))).documents.get(place)
    if found is None:
        return False
    changes = Changes()
    changes.delete(SNAPSHOTS, place, updated=found.updated)
    await documents.commit(changes)
    return True


def _to_snapshot(document: Document) -> SnapshotRow:
    data = document.data
    return SnapshotRow(data["id"], data["name"], data["watermark"], None, None, data["created_at"])
