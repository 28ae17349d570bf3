"""Snapshots and changes of a namespace, on a connection: one writer at a time orders versions."""

from __future__ import annotations

import sqlite3
from typing import TypeAlias

from ...cursors import DELETIONS_KEPT_US, VersionPass, version_watermark
from ...protocols import MAX_COUNTED, Change, ChangePage, Row, SnapshotRow
from . import statements as sql

Moment: TypeAlias = tuple[int, int | None, int | None]


def read_moment(conn: sqlite3.Connection, namespace: str, now: int) -> Moment:
    """The last version, and how many live entries and bytes there are, or None for too many."""
    bound = {"namespace": namespace, "now": now, "limit": MAX_COUNTED + 1}
    last, seen, entries, size = conn.execute(sql.MOMENT, bound).fetchone()
    return (last, entries, size) if seen <= MAX_COUNTED else (last, None, None)


def take_snapshot(
    conn: sqlite3.Connection,
    namespace: str,
    now: int,
    snapshot_id: str,
    name: str,
    moment: Moment,
) -> SnapshotRow:
    last, entries, size = moment
    watermark = version_watermark(last)
    row = (namespace, snapshot_id, name, watermark, entries, size, now)
    conn.execute(sql.TAKE_SNAPSHOT, row)
    return SnapshotRow._make(conn.execute(sql.SNAPSHOT, (namespace, snapshot_id)).fetchone())


def find_snapshot(conn: sqlite3.Connection, namespace: str, snapshot_id: str) -> SnapshotRow | None:
    found = conn.execute(sql.SNAPSHOT, (namespace, snapshot_id)).fetchone()
    return None if found is None else SnapshotRow._make(found)


def page_of_changes(
    conn: sqlite3.Connection, namespace: str, now: int, place: VersionPass, limit: int
) -> ChangePage:
    # Each statement sees its own moment: first how far to go, last what was forgotten.
    (last,) = conn.execute(sql.LAST_VERSION).fetchone()
    upper = last if place.upper is None else place.upper
    bound = {
        "namespace": namespace,
        "version": place.version,
        "after": place.key,
        "upper": upper,
        "now": now,
        "limit": limit,
    }
    found = [
        Change(kind, key, version, Row(key, version, *rest) if kind == "stored" else None)
        for kind, key, version, *rest in conn.execute(sql.CHANGES, bound)
    ]
    pruned = conn.execute(sql.PRUNED, (namespace,)).fetchone()
    place.check(last, 0 if pruned is None else pruned[0])
    return place.page(found, upper, limit)


def prune_deletions(conn: sqlite3.Connection, namespace: str, now: int, limit: int) -> None:
    """Forget what was deleted long ago, and remember up to where."""
    until = now - DELETIONS_KEPT_US
    pruned = conn.execute(sql.PRUNE_DELETIONS, (namespace, until, limit)).fetchall()
    if pruned:
        conn.execute(sql.REMEMBER_PRUNED, (namespace, max(pruned)[0]))
