"""Listing what a filter wants: rows in the order of their keys, asked one after the other."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...entry import last_key
from ...protocols import Page, Row
from . import statements as sql

if TYPE_CHECKING:
    from ...filters import Filter

MOST_AT_ONCE = 1000
"""Rows that one read looks at, for others wait until it is done."""


def page(
    conn: sqlite3.Connection,
    now: int,
    within: Mapping[str, object],
    wanted: Filter,
    limit: int,
    most: int,
) -> Page:
    """*within* is what ``LOOK`` binds, but for its limit."""
    from ...filters import may_match

    most = min(most, MOST_AT_ONCE)
    rows: list[Row] = []
    keys: list[str] = []
    with contextlib.closing(conn.execute(sql.LOOK, {**within, "limit": most})) as looked_at:
        for row in map(Row._make, looked_at):
            keys.append(row.key)
            live = row.expires_at is None or row.expires_at > now
            if live and may_match(wanted, row.metadata):
                rows.append(row)
                if len(rows) == limit:
                    break
    left = len(rows) == limit or len(keys) == most
    return Page(rows, last_key(keys) if left else None, len(keys))
