"""The same work by hand on PostgreSQL: what a careful asyncpg program without the library does.

A table with the columns, the check and the indexes of the library's own. A batch is one statement
over ``unnest``, in the order of keys so that two writers do not lock each other out, and one read
by ``= ANY``; a single entry has statements of its own. Values are encoded to the same bytes and
hashed. There is no ledger, no compare-and-swap, no version that grows with every change, no look
at what is replaced, no check of a hash after reading, no deadline, no retry: whatever the library
adds is not here.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

if TYPE_CHECKING:
    from bench.sides import Entries

    Held: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record]
    """One connection that nobody else uses, or a pool: both have the methods that are needed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS {table} (
    namespace text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, version bigint NOT NULL,
    write_id text NOT NULL, content_hash text NOT NULL, byte_size bigint NOT NULL,
    inlined_value text, blob_id text, metadata text NOT NULL, expires_at bigint,
    created_at bigint NOT NULL, updated_at bigint NOT NULL,
    changed_by xid8 NOT NULL DEFAULT pg_current_xact_id(), PRIMARY KEY (namespace, key),
    CHECK ((inlined_value IS NULL) <> (blob_id IS NULL)));
CREATE INDEX IF NOT EXISTS {table}_expiry ON {table} (namespace, expires_at)
    WHERE expires_at IS NOT NULL;
"""
FEED_INDEX = """
CREATE INDEX IF NOT EXISTS {table}_changed ON {table} (namespace, changed_by, key)
    WHERE changed_by >= '0';
"""
"""Which the change feed of the library needs."""
_REPLACE = """
ON CONFLICT (namespace, key) DO UPDATE SET
    version = excluded.version, write_id = excluded.write_id,
    content_hash = excluded.content_hash, byte_size = excluded.byte_size,
    inlined_value = excluded.inlined_value, blob_id = excluded.blob_id,
    metadata = excluded.metadata, expires_at = excluded.expires_at,
    updated_at = excluded.updated_at, changed_by = excluded.changed_by"""
_UPSERT_BATCH = f"""
INSERT INTO {{table}}
SELECT $1, x.key, $2, $3, x.hash, x.size, x.value, NULL, x.metadata, x.ends, $4, $4,
    pg_current_xact_id()
FROM unnest($5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::bigint[])
    AS x (key, hash, size, value, metadata, ends){_REPLACE}"""
_UPSERT = f"""
INSERT INTO {{table}} VALUES ($1, $5, $2, $3, $6, $7, $8, NULL, $9, $10, $4, $4){_REPLACE}"""
_SELECT = """
SELECT key, version, content_hash, byte_size, inlined_value, blob_id, metadata, expires_at,
    created_at, updated_at
FROM {table} WHERE namespace = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > $3)"""
_SELECT_BATCH = _SELECT.replace("= $2", "= ANY ($2::text[])")
_TOUCH = """
UPDATE {table} SET version = $4, write_id = $5, expires_at = $6, updated_at = $3,
    changed_by = pg_current_xact_id()
WHERE namespace = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > $3) RETURNING key"""
_DELETE = "DELETE FROM {table} WHERE namespace = $1 AND key = $2 RETURNING key"

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_versions = itertools.count(1)


class BarePostgres:
    """Works on *held*, in a table of its own; a pool lends a connection for each statement.

    Args:
        more_indexes: SQL; empty for a table that the change feed does not burden.
    """

    def __init__(
        self,
        held: Held,
        *,
        table: str = "bare",
        batch_size: int = 500,
        more_indexes: str = FEED_INDEX,
    ) -> None:
        self._held = held
        self._batch_size = batch_size
        self._schema, self._upsert_batch, self._select_batch = (
            sql.format(table=table)
            for sql in (_SCHEMA + more_indexes, _UPSERT_BATCH, _SELECT_BATCH)
        )
        self._upsert, self._select, self._touch, self._delete = (
            sql.format(table=table) for sql in (_UPSERT, _SELECT, _TOUCH, _DELETE)
        )

    async def install(self) -> None:
        await self._held.execute(self._schema)

    async def store_batch(self, entries: Entries) -> None:
        for start in range(0, len(entries), self._batch_size):
            rows = sorted(map(_row, entries[start : start + self._batch_size]))
            columns = zip(*rows, strict=True)
            await self._held.execute(self._upsert_batch, *_of_this_write(), *columns)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        found = {}
        for start in range(0, len(keys), self._batch_size):
            wanted = keys[start : start + self._batch_size]
            for row in await self._held.fetch(self._select_batch, "", wanted, _now_us()):
                found[row["key"]] = json.loads(row["inlined_value"])
        return found

    async def store(self, key: str, value: Any) -> None:
        row = _row({"key": key, "value": value})
        await self._held.execute(self._upsert, *_of_this_write(), *row)

    async def retrieve(self, key: str) -> Any:
        row = await self._held.fetchrow(self._select, "", key, _now_us())
        assert row is not None
        return json.loads(row["inlined_value"])

    async def touch(self, key: str, ttl: int) -> None:
        now_us = _now_us()
        version, ends = next(_versions), now_us + ttl * 1_000_000
        assert await self._held.fetchrow(self._touch, "", key, now_us, version, _new_id(), ends)

    async def delete(self, key: str) -> None:
        assert await self._held.fetchrow(self._delete, "", key)


@contextlib.asynccontextmanager
async def bare_connection(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    conn = await asyncpg.connect(dsn, ssl=False)
    try:
        yield conn
    finally:
        await conn.close()


@contextlib.asynccontextmanager
async def bare_pool(dsn: str, **options: Any) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    """As large as the library's own, and without the round trip of asyncpg's reset, as that is."""
    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=10, reset=_keep, ssl=False, **options
    ) as pool:
        yield pool


async def _keep(_: object) -> None:
    pass


def _row(entry: Mapping[str, Any]) -> tuple[str, str, int, str, str, int | None]:
    text = _encode(entry["value"])
    content_hash = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    metadata = _encode(entry["metadata"]) if "metadata" in entry else "{}"
    return entry["key"], content_hash, len(text), text, metadata, entry.get("expires_at")


def _of_this_write() -> tuple[str, int, str, int]:
    """Namespace, version, id and time."""
    return "", next(_versions), _new_id(), _now_us()


def _new_id() -> str:
    return os.urandom(16).hex()


def _now_us() -> int:
    return time.time_ns() // 1000
