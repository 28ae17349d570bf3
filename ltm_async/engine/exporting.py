"""Entries into Parquet files and out of them, to the letter."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..entry import shown
from ..errors import ConfigError, InvalidEntryError
from ..protocols import BlobStore
from ..registry import plan_blob_store
from ..retry import RetryPolicy
from ..stores import Stores
from ..worker import aside
from .connecting import Base
from .feeding import COLUMN_NAMES, Selection, load
from .results import ExportParquetResult
from .tables import Table
from .uploading import FILE_BYTES, upload

if TYPE_CHECKING:
    import duckdb

MAX_LEVELS = 8
ROW_GROUP = 8192
"""Rows that each thread holds in memory until they are written; 2,048 is DuckDB's least."""
MAX_FOLDER_BYTES = 255
_OPTIONS = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}"
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Target(NamedTuple):
    """Where an export goes: to a path, or into a blob store."""

    path: Path
    store: Callable[[], BlobStore] | None
    partition_by: tuple[str, ...]
    overwrite: bool


def check_text(path: object) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidEntryError(f"path must be a str or a path, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidEntryError("path is not the path of a file")
    return text


def check_target(path: object, partition_by: object, overwrite: bool) -> Target:
    target = check_text(path)
    if isinstance(partition_by, (str, bytes)) or not isinstance(partition_by, Sequence):
        raise InvalidEntryError("partition_by must be a list of members of the metadata")
    if len(partition_by) > MAX_LEVELS:
        raise InvalidEntryError(f"partition_by has {len(partition_by)} names, the limit is 8")
    for name in partition_by:
        if not isinstance(name, str) or not _MEMBER.fullmatch(name):
            raise InvalidEntryError(
                f"partition_by has {shown(name)}: a name is 1 to 64 of letters, digits and _"
            )
    lowered = [name.lower() for name in partition_by]  # as DuckDB compares columns
    if len({*lowered}) < len(lowered) or not COLUMN_NAMES.isdisjoint(lowered):
        raise InvalidEntryError("partition_by has a name twice, or that of a column")
    if partition_by and overwrite:
        raise InvalidEntryError("overwrite replaces a file, and partition_by makes a folder")
    if "://" not in target:
        return Target(Path(target), None, tuple(partition_by), overwrite)
    if overwrite:
        raise InvalidEntryError("overwrite replaces a file, and a storage URI gets a new folder")
    return Target(Path(), plan_blob_store(target), tuple(partition_by), False)


async def export(
    stores: Stores, base: Base, selection: Selection, target: Target, policy: RetryPolicy
) -> ExportParquetResult:
    """Write a selection into the engine's own folder, then bring it to *target*."""
    if target.store is None:
        await aside(partial(_check_free, target))
    table = Table(base)
    written = Path(base.folder, f"export-{secrets.token_hex(8)}")
    try:
        loaded = await load(stores, table, selection, "text")
        await table.run(partial(_copy, written=str(written), target=target))
        if target.store is None:
            sizes = await aside(partial(_move, written, target))
        else:
            files = await table.run(partial(_split_large, written=str(written)))
            sizes = await upload(written, files, target.store, policy)
    finally:
        table.release()
        base.pool.later(partial(_discard, written))
    return ExportParquetResult(
        exported=loaded.entries,
        files=tuple(sizes),
        byte_size=sum(sizes.values()),
        errors=loaded.errors,
        exception=loaded.exception,
    )


def _copy(cursor: duckdb.DuckDBPyConnection, written: str, target: Target) -> None:
    """All in this statement was checked, or is a path that the engine has made."""
    members = "".join(f""", metadata->>'$."{name}"' AS "{name}" """ for name in target.partition_by)
    options = _OPTIONS
    if target.partition_by:
        quoted_names = ", ".join(f'"{name}"' for name in target.partition_by)
        options += f", PARTITION_BY ({quoted_names})"
        _check_folders(cursor, target.partition_by)
    elif target.store is not None:
        options += f", FILE_SIZE_BYTES {FILE_BYTES}"
    cursor.execute(f"COPY (SELECT *{members} FROM entries) TO {_quoted(written)} ({options})")


def _check_folders(cursor: duckdb.DuckDBPyConnection, partition_by: Sequence[str]) -> None:
    for name in partition_by:
        folder = f"""'{name}=' || url_encode(metadata->>'$."{name}"')"""
        (longest,) = cursor.execute(f"SELECT max(length({folder})) FROM entries").fetchone() or (0,)
        if (longest or 0) > MAX_FOLDER_BYTES:
            raise InvalidEntryError(
                f"partition_by has {name}, which is too long in an entry to be a folder's name:"
                f" {longest} bytes, the limit is {MAX_FOLDER_BYTES}"
            )


def _split_large(cursor: duckdb.DuckDBPyConnection, written: str) -> list[Path]:
    """The files that were written, with several in place of one that is large.

    DuckDB 1.5 knows either folders or a size of the files, not both at once.
    """
    for file in _files(Path(written)):
        if file.stat().st_size > 2 * FILE_BYTES:
            parts = _quoted(str(file.with_suffix("")))
            options = f"{_OPTIONS}, FILE_SIZE_BYTES {FILE_BYTES}"
            whole = f"read_parquet({_quoted(str(file))}, hive_partitioning = false)"
            cursor.execute(f"COPY (FROM {whole}) TO {parts} ({options})")
            file.unlink()
    return _files(Path(written))


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def _check_free(target: Target) -> None:
    path = target.path
    if not path.parent.is_dir():
        raise ConfigError("the folder in which the export should be does not exist")
    if os.path.lexists(path) and not (target.overwrite and path.is_file()):
        raise ConfigError(
            "something is there already where the export should be;"
            " overwrite=True replaces a file, and no folder is replaced"
        )


def _move(written: Path, target: Target) -> dict[str, int]:
    """Put what was written at its place, whole; the size of each file by its path."""
    beside = target.path.parent / f".{target.path.name[:64]}-{secrets.token_hex(8)}"
    try:
        if not written.exists():  # no row, no file in any folder
            written.mkdir()
        shutil.move(written, beside)
        _keep_private(beside)
        for file in _files(beside):
            _sync(file)
        _check_free(target)
        os.replace(beside, target.path)
        _sync(target.path.parent)
    except OSError as exc:
        raise ConfigError(f"the export cannot be put where it should be: {exc.strerror}") from exc
    finally:
        _discard(beside)
    return {str(file): file.stat().st_size for file in _files(target.path)}


def _keep_private(path: Path) -> None:
    """Readable by its owner only, as what it holds."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    for below in path.rglob("*"):
        below.chmod(0o700 if below.is_dir() else 0o600)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
