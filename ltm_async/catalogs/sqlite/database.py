"""Opening the file: settings, schema and its migrations."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from ...errors import ConfigError

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables; RETURNING came with 3.35."""
BUSY_TIMEOUT_MS = 50
OPEN_TIMEOUT_S = 20.0
TEXTS_OF_A_SPACE = 1 << 40
"""Numbers for the texts of a namespace, of which one that is replaced gets a new one; this leaves
room for 8 million namespaces."""

_V1 = """
CREATE TABLE ltm_entries (
    namespace     TEXT NOT NULL,
    key           TEXT NOT NULL,
    version       INTEGER NOT NULL,
    write_id      TEXT NOT NULL,
    content_hash  TEXT NOT NULL,
    byte_size     INTEGER NOT NULL,
    inlined_value TEXT,
    blob_id       TEXT,
    metadata      TEXT NOT NULL,
    expires_at    INTEGER,           -- microseconds since 1970, UTC, as all instants here
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (namespace, key),
    CHECK ((inlined_value IS NULL) <> (blob_id IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX ltm_entries_expiry ON ltm_entries (namespace, expires_at)
    WHERE expires_at IS NOT NULL;

CREATE TABLE ltm_blobs (
    namespace TEXT NOT NULL,
    blob_id   TEXT NOT NULL,
    key       TEXT NOT NULL,
    state     TEXT NOT NULL CHECK (state IN ('pending', 'live', 'dead')),
    committed INTEGER NOT NULL,      -- has been live: tells a dead one that once was stored
    byte_size INTEGER NOT NULL,
    due_at    INTEGER,               -- end of the lease, or when to delete the object
    PRIMARY KEY (namespace, blob_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX ltm_blobs_live ON ltm_blobs (namespace, key) WHERE state = 'live';
CREATE INDEX ltm_blobs_due ON ltm_blobs (namespace, due_at) WHERE state <> 'live';

CREATE TABLE ltm_deletions (
    namespace  TEXT NOT NULL,
    key        TEXT NOT NULL,
    version    INTEGER NOT NULL,
    write_id   TEXT NOT NULL,
    deleted_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX ltm_deletions_age ON ltm_deletions (namespace, deleted_at);

CREATE TABLE ltm_version (last INTEGER NOT NULL) STRICT;
INSERT INTO ltm_version VALUES (0);
"""

_V2 = """
CREATE TABLE ltm_texts (
    id        INTEGER PRIMARY KEY,   -- the rowid of its words
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    UNIQUE (namespace, key)
) STRICT;
CREATE INDEX ltm_entries_changed ON ltm_entries (namespace, version);
ALTER TABLE ltm_deletions ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ltm_deletions_changed ON ltm_deletions (namespace, version);

CREATE TABLE ltm_pruned (            -- up to which version deletions were forgotten
    namespace TEXT NOT NULL PRIMARY KEY,
    version   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ltm_snapshots (
    namespace   TEXT NOT NULL,
    id          TEXT NOT NULL,
    name        TEXT NOT NULL,
    watermark   TEXT NOT NULL,
    entry_count INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;
"""

_V3 = """
CREATE TABLE ltm_moments (
    namespace   TEXT NOT NULL,
    id          TEXT NOT NULL,
    name        TEXT NOT NULL,
    watermark   TEXT NOT NULL,
    entry_count INTEGER,             -- NULL where there were too many to count
    total_bytes INTEGER,             -- the same
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;
INSERT INTO ltm_moments SELECT * FROM ltm_snapshots;
DROP TABLE ltm_snapshots;
ALTER TABLE ltm_moments RENAME TO ltm_snapshots;
"""
_V4 = """
CREATE TABLE ltm_vectors (
    id        INTEGER PRIMARY KEY,   -- so that keys are found without reading past vectors
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    vector    BLOB NOT NULL,         -- 32-bit floats, little-endian, of length 1
    UNIQUE (namespace, key)
) STRICT;
"""
_NUMBERED = f"""
SELECT id AS was, namespace, key, space, space * {TEXTS_OF_A_SPACE} + place AS id
FROM (SELECT *, dense_rank() OVER (ORDER BY namespace) AS space,
          row_number() OVER (PARTITION BY namespace ORDER BY id) AS place
      FROM ltm_texts)"""
_V5 = f"""
CREATE TABLE ltm_spaces (
    id        INTEGER PRIMARY KEY,   -- in the upper bits of the ids of its texts
    namespace TEXT NOT NULL UNIQUE,
    texts     INTEGER NOT NULL       -- how many there are
) STRICT;
CREATE TABLE ltm_numbered (
    id        INTEGER PRIMARY KEY,   -- the rowid of its words; side by side in each namespace
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    UNIQUE (namespace, key)
) STRICT;
INSERT INTO ltm_numbered SELECT id, namespace, key FROM ({_NUMBERED});
INSERT INTO ltm_spaces
SELECT space, namespace, count(*) FROM ({_NUMBERED}) GROUP BY space, namespace;
DROP TABLE ltm_texts;
ALTER TABLE ltm_numbered RENAME TO ltm_texts;
"""
_V5_WORDS = f"""
CREATE VIRTUAL TABLE ltm_renumbered USING fts5 (words, tokenize = 'ascii');
INSERT INTO ltm_renumbered (rowid, words)
SELECT numbered.id, w.words
FROM ({_NUMBERED}) AS numbered JOIN ltm_words AS w ON w.rowid = numbered.was
ORDER BY numbered.id;
DROP TABLE ltm_words;
ALTER TABLE ltm_renumbered RENAME TO ltm_words;
"""

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5)
"""The script at index n leads from schema version n to n + 1 (``PRAGMA user_version``)."""
_FIRST_OF_WORDS = {4: _V5_WORDS}
"""What goes before the script at that index where texts have been indexed, which needs FTS5."""


def connect(path: str, synchronous: str) -> sqlite3.Connection:
    """A connection ready for writing, its schema up to date."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old, {oldest} is needed")
    conn = _plain_connection(path)
    try:
        # The change to WAL does not wait for a lock by itself, whatever the timeout.
        patiently(lambda: conn.execute("PRAGMA journal_mode = WAL"))
        conn.execute(f"PRAGMA synchronous = {synchronous}")  # checked by the catalog
        patiently(lambda: migrate(conn))
    except BaseException:
        conn.close()
        raise
    return conn


def connect_reader(path: str, synchronous: str) -> sqlite3.Connection:
    """A second connection: it sees committed rows only and never waits for the writer."""
    conn = _plain_connection(path)
    try:
        if conn.execute("PRAGMA user_version").fetchone() != (len(MIGRATIONS),):
            connect(path, synchronous).close()
        conn.execute("PRAGMA query_only = ON")
    except BaseException:
        conn.close()
        raise
    return conn


def _plain_connection(path: str) -> sqlite3.Connection:
    conn = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


def migrate(conn: sqlite3.Connection) -> None:
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    if version == len(MIGRATIONS):
        return
    conn.execute("BEGIN IMMEDIATE")
    try:
        (version,) = conn.execute("PRAGMA user_version").fetchone()  # another may have been first
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"the catalog has schema version {version}, this release knows up to "
                f"{len(MIGRATIONS)}: upgrade ltm-async"
            )
        has_words = conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'ltm_words'").fetchone()
        for place, script in enumerate(MIGRATIONS[version:], version):
            of_words = _FIRST_OF_WORDS.get(place, "") if has_words else ""
            for statement in _statements(of_words + script):
                conn.execute(statement)
        conn.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    """*script* cut at its semicolons: ``executescript`` would commit the transaction."""
    found, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found


def is_busy(exc: sqlite3.Error) -> bool:
    """Another connection holds the lock; extended codes keep the primary one in their low byte."""
    return exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def patiently(
    action: Callable[[], object],
    *,
    timeout_s: float = OPEN_TIMEOUT_S,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Repeat *action* while the file is locked, as long as somebody waits for it.

    SQLite's own wait cannot be cancelled, so each try waits ``BUSY_TIMEOUT_MS`` at most.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or not wanted() or time.monotonic() > give_up:
                raise
            time.sleep(0.001)
