"""Entries into a temporary table, page by page, read as the backend reads them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..entry import decode
from ..errors import CorruptError, LTMError, QueryError
from ..filters import Filter
from ..listing import MAX_EXAMINED, look
from ..protocols import Row
from ..reading import check_instants, check_name, decode_metadata, read_batch
from ..results import Failure
from ..stores import Stores
from ..text import text_of
from .changing import Since, load_changes
from .tables import Table

if TYPE_CHECKING:
    import duckdb

PAGE = 500
READ_BYTES = 8 * 1024 * 1024
"""Values that are read at once; one that is larger by itself goes alone."""
INSERT_BYTES = 1024 * 1024
"""Values that are inserted at once: encoding them holds up the other threads."""
MAX_NAMED = 1000
"""Entries that a result names as damaged."""

Line: TypeAlias = tuple[str, int, str, int, bool, str, int | None, int, int, str | None, object]
"""A row of the table; last come the value as text and what it is made from."""

# The name of each column, its type, where it is not JSON, and how it is made of a line.
_COLUMNS = (
    ("key", "VARCHAR", "line[1]"),
    ("version", "BIGINT", "TRY_CAST(line[2] AS BIGINT)"),
    ("content_hash", "VARCHAR", "line[3]"),
    ("byte_size", "BIGINT", "TRY_CAST(line[4] AS BIGINT)"),
    ("inlined", "BOOLEAN", "line[5]::BOOLEAN"),
    ("metadata", "", "TRY_CAST(line[6] AS {})"),
    ("expires_at", "TIMESTAMPTZ", "make_timestamptz(line[7]::BIGINT)"),
    ("created_at", "TIMESTAMPTZ", "make_timestamptz(line[8]::BIGINT)"),
    ("updated_at", "TIMESTAMPTZ", "make_timestamptz(line[9]::BIGINT)"),
)
_VALUE = ("value", "", "TRY_CAST(line[10] AS {})")
_WORDS = ("words", "VARCHAR", "line[11]")
COLUMN_NAMES = frozenset(name for name, *_ in (*_COLUMNS, _VALUE))
_LINES = "(SELECT unnest(from_json($1::VARCHAR, '[[\"VARCHAR\"]]')) AS line)"

As: TypeAlias = Literal["json", "text"]
"""Metadata and value as JSON that can be asked, or as text that is kept to the letter."""


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are loaded, and how much of them."""

    prefix: str = ""
    wanted: Filter | None = None
    values: bool = True
    words: bool = False
    """With the text by which an entry is found, in a column more."""
    since: Since | None = None
    """Where the changes begin that are loaded, too."""


@dataclasses.dataclass(slots=True)
class Loaded:
    """What came into the table, and what did not."""

    entries: int = 0
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    exception: LTMError | None = None
    """The first entry that is damaged."""
    cursor: str | None = None
    """Where the changes end."""
    has_words: bool = False

    def leave_out(self, key: str, exc: CorruptError) -> None:
        self.exception = self.exception or exc
        if len(self.errors) < MAX_NAMED:
            self.errors[key] = Failure.of(exc)


async def load(stores: Stores, table: Table, selection: Selection, kept: As = "json") -> Loaded:
    """Make the table ``entries`` and put the live entries of *selection* into it.

    Each page is as of one moment; what is stored or deleted meanwhile may be in it or not. The
    changes come first, so that what they tell of is in the entries, unless it changed again.
    """
    changed = None
    if selection.since is not None:
        changed = await load_changes(stores, table, selection.since)
    columns = (*_COLUMNS, *([_VALUE] if selection.values else []))
    columns += (_WORDS,) if selection.words else ()
    json_is = "JSON" if kept == "json" else "VARCHAR"
    named = ", ".join(f"{name} {kind or json_is}" for name, kind, _ in columns)
    made = ", ".join(made if kind else made.format(json_is) for _, kind, made in columns)
    insert = f"INSERT INTO entries SELECT {made} FROM {_LINES}"
    await table.run(lambda cursor: cursor.execute(f"CREATE TEMP TABLE entries ({named})"))
    loaded = Loaded(has_words=selection.words)
    if changed is not None:
        loaded.cursor, loaded.exception = changed
    async for lines in _pages(stores, selection, loaded):
        await table.run(partial(_insert, statement=insert, lines=lines, words=selection.words))
        loaded.entries += len(lines)
    if selection.values and kept == "json":
        unread = await table.run(_unread)
        why = QueryError("its value is JSON that DuckDB does not read, and NULL here")
        loaded.errors.update(dict.fromkeys(unread, Failure.of(why)))
    return loaded


def _insert(
    cursor: duckdb.DuckDBPyConnection, statement: str, lines: Sequence[Line], words: bool
) -> None:
    made = [(*line[:-1], text_of(line[0], line[-1]) if words else None) for line in lines]
    cursor.execute(statement, [json.dumps(made, separators=(",", ":"), ensure_ascii=False)])


def _unread(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """A stored null is the JSON text null, so that NULL says that there was no JSON."""
    found = cursor.execute(
        f"SELECT key FROM entries WHERE value IS NULL ORDER BY key LIMIT {MAX_NAMED}"
    )
    return [key for (key,) in found.fetchall()]


async def _pages(
    stores: Stores, selection: Selection, loaded: Loaded
) -> AsyncIterator[Sequence[Line]]:
    """The lines of live entries, in the order of their keys; a damaged one keeps out no other."""
    after: str | None = ""
    while after is not None:
        page = await look(stores, selection.prefix, after, PAGE, selection.wanted, MAX_EXAMINED)
        chosen: list[Row] = []
        for row in page.rows:
            try:
                check_name(row)
                check_instants(row)
                metadata = decode_metadata(row)
            except CorruptError as exc:
                loaded.leave_out(row.key, exc)
                continue
            if selection.wanted is None or selection.wanted.matches(metadata):
                chosen.append(row)
        if not selection.values:
            yield [_line(row, None, None) for row in chosen]
        else:
            for part in _parts(chosen, READ_BYTES, min(PAGE, stores.batch_size)):
                async for lines in _read(stores, selection, part, loaded):
                    yield lines
        after = page.after


async def _read(
    stores: Stores, selection: Selection, rows: Sequence[Row], loaded: Loaded
) -> AsyncIterator[Sequence[Line]]:
    """*rows* as they are now, with their values; those that are gone by now are left out."""
    texts: dict[str, str] = {}
    read = await read_batch(stores, [row.key for row in rows], texts)
    found: list[Row] = []
    for row in read.rows.values():
        if (exc := read.errors.get(row.key)) is not None:
            if not isinstance(exc, CorruptError):
                raise exc  # a store that is down is no damage
            loaded.leave_out(row.key, exc)
        elif not texts[row.key].isascii():
            loaded.leave_out(row.key, CorruptError("a row has a value that is no canonical JSON"))
        elif selection.wanted is None or selection.wanted.matches(decode(row.metadata)):
            found.append(row)
    found.sort(key=lambda row: row.key)
    for part in _parts(found, INSERT_BYTES, PAGE):
        yield [_line(row, texts[row.key], read.results[row.key].value) for row in part]


def _line(row: Row, text: str | None, value: object) -> Line:
    return (
        row.key,
        row.version,
        row.content_hash,
        row.byte_size,
        row.blob_id is None,
        row.metadata,
        row.expires_at,
        row.created_at,
        row.updated_at,
        text,
        value,
    )


def _parts(rows: Iterable[Row], byte_size: int, count: int) -> Iterator[list[Row]]:
    """*rows* in turn, as many as come to *byte_size* of values."""
    part: list[Row] = []
    size = 0
    for row in rows:
        if part and (size + row.byte_size > byte_size or len(part) == count):
            yield part
            part, size = [], 0
        part.append(row)
        size += row.byte_size
    if part:
        yield part
