"""Entries out of Parquet files, each row checked before it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import LTMBackend
from ..entry import (
    FIRST_US,
    LAST_US,
    check_key,
    compute_content_hash,
    decode,
    encode_metadata,
    to_datetime,
    to_expiry,
)
from ..errors import CorruptError, InvalidEntryError, QueryError
from ..worker import aside
from .connecting import Base, connect_reader
from .exporting import check_text
from .options import EngineOptions
from .tables import Table

if TYPE_CHECKING:
    import duckdb

FETCH = 100
MAX_FILES = 10_000
_TEXT = ("VARCHAR", "JSON")
_TYPES = {
    "key": ("VARCHAR",),
    "value": _TEXT,
    "metadata": _TEXT,
    "expires_at": ("TIMESTAMP WITH TIME ZONE",),
    "content_hash": ("VARCHAR",),
}
"""The columns that an import takes, and the types they may have."""
_INSTANT = (
    "CASE WHEN expires_at IS NULL OR isfinite(expires_at) THEN epoch_us(expires_at)"
    " ELSE 9223372036854775807 END"
)
_FILES = "read_parquet($1::VARCHAR[], hive_partitioning = false)"


@dataclasses.dataclass(slots=True, kw_only=True)
class Imported:
    """How far an import has come."""

    rows: int = 0
    imported: int = 0
    deduplicated: int = 0
    expired: int = 0


def check_source(path: object) -> Path:
    text = check_text(path)
    if "://" in text:
        raise InvalidEntryError("path must be on this machine: storage URIs are only exported to")
    return Path(text)


async def import_all(
    ltm: LTMBackend, base: Base, options: EngineOptions, source: Path, done: Imported
) -> None:
    files = await aside(partial(_find, source))
    table = Table(base, partial(connect_reader, options, base.folder))
    importer = _Importer(ltm, done)
    try:
        columns = await _reading(table, partial(_columns, files=files))
        await _reading(table, partial(_begin, files=files, columns=columns))
        while rows := await _reading(table, _next):
            for row in rows:
                await importer.take(dict(zip(columns, row, strict=True)))
        await importer.flush()
    finally:
        table.release()


async def _reading(table: Table, work: Any) -> Any:
    try:
        return await table.run(work)
    except QueryError as exc:
        raise InvalidEntryError(
            "path has a file that cannot be read as Parquet with the columns of an export"
        ) from exc


def _find(source: Path) -> list[str]:
    if source.is_dir():
        files = [str(file) for file in sorted(source.rglob("*.parquet")) if file.is_file()]
    elif source.is_file():
        files = [str(source)]
    else:
        raise InvalidEntryError("path is neither a file nor a folder")
    if not 1 <= len(files) <= MAX_FILES:
        raise InvalidEntryError(f"path has {len(files)} files *.parquet, not 1 to {MAX_FILES}")
    if any({"*", "?", "["} & {*name} for name in files):
        raise InvalidEntryError("path has a name with one of * ? [, which is no pattern here")
    return files


def _columns(cursor: duckdb.DuckDBPyConnection, files: Sequence[str]) -> list[str]:
    """Those that an import takes and the files have."""
    described = cursor.execute(f"DESCRIBE SELECT * FROM {_FILES}", [files]).fetchall()
    types = {name: kind for name, kind, *_ in described}
    for name in ("key", "value"):
        if name not in types:
            raise InvalidEntryError(f"the file has no column {name}")
    for name, kinds in _TYPES.items():
        if types.get(name, kinds[0]) not in kinds:
            raise InvalidEntryError(f"the file's column {name} is not of the type {kinds[0]}")
    return [name for name in _TYPES if name in types]


def _begin(cursor: duckdb.DuckDBPyConnection, files: Sequence[str], columns: Sequence[str]) -> None:
    """*columns* are of those that are known; an instant comes in microseconds since the epoch."""
    made = ", ".join(_INSTANT if name == "expires_at" else name for name in columns)
    cursor.execute(f"SELECT {made} FROM {_FILES}", [files])


def _next(cursor: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return cursor.fetchmany(FETCH)


class _Importer:
    """Gathers rows and stores them slice by slice."""

    BATCH = 500
    SLICE_BYTES = 8 * 1024 * 1024

    def __init__(self, ltm: LTMBackend, done: Imported) -> None:
        self._ltm = ltm
        self._done = done
        self._waiting: dict[str, dict[str, Any]] = {}
        self._byte_size = 0

    async def take(self, row: dict[str, Any]) -> None:
        self._done.rows += 1
        try:
            entry = _entry(row)
        except (InvalidEntryError, CorruptError) as exc:
            await self.flush()
            raise InvalidEntryError(f"row {self._done.rows}: {exc}") from exc
        ends_at = entry["expires_at"]
        if ends_at is not None and ends_at <= datetime.now(UTC):
            self._done.expired += 1
            return
        if entry["key"] in self._waiting:
            await self.flush()  # the later one is to count, and one call takes a key once
        self._waiting[entry["key"]] = entry
        self._byte_size += len(row["value"])
        if len(self._waiting) >= self.BATCH or self._byte_size >= self.SLICE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._byte_size = 0
        if waiting:
            stored = (await self._ltm.store_batch(waiting.values())).raise_for_error()
            self._done.imported += stored.stored
            self._done.deduplicated += stored.deduplicated


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """One row as ``store_batch`` takes it, its content and limits checked."""
    check_key(row["key"])
    if row["value"] is None:
        raise InvalidEntryError("value is NULL: a stored null is the JSON text null")
    value = decode(row["value"])
    content_hash = compute_content_hash(value)
    if row.get("content_hash") not in (None, content_hash):
        raise InvalidEntryError("value has another content than its content_hash says")
    metadata = None if row.get("metadata") is None else decode(row["metadata"])
    encode_metadata(metadata)
    expires_at = row.get("expires_at")
    if expires_at is not None:
        if not FIRST_US <= expires_at <= LAST_US:
            raise InvalidEntryError("expires_at is no instant that a datetime can be")
        expires_at = to_datetime(expires_at)
        to_expiry(expires_at=expires_at)
    return {"key": row["key"], "value": value, "metadata": metadata, "expires_at": expires_at}
