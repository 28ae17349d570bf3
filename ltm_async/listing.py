"""Listing: pages of rows in the order of their keys, those that a filter lets through."""

from __future__ import annotations

from .errors import CorruptError
from .filters import Filter
from .reading import check_name, check_row, next_after
from .results import EntryInfo, Failure, ListResult
from .stores import Stores

MAX_EXAMINED = 10_000
"""Rows that one call reads to find those that match."""
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
        rows = await stores.to_catalog.unanswered(
            stores.catalog.list_entries, stores.namespace, prefix=prefix, after=after, limit=size
        )
        names: list[str] = []
        seen = 0
        for row in rows:
            seen += 1
            try:
                check_name(row)
                names.append(row.key)
                metadata = check_row(row)
                if wanted is None or wanted.matches(metadata):
                    entries.append(EntryInfo.of(row, metadata))
            except CorruptError as exc:
                errors[row.key] = Failure.of(exc)
                first = first or exc
            if len(entries) + len(errors) == limit:
                break
        examined += seen
        if seen == len(rows) < size:
            return ListResult(entries=entries, errors=errors, exception=first)
        after = next_after(rows, names)
        if len(entries) + len(errors) == limit or examined >= MAX_EXAMINED:
            return ListResult(entries=entries, cursor=after, errors=errors, exception=first)
        size = min(2 * size, MAX_PAGE)  # few match: look at more of them at once
