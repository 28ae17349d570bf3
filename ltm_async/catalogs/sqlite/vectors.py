"""Vectors beside their entries; they are compared one by one, so no index has to be kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...nearest import PAGE, Nearest
from ...protocols import Near, Row
from . import statements as sql

if TYPE_CHECKING:
    from ...filters import Filter


def keep(conn: sqlite3.Connection, namespace: str, vectors: Iterable[tuple[str, bytes]]) -> None:
    """Replace the vectors of these keys."""
    conn.executemany(sql.KEEP_VECTOR, [(namespace, key, vector) for key, vector in vectors])


def drop(conn: sqlite3.Connection, namespace: str, keys: str) -> None:
    """Forget the vectors of *keys*, a JSON array."""
    conn.execute(sql.DROP_VECTORS, (namespace, keys))


def nearest(
    conn: sqlite3.Connection,
    now: int,
    namespace: str,
    vector: bytes,
    wanted: Filter | None,
    limit: int,
) -> list[Near]:
    from ...filters import may_match

    found = Nearest(vector, limit)
    bound = {
        "namespace": namespace,
        "now": now,
        "size": len(vector),
        "filtered": wanted is not None,
    }
    conn.create_function(
        "ltm_wanted", 1, lambda metadata: may_match(wanted, metadata.decode(errors="replace"))
    )
    conn.execute("SAVEPOINT nearest")  # so that all of it is as of one moment
    try:
        candidates = conn.execute(sql.VECTORS, bound)
        while page := candidates.fetchmany(PAGE):
            found.add([key for key, _ in page], [kept for _, kept in page])
        best = found.best()
        heads = {"namespace": namespace, "keys": json.dumps(list(best)), "now": now}
        rows = {row[0]: Row._make(row) for row in conn.execute(sql.HEADS, heads)}
    finally:
        conn.execute("RELEASE nearest")
    return [Near(rows[key], cosine) for key, cosine in best.items() if key in rows]
