"""Cursors whose watermarks are snapshots of PostgreSQL: which transactions had ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .cursors import NONE, last_named, read_cursor, read_key, refuse_cursor, write_cursor
from .protocols import Change, ChangePage, Row, SnapshotRow

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class SnapshotPass(NamedTuple):
    """A pass over what one snapshot does not see, and another does."""

    since: str | None
    """Of the pass before; None when there was none."""
    upper: str | None
    """Of this one's beginning; None while it has not begun."""
    after: str | None
    """Go on above this transaction and key."""
    key: str

    @classmethod
    def of(cls, cursor: str) -> SnapshotPass:
        if not cursor:
            return cls(None, None, None, "")
        shapes = [(str,), (str, str, str, str), (NONE, str, str, str)]
        fields = read_cursor(cursor, "x", shapes)
        if len(fields) == 1:
            return cls(_snapshot(fields[0]), None, None, "")
        since, upper, after, key = fields
        if after != "0" and not _NUMBER.fullmatch(after):
            refuse_cursor()
        since = None if since is None else _snapshot(since)
        return cls(since, _snapshot(upper), after, read_key(key))

    def page(self, found: Sequence[Any], limit: int) -> ChangePage:
        """Of the rows that ``ltm_changes`` gave; the first says how far the pass goes."""
        (_, _, upper, *_), *rows = found
        changes: list[Change] = []
        for kind, _, key, version, *rest in rows:
            row = Row(key, version, *rest) if kind == "stored" else None
            changes.append(Change(kind, key, version, row))
        if len(changes) < limit:
            return ChangePage(changes, watermark(upper), more=False)
        key = last_named(changes).key
        (after,) = (changed_by for _, changed_by, changed, *_ in rows if changed == key)
        return ChangePage(changes, write_cursor("x", self.since, upper, after, key), more=True)


def watermark(snapshot: str) -> str:
    return write_cursor("x", snapshot)


def to_snapshot(found: Any) -> SnapshotRow:
    row = SnapshotRow._make(found)
    return row._replace(watermark=watermark(row.watermark))


def _snapshot(text: str) -> str:
    """*text* as PostgreSQL writes a snapshot: "xmin:xmax:" and what was between and under way."""
    parts = text.split(":")
    if len(parts) != 3:
        refuse_cursor()
    numbers = [*parts[:2], *(parts[2].split(",") if parts[2] else ())]
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        refuse_cursor()
    first, end, *running = map(int, numbers)
    if not first <= end or running != sorted({*running}):
        refuse_cursor()
    if running and not first <= running[0] <= running[-1] < end:
        refuse_cursor()
    return text
