"""What has changed, into a temporary table beside the entries."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from .. import feed
from ..entry import encode_metadata
from ..errors import LTMError
from ..results import ChangeInfo
from ..stores import Stores
from .tables import Table

if TYPE_CHECKING:
    import duckdb

PAGE = 1000

Line: TypeAlias = tuple[str | int | bool | None, ...]
"""A row of the table."""

# Instants come as text, which DuckDB reads as exactly as Python writes it.
_COLUMNS = (
    ("kind", "VARCHAR"),
    ("key", "VARCHAR"),
    ("version", "BIGINT"),
    ("content_hash", "VARCHAR"),
    ("byte_size", "BIGINT"),
    ("inlined", "BOOLEAN"),
    ("metadata", "JSON"),
    ("expires_at", "TIMESTAMPTZ"),
    ("created_at", "TIMESTAMPTZ"),
    ("updated_at", "TIMESTAMPTZ"),
)
_CREATE = f"CREATE TEMP TABLE changes ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS)})"
_MADE = ", ".join(f"line[{place}]::{kind}" for place, (_, kind) in enumerate(_COLUMNS, 1))
_INSERT = (
    f"INSERT INTO changes SELECT {_MADE} "  # our own words
    "FROM (SELECT unnest(from_json($1::VARCHAR, '[[\"VARCHAR\"]]')) AS line)"
)


class Since(NamedTuple):
    """Where the changes begin: one of both."""

    snapshot_id: str | None
    cursor: str | None


class Changed(NamedTuple):
    """What came into the table."""

    cursor: str | None
    """Where the next changes begin."""
    exception: LTMError | None
    """The first damaged row; its change has the kind ``damaged``."""


async def load_changes(stores: Stores, table: Table, since: Since) -> Changed:
    """Make the table ``changes`` and put one whole pass of the feed into it."""
    await table.run(lambda cursor: cursor.execute(_CREATE))
    snapshot_id, cursor = since
    first: LTMError | None = None
    while True:
        page = await feed.list_page(stores, snapshot_id, cursor, PAGE)
        first = first or page.exception
        if page.changes:
            lines = [_line(change) for change in page.changes]
            await table.run(partial(_insert, lines=lines))
        snapshot_id, cursor = None, page.cursor
        if not page.more:
            return Changed(cursor, first)


def _insert(cursor: duckdb.DuckDBPyConnection, lines: list[Line]) -> None:
    cursor.execute(_INSERT, [json.dumps(lines, separators=(",", ":"), ensure_ascii=False)])


def _line(change: ChangeInfo) -> Line:
    entry = change.entry
    if entry is None:
        return (change.kind, change.key, change.version, *[None] * 7)
    ends = None if entry.expires_at is None else entry.expires_at.isoformat()
    return (
        change.kind,
        change.key,
        change.version,
        entry.content_hash,
        entry.byte_size,
        entry.inlined,
        encode_metadata(entry.metadata),
        ends,
        entry.created_at.isoformat(),
        entry.updated_at.isoformat(),
    )
