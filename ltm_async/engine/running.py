"""Running one checked SELECT on a cursor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import duckdb

FETCH = 1000
"""Rows made into Python's values at once, during which no other thread runs."""


class Found(NamedTuple):
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool


def run_sql(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    limit: int,
    prepare: Callable[[duckdb.DuckDBPyConnection], object] | None = None,
) -> Found:
    """The first *limit* rows of *sql*; whatever it and *prepare* did besides is rolled back."""
    import duckdb

    cursor.execute("BEGIN TRANSACTION")
    try:
        if prepare is not None:
            prepare(cursor)
        cursor.execute(sql, list(params) if isinstance(params, tuple) else params)
        description = cursor.description or []
        rows: list[tuple[Any, ...]] = []
        while len(rows) <= limit and (more := cursor.fetchmany(min(FETCH, limit + 1 - len(rows)))):
            rows += more
    finally:
        with contextlib.suppress(duckdb.Error):  # the statement's own error is what counts
            cursor.execute("ROLLBACK")
    return Found(
        tuple(str(column[0]) for column in description),
        tuple(str(column[1]) for column in description),
        rows[:limit],
        len(rows) > limit,
    )
