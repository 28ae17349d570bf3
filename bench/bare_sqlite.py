"""The same work by hand: what a careful program without the library would do.

One blocking connection, WAL and ``synchronous=FULL``, a table with the columns and the indexes of
the library's own, one transaction for each batch. Values are encoded to the same bytes and
hashed. There is no ledger, no version counter, no look at what is replaced, no check of
a hash after reading: whatever the library adds is not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.sides import Entries


BlobRow = tuple[str, str, int, None, str]
"""Key, content hash, size, no value, and the blob's name."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    namespace TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, write_id TEXT NOT NULL,
    content_hash TEXT NOT NULL, byte_size INTEGER NOT NULL, inlined_value TEXT, blob_id TEXT,
    metadata TEXT NOT NULL, expires_at INTEGER, created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL, PRIMARY KEY (namespace, key)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_expiry ON entries (namespace, expires_at)
    WHERE expires_at IS NOT NULL;
"""
FEED_INDEX = "CREATE INDEX IF NOT EXISTS entries_changed ON entries (namespace, version);"
"""Which the change feed of the library needs."""
_UPSERT = """
INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET
    version = excluded.version, write_id = excluded.write_id,
    content_hash = excluded.content_hash, byte_size = excluded.byte_size,
    inlined_value = excluded.inlined_value, blob_id = excluded.blob_id,
    metadata = excluded.metadata, expires_at = excluded.expires_at,
    updated_at = excluded.updated_at"""
_SELECT = """
SELECT key, version, content_hash, byte_size, inlined_value, blob_id, metadata,
    expires_at, created_at, updated_at FROM entries
WHERE namespace = ? AND key IN (SELECT value FROM json_each(?))
  AND (expires_at IS NULL OR expires_at > ?)"""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class BareSQLite:
    """Safe for threads, since the fair rival of an async library calls it by ``to_thread``.

    Args:
        more_indexes: SQL; empty for a table that the change feed does not burden.
    """

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int = 500,
        more_indexes: str = FEED_INDEX,
        name: str = "bare.db",
    ) -> None:
        self._blobs = os.path.join(folder, "bare-blobs")
        os.makedirs(self._blobs, exist_ok=True)
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._versions = itertools.count(1)
        self._conn = sqlite3.connect(
            os.path.join(folder, name), isolation_level=None, check_same_thread=False
        )
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("PRAGMA synchronous = FULL")
        self._conn.executescript(_SCHEMA + more_indexes)

    def close(self) -> None:
        self._conn.close()

    def store(self, entries: Entries) -> None:
        for start in range(0, len(entries), self._batch_size):
            rows = []
            for entry in entries[start : start + self._batch_size]:
                text = _encode(entry["value"])
                rows.append((entry["key"], _hash(text.encode()), len(text), text, None))
            self._upsert(rows)

    def retrieve(self, keys: Sequence[str]) -> dict[str, Any]:
        rows = itertools.chain.from_iterable(
            self._select(keys[start : start + self._batch_size])
            for start in range(0, len(keys), self._batch_size)
        )
        return {row[0]: json.loads(row[4]) for row in rows}

    def store_blobs(self, entries: Entries) -> None:
        """Files first, each synced and linked to its name, then their folder, then the rows."""
        rows = []
        for row, data in self.as_blobs(entries):
            _write_synced(os.path.join(self._blobs, row[4]), data)
            rows.append(row)
        _sync_folder(self._blobs)
        self.store_rows(rows)

    def as_blobs(self, entries: Entries) -> Iterator[tuple[BlobRow, bytes]]:
        """The row and the data of each."""
        for entry in entries:
            data = _encode(entry["value"]).encode()
            content_hash = _hash(data)
            name = f"{content_hash[7:23]}-{os.urandom(16).hex()}"
            yield (entry["key"], content_hash, len(data), None, name), data

    def store_rows(self, rows: Iterable[BlobRow]) -> None:
        """The rows of blobs that are stored."""
        self._upsert(rows)

    def names(self, keys: Sequence[str]) -> dict[str, str]:
        """The blob of each key."""
        return {row[0]: row[5] for row in self._select(keys)}

    def retrieve_blobs(self, keys: Sequence[str]) -> dict[str, Any]:
        found = {}
        for row in self._select(keys):
            with open(os.path.join(self._blobs, row[5]), "rb", buffering=0) as file:
                found[row[0]] = json.loads(file.read())
        return found

    def _upsert(self, rows: Iterable[tuple[str, str, int, str | None, str | None]]) -> None:
        now, write_id, version = _now_us(), os.urandom(16).hex(), next(self._versions)
        bound = [
            ("", key, version, write_id, content_hash, size, text, name, "{}", None, now, now)
            for key, content_hash, size, text, name in rows
        ]
        with self._lock:
            self._conn.execute("BEGIN IMMEDIATE")
            self._conn.executemany(_UPSERT, bound)
            self._conn.execute("COMMIT")

    def _select(self, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._conn.execute(_SELECT, ("", json.dumps(keys), _now_us())).fetchall()


class OnTheLoop:
    """A side that blocks the loop: the least that the work can take."""

    def __init__(self, bare: BareSQLite) -> None:
        self._bare = bare

    async def store_batch(self, entries: Entries) -> None:
        self._bare.store(entries)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._bare.retrieve(keys)

    async def store(self, key: str, value: Any) -> None:
        self._bare.store([{"key": key, "value": value}])

    async def retrieve(self, key: str) -> Any:
        return self._bare.retrieve([key])[key]


class InAThread:
    """A side that leaves the loop free, as an asyncio program has to."""

    def __init__(self, bare: BareSQLite) -> None:
        self._bare = bare

    async def store_batch(self, entries: Entries) -> None:
        await asyncio.to_thread(self._bare.store, entries)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return await asyncio.to_thread(self._bare.retrieve, keys)

    async def store(self, key: str, value: Any) -> None:
        await self.store_batch([{"key": key, "value": value}])

    async def retrieve(self, key: str) -> Any:
        return (await self.retrieve_batch([key]))[key]


def _hash(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _now_us() -> int:
    return time.time_ns() // 1000


def _write_synced(target: str, data: bytes) -> None:
    aside = target + ".part"
    with open(aside, "xb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    os.link(aside, target)
    os.unlink(aside)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
