"""Deleting all entries whose keys begin alike."""

from __future__ import annotations

from ltm_async.backend import LTMBackend
from ltm_async.listing import MAX_PAGE


async def delete_below(ltm: LTMBackend, prefix: str) -> None:
    """Delete every entry whose key begins with *prefix*, damaged ones too, page by page.

    Raises:
        InvalidEntryError: *prefix* is too long; nothing was sent.
        StoreError: A store failed; some may be deleted.
    """
    cursor: str | None = None
    while True:
        page = await ltm.list_entries(prefix, cursor=cursor, limit=MAX_PAGE)
        keys = [*(entry.key for entry in page.raise_for_error().entries), *page.errors]
        if keys:
            (await ltm.delete_batch(keys)).raise_for_error()
        cursor = page.cursor
        if cursor is None:
            return
