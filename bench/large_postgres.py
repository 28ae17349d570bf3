"""Tables of many rows in PostgreSQL, made by SQL out of a thousand that the library stored."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from bench.bare_postgres import BarePostgres, bare_connection
from bench.growing import COPIES_OF, IN_2100, Grown, documents, search_docs
from bench.sides import Ours
from ltm_async import LTMBackend

if TYPE_CHECKING:
    import asyncpg

_COPY = """
INSERT INTO {schema}.ltm_entries
SELECT namespace, key || $1::text || n, version, write_id, content_hash, byte_size, inlined_value,
    blob_id, metadata, $2::bigint + n, created_at, updated_at, changed_by
FROM {schema}.ltm_entries, generate_series(1, $3::bigint) AS n WHERE key LIKE 'doc:____'"""
_COPY_TEXTS = """
DROP INDEX {schema}.ltm_texts_words;
INSERT INTO {schema}.ltm_texts
SELECT namespace, key || ':' || n, words, length
FROM {schema}.ltm_texts, generate_series(1, {copies}) AS n WHERE key LIKE 'doc:____';
CREATE INDEX ltm_texts_words ON {schema}.ltm_texts USING gin (words)"""
_TO_BARE = """
INSERT INTO {bare} SELECT namespace, key, version, write_id, content_hash, byte_size,
    inlined_value, blob_id, metadata, expires_at, created_at, updated_at, changed_by
FROM {schema}.ltm_entries"""
_EXPIRE = """
DELETE FROM {bare} WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM {bare}
    WHERE namespace = '' AND expires_at <= (extract(epoch FROM now()) * 1000000)::bigint
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING key, blob_id"""
_CHANGES = """
SELECT key, version, content_hash, byte_size, blob_id, metadata, expires_at, created_at, updated_at
FROM {bare}
WHERE namespace = '' AND changed_by >= pg_snapshot_xmin($1::text::pg_snapshot)
    AND changed_by >= '0' AND NOT pg_visible_in_snapshot(changed_by, $1::text::pg_snapshot)
ORDER BY changed_by, key LIMIT $2"""
_SEARCH = """
SELECT key FROM {schema}.ltm_texts, (SELECT $1::text::tsquery) AS asked (query)
WHERE words @@ query ORDER BY ts_rank(words, query) DESC LIMIT $2"""


class GrownPostgres(Grown):
    def __init__(
        self,
        ltm: LTMBackend,
        bare: BarePostgres,
        conn: asyncpg.Connection[asyncpg.Record],
        schema: str,
        rows: int,
    ) -> None:
        super().__init__(Ours(ltm), bare, rows)
        self._conn = conn
        self._names = {"schema": schema, "bare": _bare(rows)}
        self._moment = ""

    async def mark_moment(self) -> None:
        await super().mark_moment()
        self._moment = await self._conn.fetchval("SELECT pg_current_snapshot()::text")

    async def bare_cleanup(self, limit: int) -> None:
        gone = await self._conn.fetch(_EXPIRE.format(**self._names), limit)
        assert len(gone) == limit

    async def bare_changes(self, limit: int) -> None:
        sql = _CHANGES.format(**self._names)
        assert len(await self._conn.fetch(sql, self._moment, limit)) == limit

    async def bare_search(self, word: str, limit: int) -> None:
        assert await self._conn.fetch(_SEARCH.format(**self._names), word, limit)


@contextlib.asynccontextmanager
async def grown(dsn: str, rows: int, expired: int) -> AsyncIterator[GrownPostgres]:
    """*rows* live entries, and *expired* ones more, in both tables."""
    schema = f"rows_{rows}"
    async with (
        LTMBackend(f"{dsn}?schema={schema}", "memory:", timeout=None) as ltm,
        bare_connection(dsn) as conn,
    ):
        await Ours(ltm).store_batch(documents())
        copies, old = rows // COPIES_OF - 1, expired // COPIES_OF + 1
        copy = _COPY.format(schema=schema)
        await conn.execute(copy, ":", IN_2100, copies, timeout=600)
        await conn.execute(copy, ":old:", 0, old, timeout=600)
        bare = BarePostgres(conn, table=_bare(rows))
        await bare.install()
        await conn.execute(_TO_BARE.format(schema=schema, bare=_bare(rows)), timeout=600)
        await _settle(conn, f"{schema}.ltm_entries", _bare(rows))
        yield GrownPostgres(ltm, bare, conn, schema, rows)


@contextlib.asynccontextmanager
async def grown_texts(dsn: str, rows: int) -> AsyncIterator[GrownPostgres]:
    """*rows* entries with an index of their texts, of which a hundred have a word of their own."""
    schema = f"texts_{rows}"
    async with (
        LTMBackend(f"{dsn}?schema={schema}", "memory:", timeout=None, index_text=True) as ltm,
        bare_connection(dsn) as conn,
    ):
        ours = Ours(ltm)
        await ours.store_batch(documents())
        copies = rows // COPIES_OF - 1
        copy = _COPY.format(schema=schema)
        await conn.execute(copy, ":", IN_2100, copies, timeout=600)
        await conn.execute(_COPY_TEXTS.format(schema=schema, copies=copies), timeout=600)
        await ours.store_batch(search_docs())
        await _settle(conn, f"{schema}.ltm_entries", f"{schema}.ltm_texts")
        bare: Any = None
        yield GrownPostgres(ltm, bare, conn, schema, rows)


async def _settle(conn: asyncpg.Connection[asyncpg.Record], *tables: str) -> None:
    for table in tables:
        await conn.execute(f"VACUUM ANALYZE {table}", timeout=600)


def _bare(rows: int) -> str:
    return f"bare_{rows}"
