"""Tables of many rows in SQLite, made by SQL out of a thousand that the library stored."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from bench.bare_sqlite import BareSQLite, OnTheLoop
from bench.growing import COPIES_OF, IN_2100, Grown, documents, search_docs
from bench.sides import Ours, Side
from ltm_async import LTMBackend

_NUMBERS = (
    "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < ?) SELECT n FROM s)"
)
_COPY = f"""
INSERT INTO ltm_entries
SELECT namespace, key || ? || n, version, write_id, content_hash, byte_size, inlined_value,
    blob_id, metadata, ? + n, created_at, updated_at
FROM (SELECT * FROM ltm_entries WHERE key GLOB 'doc:????') CROSS JOIN {_NUMBERS}"""
_NAME_TEXTS = f"""
INSERT INTO ltm_texts (id, namespace, key)
SELECT last + row_number() OVER (), namespace, key || ':' || n
FROM (SELECT *, max(id) OVER () AS last FROM ltm_texts WHERE key GLOB 'doc:????')
CROSS JOIN {_NUMBERS}"""
_COUNT_TEXTS = "UPDATE ltm_spaces SET texts = (SELECT count(*) FROM ltm_texts)"
_COPY_WORDS = """
INSERT INTO ltm_words (rowid, words)
SELECT copy.id, w.words
FROM ltm_texts AS copy
CROSS JOIN ltm_texts AS t ON t.namespace = copy.namespace AND t.key = substr(copy.key, 1, 8)
CROSS JOIN ltm_words AS w ON w.rowid = t.id
WHERE length(copy.key) > 8"""
_EXPIRE = """
DELETE FROM entries WHERE namespace = '' AND key IN (
    SELECT key FROM entries WHERE namespace = '' AND expires_at <= ?
    ORDER BY expires_at LIMIT ?)
RETURNING key, blob_id"""
_CHANGES = """
SELECT key, version, content_hash, byte_size, blob_id, metadata, expires_at, created_at, updated_at
FROM entries INDEXED BY entries_changed
WHERE namespace = '' AND version > ? ORDER BY version, key LIMIT ?"""
_SEARCH = """
SELECT key FROM ltm_words AS w JOIN ltm_texts AS t ON t.id = w.rowid
WHERE w.ltm_words MATCH ? ORDER BY w.rank LIMIT ?"""


class GrownSQLite(Grown):
    def __init__(self, ltm: LTMBackend, bare: Side, conn: sqlite3.Connection, rows: int) -> None:
        super().__init__(Ours(ltm), bare, rows)
        self._conn = conn
        self._moment = 0

    async def mark_moment(self) -> None:
        await super().mark_moment()
        found = self._conn.execute("SELECT max(version) FROM entries INDEXED BY entries_changed")
        (self._moment,) = found.fetchone()

    async def bare_cleanup(self, limit: int) -> None:
        self._conn.execute("BEGIN IMMEDIATE")
        gone = self._conn.execute(_EXPIRE, (time.time_ns() // 1000, limit)).fetchall()
        self._conn.execute("COMMIT")
        assert len(gone) == limit

    async def bare_changes(self, limit: int) -> None:
        assert len(self._conn.execute(_CHANGES, (self._moment, limit)).fetchall()) == limit

    async def bare_search(self, word: str, limit: int) -> None:
        assert self._conn.execute(_SEARCH, (word, limit)).fetchall()


@contextlib.asynccontextmanager
async def grown(folder: str, rows: int, expired: int) -> AsyncIterator[GrownSQLite]:
    """*rows* live entries, and *expired* ones more, in both files."""
    home = _new_folder(folder, rows)
    url = f"sqlite:///{home}/ltm.db"
    async with LTMBackend(url, "memory:", timeout=None) as ltm:
        await Ours(ltm).store_batch(documents())
    bare = BareSQLite(str(home))
    with _hasty(f"{home}/ltm.db") as conn:
        conn.execute(_COPY, (":", IN_2100, rows // COPIES_OF - 1))
        conn.execute(_COPY, (":old:", 0, expired // COPIES_OF + 1))
    with _hasty(f"{home}/bare.db") as conn:
        conn.execute("ATTACH ? AS ours", (f"{home}/ltm.db",))
        conn.execute("INSERT INTO entries SELECT * FROM ours.ltm_entries")
    with contextlib.closing(bare), _careful(f"{home}/bare.db") as conn:
        async with LTMBackend(url, "memory:", timeout=None) as ltm:
            yield GrownSQLite(ltm, OnTheLoop(bare), conn, rows)


@contextlib.asynccontextmanager
async def grown_texts(folder: str, rows: int) -> AsyncIterator[GrownSQLite]:
    """*rows* entries with an index of their texts, of which a hundred have a word of their own."""
    file = Path(folder, f"texts_{rows}.db")
    options: dict[str, Any] = {"timeout": None, "index_text": True}
    async with LTMBackend(f"sqlite:///{file}", "memory:", **options) as ltm:
        await Ours(ltm).store_batch(documents())
    copies = rows // COPIES_OF - 1
    with _hasty(str(file)) as conn:
        conn.execute(_COPY, (":", IN_2100, copies))
        conn.execute(_NAME_TEXTS, (copies,))
        conn.execute(_COPY_WORDS)
        conn.execute(_COUNT_TEXTS)
    async with LTMBackend(f"sqlite:///{file}", "memory:", **options) as ltm:
        await Ours(ltm).store_batch(search_docs())
        with _careful(str(file)) as conn:
            bare: Any = None
            yield GrownSQLite(ltm, bare, conn, rows)


def _new_folder(parent: str, rows: int) -> Path:
    home = Path(parent, f"rows_{rows}")
    home.mkdir()
    return home


@contextlib.contextmanager
def _hasty(file: str) -> Iterator[sqlite3.Connection]:
    """Nothing that is filled here has to outlive a loss of power."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        conn.execute("PRAGMA cache_size = -262144")  # 256 MiB
        yield conn
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def _careful(file: str) -> Iterator[sqlite3.Connection]:
    conn = sqlite3.connect(file, isolation_level=None)
    with contextlib.closing(conn):
        conn.execute("PRAGMA synchronous = FULL")
        yield conn
