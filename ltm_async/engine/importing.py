"""Entries out of Parquet files, each row checked before it is stored."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..backend import LTMBackend
from ..entry import (
    FIRST_US,
    LAST_US,
    check_key,
    compute_content_hash,
    decode,
    encode_metadata,
    shown,
    to_datetime,
    to_expiry,
)
from ..errors import CorruptError, InvalidEntryError, LTMError, QueryError
from ..registry import plan_blob_store
from ..results import Failure
from ..retry import RetryPolicy
from ..worker import aside
from .connecting import Base, connect_reader
from .downloading import MAX_FILES, SUFFIX, Stored, download
from .exporting import check_text
from .options import EngineOptions
from .tables import Table

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

FETCH = 100
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
_FILE = "read_parquet([$1::VARCHAR], hive_partitioning = false)"


@dataclasses.dataclass(slots=True, kw_only=True)
class Imported:
    """How far an import has come."""

    imported: int = 0
    deduplicated: int = 0
    expired: int = 0
    files: int = 0
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)


def check_source(path: object) -> Path | Stored:
    """Where *path* says the files are: on this machine, or in a blob store."""
    text = check_text(path)
    scheme, separator, location = text.partition("://")
    if not separator:
        return Path(text)
    if scheme == "file":
        return Path(location)
    location, mark, query = location.partition("?")
    folder, slash, name = location.rpartition("/")
    if not name.endswith(SUFFIX) or not folder:
        return Stored(plan_blob_store(text), None)
    return Stored(plan_blob_store(f"{scheme}://{folder}{slash}{mark}{query}"), name)


async def import_all(
    ltm: LTMBackend,
    base: Base,
    options: EngineOptions,
    source: Path | Stored,
    policy: RetryPolicy,
    done: Imported,
) -> None:
    table = Table(base, partial(connect_reader, options, base.folder))
    try:
        if isinstance(source, Stored):
            files = download(source, Path(base.folder), policy)
        else:
            files = _each(source, await aside(partial(_find, source)))
        async with contextlib.aclosing(files):
            async for name, file in files:
                await _import_file(ltm, table, name, str(file), done)
                done.files += 1
    except LTMError as exc:
        exc.add_note(
            f"{done.imported} entries were stored before that; importing again stores the others"
        )
        raise
    finally:
        table.release()


async def _import_file(ltm: LTMBackend, table: Table, name: str, file: str, done: Imported) -> None:
    importer = _Importer(ltm, name, done)
    columns = await _reading(table, name, partial(_columns, file=file))
    await _reading(table, name, partial(_begin, file=file, columns=columns))
    while rows := await _reading(table, name, _next):
        for row in rows:
            await importer.take(dict(zip(columns, row, strict=True)))
    await importer.flush()


async def _reading(table: Table, name: str, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    try:
        return await table.run(work)
    except QueryError as exc:
        raise InvalidEntryError(
            f"{shown(name)} cannot be read as Parquet with the columns of an export"
        ) from exc


def _find(source: Path) -> list[Path]:
    if source.is_dir():
        files = [file for file in sorted(source.rglob(f"*{SUFFIX}")) if file.is_file()]
    elif source.is_file():
        files = [source]
    else:
        raise InvalidEntryError("path is neither a file nor a folder")
    if not 1 <= len(files) <= MAX_FILES:
        raise InvalidEntryError(f"path has {len(files)} files *{SUFFIX}, not 1 to {MAX_FILES}")
    if any({"*", "?", "["} & {*str(file)} for file in files):
        raise InvalidEntryError("path has a name with one of * ? [, which is no pattern here")
    return files


async def _each(source: Path, files: Sequence[Path]) -> AsyncGenerator[tuple[str, Path], None]:
    for file in files:
        yield (str(file.relative_to(source)) if file != source else file.name), file


def _columns(cursor: duckdb.DuckDBPyConnection, file: str) -> list[str]:
    """Those that an import takes and the file has."""
    described = cursor.execute(f"DESCRIBE SELECT * FROM {_FILE}", [file]).fetchall()
    types = {name: kind for name, kind, *_ in described}
    for name in ("key", "value"):
        if name not in types:
            raise InvalidEntryError(f"the file has no column {name}")
    for name, kinds in _TYPES.items():
        if types.get(name, kinds[0]) not in kinds:
            raise InvalidEntryError(f"the file's column {name} is not of the type {kinds[0]}")
    return [name for name in _TYPES if name in types]


def _begin(cursor: duckdb.DuckDBPyConnection, file: str, columns: Sequence[str]) -> None:
    """*columns* are of those that are known; an instant comes in microseconds since the epoch."""
    made = ", ".join(_INSTANT if name == "expires_at" else name for name in columns)
    cursor.execute(f"SELECT {made} FROM {_FILE}", [file])


def _next(cursor: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return cursor.fetchmany(FETCH)


class _Importer:
    """Gathers the rows of one file and stores them slice by slice."""

    BATCH = 500
    SLICE_BYTES = 8 * 1024 * 1024

    def __init__(self, ltm: LTMBackend, name: str, done: Imported) -> None:
        self._ltm = ltm
        self._name = name
        self._done = done
        self._rows = 0
        self._waiting: dict[str, dict[str, Any]] = {}
        self._byte_size = 0

    async def take(self, row: dict[str, Any]) -> None:
        self._rows += 1
        try:
            entry = _entry(row)
        except (InvalidEntryError, CorruptError) as exc:
            await self.flush()
            raise InvalidEntryError(f"{shown(self._name)}, row {self._rows}: {exc}") from exc
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
            stored = await self._ltm.store_batch(waiting.values())
            self._done.imported += stored.stored
            self._done.deduplicated += stored.deduplicated
            self._done.errors.update(stored.errors)
            stored.raise_for_error()


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
