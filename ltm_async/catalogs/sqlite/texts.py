"""The full-text index: FTS5 over words that the library has made."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from ...errors import ConfigError
from ...filters import Filter, may_match
from ...protocols import MAX_COUNTED, MAX_MATCHES, Found, Matches, Row
from ...text import Query, Term, mark_of, text_in
from . import statements as sql


def index(
    conn: sqlite3.Connection, namespace: str, texts: Iterable[tuple[str, str | None]]
) -> None:
    """Replace the words of these keys; None leaves a key without."""
    texts = list(texts)
    drop(conn, namespace, [key for key, _ in texts])
    made = _has_texts(conn)
    for key, words in texts:
        if words:
            if not made:
                _make_index(conn)
                made = True
            place = conn.execute(sql.NAME_TEXT, (namespace, key)).lastrowid
            conn.execute(sql.ADD_WORDS, (place, mark_of(namespace), words))


def drop(conn: sqlite3.Connection, namespace: str, keys: Sequence[str]) -> None:
    """Forget the words of *keys*."""
    if _has_texts(conn):
        bound = (namespace, json.dumps(keys))
        conn.execute(sql.DROP_WORDS, bound)
        conn.execute(sql.DROP_TEXTS, bound)


def _has_texts(conn: sqlite3.Connection) -> bool:
    """Without, there may be no index: a file that needs none does not need FTS5."""
    return bool(conn.execute(sql.HAS_TEXTS).fetchone()[0])


def _make_index(conn: sqlite3.Connection) -> None:
    try:
        conn.execute(sql.MAKE_INDEX)
    except sqlite3.OperationalError as exc:
        if "fts5" not in str(exc):
            raise
        raise ConfigError("index_text needs FTS5, which this Python's SQLite lacks") from exc


def search(
    conn: sqlite3.Connection,
    now: int,
    namespace: str,
    query: Query,
    wanted: Filter | None,
    limit: int,
) -> Matches:
    if not _has_texts(conn):
        return Matches([], 0, 0, dict.fromkeys(query.terms, 0))
    joint = " AND " if query.every else " OR "
    bound = {
        "match": _match(namespace, joint.join(map(_phrase, query.decisive))),
        "namespace": namespace,
        "now": now,
        "most": MAX_MATCHES,
        "limit": limit,
    }
    conn.create_function(
        "ltm_wanted", 1, lambda metadata: may_match(wanted, metadata.decode(errors="replace"))
    )
    conn.execute("SAVEPOINT search")  # so that all of it is as of one moment
    try:
        found = [
            Found(Row._make(row), text_in(words.split(" "), query))
            for words, *row in conn.execute(sql.SEARCH, bound).fetchall()
        ]
        (total,) = conn.execute(sql.COUNT_MATCHES, bound).fetchone()
        (entries,) = conn.execute(sql.COUNT_TEXTS, (namespace, MAX_COUNTED)).fetchone()
        having = {term: _count(conn, namespace, term) for term in query.terms}
    finally:
        conn.execute("RELEASE search")
    return Matches(found, total, entries, having)


def _count(conn: sqlite3.Connection, namespace: str, term: Term) -> int:
    match = _match(namespace, _phrase(term))
    (count,) = conn.execute(sql.COUNT_WORDS, (match, MAX_COUNTED)).fetchone()
    return int(count)


def _match(namespace: str, expression: str) -> str:
    return f'space : "{mark_of(namespace)}" AND words : ({expression})'


def _phrase(term: Term) -> str:
    """*term* in FTS5's language; its words are letters and digits only."""
    return f'"{" ".join(term.words)}"{"*" if term.prefix else ""}'
