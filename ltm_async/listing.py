"""Listing: pages of rows in the order of their keys, those that a filter lets through."""

from __future__ import annotations

from .entry import last_key
from .errors import CorruptError
from .filters import Filter
from .protocols import Page
from .reading import check_name, check_row
from .results import EntryInfo, Failure, ListResult
from .stores import Stores

MAX_EXAMINED = 10_000
"""Rows that one call looks at to find those that match, in the catalog or here."""
MAX_PAGE = 1000


async def list_page(
    stores: Stores, prefix: str, after: str, limit: int, wanted: Filter | None
) -> ListResult:
    """Up to *limit* entries above *after*; a damaged row keeps no other from being listed.

    What the catalog does not filter is filtered here.
    """
    entries: list[EntryInfo] = []
    errors: dict[str, Failure] = {}
    first: CorruptError | None = None
    examined, size = 0, limit
    while True:
        page = await look(stores, prefix, after, size, wanted, MAX_EXAMINED - examined)
        seen = 0
        for row in page.rows:
            seen += 1
            try:
                check_name(row)
                metadata = check_row(row)
                if wanted is None or wanted.matches(metadata):
                    entries.append(EntryInfo.of(row, metadata))
            except CorruptError as exc:
                errors[row.key] = Failure.of(exc)
                first = first or exc
            if len(entries) + len(errors) == limit:
                break
        examined += page.examined
        passed = [row.key for row in page.rows[:seen]]
        cursor = page.after if seen == len(page.rows) else last_key(passed)
        enough = len(entries) + len(errors) == limit or examined >= MAX_EXAMINED
        if cursor is None or enough:
            return ListResult(entries=entries, cursor=cursor, errors=errors, exception=first)
        after = cursor
        size = min(2 * size, MAX_PAGE)  # few match: look at more of them at once


async def look(
    stores: Stores, prefix: str, after: str, limit: int, wanted: Filter | None, most: int
) -> Page:
    """A page of rows, without those of which the catalog can tell that *wanted* keeps them out."""
    call, catalog, namespace = stores.to_catalog.unanswered, stores.catalog, stores.namespace
    if wanted is None:
        rows = await call(catalog.list_entries, namespace, prefix=prefix, after=after, limit=limit)
        return Page.of(rows, limit)
    return await call(
        catalog.filter_entries,
        namespace,
        wanted,
        prefix=prefix,
        after=after,
        limit=limit,
        most=most,
    )
