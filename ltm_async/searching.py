"""Searching: the catalog finds candidates, which are ranked here, the same for every catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .entry import shown
from .errors import CorruptError, InvalidEntryError
from .filters import Filter
from .protocols import Found
from .reading import check_name, check_row, read_batch
from .results import Failure, SearchHit, SearchResult, SnippetsResult
from .snippets import Snippet, snippet_of
from .stores import Stores
from .text import Query, matches, scores

MAX_RANKED = 200
READ_AT_ONCE = 20
"""Values that are in memory for their snippets."""


def parse_cursor(cursor: object) -> int:
    """How many hits the pages before had."""
    if cursor is None:
        return 0
    if isinstance(cursor, str) and cursor.isascii() and cursor.isdigit() and len(cursor) <= 3:
        return int(cursor)
    raise InvalidEntryError(f"cursor is {shown(cursor)}, which no page of a search gave")


async def search(
    stores: Stores, query: Query, wanted: Filter | None, *, skip: int, limit: int
) -> SearchResult:
    """The hits from *skip* on; the catalog may have found some that do not match."""
    found = await stores.to_catalog.unanswered(
        stores.catalog.search_entries, stores.namespace, query, wanted=wanted, limit=MAX_RANKED
    )
    errors: dict[str, Failure] = {}
    first: CorruptError | None = None
    held: list[tuple[Found, dict[str, object]]] = []
    for candidate in found.found:
        try:
            check_name(candidate.row)
            metadata = check_row(candidate.row)
        except CorruptError as exc:
            errors[candidate.row.key] = Failure.of(exc)
            first = first or exc
            continue
        if matches(query, candidate.text) and (wanted is None or wanted.matches(metadata)):
            held.append((candidate, metadata))
    texts = [candidate.text for candidate, _ in held]
    ranked = sorted(
        zip(scores(query, texts, entries=found.entries, having=found.having), held, strict=True),
        key=lambda hit: (-hit[0], hit[1][0].row.key),
    )
    page = ranked[skip : skip + limit]
    return SearchResult(
        results=[
            SearchHit.found(candidate.row, metadata, score) for score, (candidate, metadata) in page
        ],
        total=found.total,
        cursor=str(skip + limit) if len(ranked) > skip + limit else None,
        errors=errors,
        exception=first,
    )


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
            elif key not in read.values:
                missing.append(key)
            elif (snippet := snippet_of(key, read.values[key], query)) is not None:
                snippets[key] = snippet
            await asyncio.sleep(0)  # a long text takes some milliseconds
    return SnippetsResult(snippets=snippets, missing=missing, errors=errors)
