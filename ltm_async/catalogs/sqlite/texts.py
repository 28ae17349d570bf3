"""The full-text index: FTS5 over words that the library has made."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import ConfigError
from ...protocols import MAX_COUNTED, MAX_MATCHES, Found, Matches, Row
from . import statements as sql
from .database import TEXTS_OF_A_SPACE

if TYPE_CHECKING:
    from ...filters import Filter
    from ...text import Query, Term


class _Space(NamedTuple):
    """The numbers that texts of a namespace have, and how many there are."""

    first: int
    last: int
    texts: int

    @classmethod
    def of(cls, conn: sqlite3.Connection, namespace: str) -> _Space:
        """Empty, for a namespace that never had a text."""
        number, texts = conn.execute(sql.SPACE, (namespace,)).fetchone() or (0, 0)
        first = number * TEXTS_OF_A_SPACE
        return cls(first, first + TEXTS_OF_A_SPACE - 1, texts)


def add(conn: sqlite3.Connection, namespace: str, texts: Sequence[tuple[str, str]]) -> None:
    """Keep the words of these keys, which have none."""
    if not _has_texts(conn):
        _make_index(conn)
    conn.execute(sql.NAME_SPACE, (namespace,))
    space = _Space.of(conn, namespace)
    (last,) = conn.execute(sql.LAST_TEXT, (space.first, space.last)).fetchone()
    numbered = [(place, *text) for place, text in enumerate(texts, (last or space.first) + 1)]
    conn.executemany(sql.NAME_TEXT, [(place, namespace, key) for place, key, _ in numbered])
    conn.executemany(sql.ADD_WORDS, [(place, words) for place, _, words in numbered])
    conn.execute(sql.COUNT_TEXTS, (len(texts), namespace))


def drop(conn: sqlite3.Connection, namespace: str, keys: str) -> None:
    """Forget the words of *keys*, a JSON array, where there are any texts."""
    bound = (namespace, keys)
    conn.execute(sql.DROP_WORDS, bound)
    if dropped := conn.execute(sql.DROP_TEXTS, bound).rowcount:
        conn.execute(sql.COUNT_TEXTS, (-dropped, namespace))


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
    from ...filters import may_match
    from ...text import text_in

    if not _has_texts(conn):
        return Matches([], 0, 0, dict.fromkeys(query.terms, 0))
    joint = " AND " if query.every else " OR "
    conn.create_function(
        "ltm_wanted", 1, lambda metadata: may_match(wanted, metadata.decode(errors="replace"))
    )
    conn.execute("SAVEPOINT search")  # so that all of it is as of one moment
    try:
        space = _Space.of(conn, namespace)
        bound = {
            "match": joint.join(map(_phrase, query.decisive)),
            "first": space.first,
            "last": space.last,
            "namespace": namespace,
            "now": now,
            "filtered": wanted is not None,
            "most": MAX_MATCHES,
            "limit": limit,
        }
        rows = conn.execute(sql.MATCHES, bound).fetchall()
        total = len(rows)
        if total > limit:  # only where some are left out, FTS5 has to rank them
            rows = conn.execute(sql.BEST, bound).fetchall()
            (total,) = conn.execute(sql.COUNT_MATCHES, bound).fetchone()
        found = [Found(Row._make(row), text_in(words.split(" "), query)) for words, *row in rows]
        having = {term: _count(conn, space, term) for term in query.terms}
    finally:
        conn.execute("RELEASE search")
    return Matches(found, total, min(space.texts, MAX_COUNTED), having)


def _count(conn: sqlite3.Connection, space: _Space, term: Term) -> int:
    bound = (_phrase(term), space.first, space.last, MAX_COUNTED)
    (count,) = conn.execute(sql.COUNT_WORDS, bound).fetchone()
    return int(count)


def _phrase(term: Term) -> str:
    """*term* in FTS5's language; its words are letters and digits only."""
    return f'"{" ".join(term.words)}"{"*" if term.prefix else ""}'
