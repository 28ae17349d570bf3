"""Searching: the catalog finds candidates, which are ranked here, the same for every catalog."""

from __future__ import annotations

from .entry import shown
from .errors import CorruptError, InvalidEntryError
from .filters import Filter
from .protocols import Found
from .reading import check_name, check_row
from .results import Failure, SearchHit, SearchResult
from .stores import Stores
from .text import Query, matches, scores

MAX_RANKED = 200


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
