"""Searching: the catalog finds candidates, which are ranked here, the same for every catalog.

There are up to two rankings, by words and by vectors. Two become one by the ranks alone, as their
scores have nothing in common: reciprocal rank fusion, after Cormack, Clarke and Büttcher (SIGIR
2009), who found 60 to serve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from .embedding import Embedder
from .entry import check_text, shown
from .errors import CorruptError, InvalidEntryError
from .filters import Filter
from .protocols import Found, Row
from .reading import check_name, check_row, read_batch
from .results import Failure, SearchHit, SearchResult, SnippetsResult
from .snippets import Snippet, snippet_of
from .stores import Stores
from .text import MAX_QUERY_BYTES, Query, matches, parse_query, scores
from .transfer import both

MAX_RANKED = 200
"""Entries in one ranking."""
READ_AT_ONCE = 20
"""Values that are in memory for their snippets."""
FUSED_FROM = 60
COSINE_DIGITS = 6
"""What differs less is equally near: stores add up in different orders."""


class Sought(NamedTuple):
    """A query that has been checked."""

    text: str
    words: Query | None
    """Where words are sought."""

    @classmethod
    def of(cls, given: object, *, by_words: bool) -> Sought:
        """*given*, as words or as any text that is not blank.

        Raises:
            InvalidEntryError: It is none, or over a limit.
        """
        check_text("query", given, MAX_QUERY_BYTES)
        text = str(given)
        if by_words:
            return cls(text, parse_query(text))
        if not text.strip():
            raise InvalidEntryError("query is blank")
        return cls(text, None)


class Hit(NamedTuple):
    """A candidate that is whole and wanted."""

    score: float
    row: Row
    metadata: dict[str, Any]


class Checker:
    """Tells candidates that are wanted, and remembers those that are damaged."""

    def __init__(self, wanted: Filter | None) -> None:
        self._wanted = wanted
        self.errors: dict[str, Failure] = {}
        self.first: CorruptError | None = None

    def metadata(self, row: Row) -> dict[str, Any] | None:
        """That of *row*, or None where it is not to be found."""
        try:
            check_name(row)
            metadata = check_row(row)
        except CorruptError as exc:
            self.errors[row.key] = Failure.of(exc)
            self.first = self.first or exc
            return None
        return metadata if self._wanted is None or self._wanted.matches(metadata) else None


def parse_cursor(cursor: object) -> int:
    """How many hits the pages before had."""
    if cursor is None:
        return 0
    if isinstance(cursor, str) and cursor.isascii() and cursor.isdigit() and len(cursor) <= 3:
        return int(cursor)
    raise InvalidEntryError(f"cursor is {shown(cursor)}, which no page of a search gave")


async def search(
    stores: Stores, sought: Sought, wanted: Filter | None, *, skip: int, limit: int
) -> SearchResult:
    """The hits from *skip* on; the catalog may have found some that do not match."""
    checker = Checker(wanted)
    rankings: dict[str, list[Hit]] = {}
    total = 0

    async def by_words(query: Query) -> None:
        nonlocal total
        rankings["words"], total = await _by_words(stores, query, wanted, checker)

    async def by_vectors(embedder: Embedder) -> None:
        rankings["vectors"] = await _by_vectors(stores, embedder, sought.text, wanted, checker)

    if stores.embedder is None:
        if sought.words is not None:
            await by_words(sought.words)
    elif sought.words is None:
        await by_vectors(stores.embedder)
    else:
        await both(by_words(sought.words), by_vectors(stores.embedder))
    ranked = sorted(_fused(list(rankings.values())), key=_rank)
    page = ranked[skip : skip + limit]
    return SearchResult(
        results=[SearchHit.found(hit.row, hit.metadata, hit.score) for hit in page],
        total=total if stores.embedder is None else len(ranked),
        cursor=str(skip + limit) if len(ranked) > skip + limit else None,
        errors=checker.errors,
        exception=checker.first,
    )


async def _by_words(
    stores: Stores, query: Query, wanted: Filter | None, checker: Checker
) -> tuple[list[Hit], int]:
    """What matches, by BM25, and how many match in all."""
    found = await stores.to_catalog.unanswered(
        stores.catalog.search_entries, stores.namespace, query, wanted=wanted, limit=MAX_RANKED
    )
    held: list[tuple[Found, dict[str, Any]]] = []
    for candidate in found.found:
        metadata = checker.metadata(candidate.row)
        if metadata is not None and matches(query, candidate.text):
            held.append((candidate, metadata))
    ranks = scores(
        query,
        [candidate.text for candidate, _ in held],
        entries=found.entries,
        having=found.having,
    )
    hits = [
        Hit(score, candidate.row, metadata)
        for score, (candidate, metadata) in zip(ranks, held, strict=True)
    ]
    return sorted(hits, key=_rank), found.total


async def _by_vectors(
    stores: Stores, embedder: Embedder, text: str, wanted: Filter | None, checker: Checker
) -> list[Hit]:
    """What is nearest, by the cosine."""
    (vector,) = await embedder.vectors([text])
    found = await stores.to_catalog.unanswered(
        stores.catalog.nearest_entries, stores.namespace, vector, wanted=wanted, limit=MAX_RANKED
    )
    hits = [
        Hit(round(near.cosine, COSINE_DIGITS), near.row, metadata)
        for near in found
        if (metadata := checker.metadata(near.row)) is not None
    ]
    return sorted(hits, key=_rank)


def _fused(rankings: Sequence[list[Hit]]) -> list[Hit]:
    """One ranking as it is; of several, each entry once, as the latest of them saw it."""
    if len(rankings) == 1:
        return rankings[0]
    fused: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            other = fused.get(hit.row.key)
            score = 1 / (FUSED_FROM + rank) + (0 if other is None else other.score)
            latest = hit if other is None or other.row.version < hit.row.version else other
            fused[hit.row.key] = latest._replace(score=score)
    return list(fused.values())


def _rank(hit: Hit) -> tuple[float, str]:
    return -hit.score, hit.row.key


async def retrieve_snippets(stores: Stores, query: Query, keys: Sequence[str]) -> SnippetsResult:
    """Some values at once, of which only the snippets are kept."""
    snippets: dict[str, Snippet] = {}
    missing: list[str] = []
    errors: dict[str, Failure] = {}
    for place in range(0, len(keys), READ_AT_ONCE):
        some = keys[place : place + READ_AT_ONCE]
        read = await read_batch(stores, some)
        for key in some:
            if key in read.errors:
                errors[key] = Failure.of(read.errors[key])
            elif key not in read.results:
                missing.append(key)
            elif (snippet := snippet_of(key, read.results[key].value, query)) is not None:
                snippets[key] = snippet
            await asyncio.sleep(0)  # a long text takes some milliseconds
    return SnippetsResult(snippets=snippets, missing=missing, errors=errors)
