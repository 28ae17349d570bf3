"""SQL over the entries."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from .. import exits
from ..backend import LTMBackend
from ..engine import DuckDBQueryEngine, QueryResult
from ..errors import InvalidEntryError
from ..jsonl import parse_json
from .output import channel, left_out, progress, say, stdout, to_text
from .session import Session, UsageError


def query(
    session: Session,
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT; the entries are the table entries.")
    ],
    prefix: Annotated[str, typer.Option(help="Only keys that start with it; no pattern.")] = "",
    where: Annotated[
        str | None, typer.Option(help="""Only entries whose metadata match, as in list.""")
    ] = None,
    without_values: Annotated[
        bool, typer.Option("--without-values", help="Read no values: faster, and no such column.")
    ] = False,
    search: Annotated[
        str | None,
        typer.Option(help="Words, as in search: a table matches more, of key and score."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")] = 10_000,
) -> int:
    """Run one SELECT over the entries, with DuckDB; a row is an object on a line of its own."""
    wanted = None if where is None else _parsed(where)

    async def ask(ltm: LTMBackend) -> QueryResult:
        async with DuckDBQueryEngine(ltm) as engine:
            with progress("reading entries"):
                found = await engine.query(
                    sql,
                    prefix=prefix,
                    metadata_filter=wanted,
                    values=not without_values,
                    search=search,
                    limit=limit,
                )
        async with channel(stdout()) as out:
            for row in found.rows:
                line = {
                    column: _plain(value, kind)
                    for column, kind, value in zip(found.columns, found.types, row, strict=True)
                }
                await out.write((to_text(line) + "\n").encode(sys.stdout.encoding or "utf-8"))
        return found

    found = session.call(ask, patient=True)
    for key, failure in found.errors.items():
        left_out(key, failure.error)
    if found.truncated:
        say(f"there are more rows: --limit is {limit}")
    return exits.STORE_FAILED if found.exception is not None else exits.DONE


def _parsed(where: str) -> Any:
    try:
        return parse_json(where.encode(errors="replace"))
    except InvalidEntryError as exc:
        raise UsageError(f"--where is {exc}") from None


def _plain(value: Any, kind: str) -> Any:
    """JSON as it is, and what JSON has not as text."""
    if kind == "JSON" and isinstance(value, str):
        return json.loads(value)
    if isinstance(value, datetime):
        return value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
