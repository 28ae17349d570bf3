"""What the SQL functions of a catalog take and give, by whichever way they are called."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from .entry import NEVER, prefix_end
from .errors import CorruptError
from .filters import Filter
from .jsonpath import as_arguments
from .nearest import check_compared
from .protocols import Near, Outcome, Page, Resolved, Row, Write, Written
from .tsearch import to_tsvector
from .vectors import FLOAT_BYTES, to_floats

T = TypeVar("T")

AFTER_ALL_KEYS = "\U0010ffff" * 257
"""Above every key: longer than one may be, of the last character."""

MAX_COMPARED = 10_000
"""Vectors that a search compares where pgvector is not installed: SQL takes 0.2 ms for each."""

_by_key = operator.attrgetter("key")


class Commit(NamedTuple):
    """The arguments of ``ltm_commit`` behind the namespace and the write's id."""

    in_keys: Sequence[str]
    in_hashes: Sequence[str]
    in_sizes: Sequence[int]
    in_values: Sequence[str | None]
    in_blob_ids: Sequence[str | None] | None
    in_metadata: Sequence[str]
    in_ttls: Sequence[int | None] | None
    in_ends: Sequence[int | None] | None
    in_versions: Sequence[int | None] | None
    in_texts: Sequence[str | None] | None
    in_lengths: Sequence[int | None] | None
    in_vectors: Sequence[float] | None
    in_dimensions: Sequence[int | None] | None


class Nearest(NamedTuple):
    """The arguments of ``ltm_nearest`` behind the namespace."""

    in_vector: Sequence[float]
    in_path: str | None
    in_variables: str | None
    in_best: int
    in_most: int


def in_lock_order(writes: Sequence[Write]) -> list[Write]:
    """*writes* as the database locks their rows."""
    return sorted(writes, key=_by_key)


def to_commit(namespace: str, ordered: Sequence[Write]) -> Commit:
    keys, hashes, sizes, values, blob_ids, metadata, expiries, versions, texts, vectors = zip(
        *ordered, strict=True
    )
    indexed = _unless_empty(texts)
    pointed = _unless_empty(vectors)
    return Commit(
        keys,
        hashes,
        sizes,
        values,
        _unless_empty(blob_ids),
        metadata,
        _unless_empty([expiry.ttl_us for expiry in expiries]),
        _unless_empty([expiry.at_us for expiry in expiries]),
        _unless_empty(versions),
        indexed and [to_tsvector(namespace, words) if words else None for words in indexed],
        indexed and [words.count(" ") + 1 if words else None for words in indexed],
        pointed and to_floats(b"".join(filter(None, pointed))).tolist(),
        pointed and [vector and len(vector) // FLOAT_BYTES for vector in pointed],
    )


def to_nearest(vector: bytes, wanted: Filter | None, limit: int) -> Nearest:
    return Nearest(to_floats(vector).tolist(), *as_arguments(wanted), limit, MAX_COMPARED)


def to_near(rows: Sequence[Any]) -> list[Near]:
    """What ``ltm_nearest`` gave.

    Raises:
        ConfigError: There are more vectors than it compares.
    """
    *_, compared = rows[0]
    if len(rows) == 1:
        check_compared(compared, MAX_COMPARED)
    return [Near(Row._make(row[:10]), row[10]) for row in rows[1:]]


def to_written(
    ordered: Sequence[Write], version: int, now_us: int, unchanged: Sequence[int]
) -> Written:
    """What ``ltm_commit`` did; *unchanged* are places, from 1."""
    ends = {
        write.key: end
        for write in ordered
        if write.expiry is not NEVER and (end := write.expiry.resolve(now_us)) is not None
    }
    return Written(version, [ordered[place - 1].key for place in unchanged], ends)


def to_resolved(known: int, committed: bool, version: int | None) -> Resolved:
    """What ``ltm_resolve_write`` found."""
    if committed or version is not None:
        return Resolved(Outcome.STORED, version)
    return Resolved(Outcome.FAILED if known else Outcome.UNKNOWN)


def to_page(found: Sequence[Any], limit: int, most: int) -> Page:
    """What ``ltm_filter`` gave; its last row says how far it looked."""
    *rows, (after, *_, examined) = found
    if len(rows) < limit and examined < most:
        return Page([Row._make(row[:10]) for row in rows], None, examined)
    if after is None:
        raise CorruptError(f"a whole page of {examined} rows has no key that can be one")
    return Page([Row._make(row[:10]) for row in rows], after, examined)


def end_of(prefix: str) -> str:
    """Above all keys that begin with *prefix*."""
    end = prefix_end(prefix)
    return AFTER_ALL_KEYS if end is None else end


def _unless_empty(column: Sequence[T]) -> Sequence[T] | None:
    """*column*, or None where all it holds is: a null is as much to send as a value."""
    return None if column.count(None) == len(column) else column
