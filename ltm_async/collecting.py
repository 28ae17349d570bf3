"""Deleting what no row names any more: by the ledger, or by an audit of the storage."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

from . import writing
from .entry import blob_path, namespace_path
from .errors import CorruptError, OutcomeUnknownError, StoreError
from .protocols import BlobInfo, Removed
from .stores import COLLECT_BACKOFF_US, Stores

logger = logging.getLogger(__name__)

PAGE = 500
"""Blobs per request to either store; S3 deletes at most 1,000 at once."""


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class Collected:
    """Entries removed and blobs deleted so far, and what could not be deleted."""

    entries: int = 0
    deleted: int = 0
    byte_size: int = 0
    errors: list[StoreError] = dataclasses.field(default_factory=list)


class Deleted(NamedTuple):
    """What one batch deleted."""

    live: Collection[str]
    """The keys that had a live entry."""
    unclear: OutcomeUnknownError | None
    """Why it cannot be told whether the others had one."""


async def delete_entries(stores: Stores, keys: Sequence[str], if_version: int | None) -> Deleted:
    """Delete rows, then the objects of their blobs.

    A blob that cannot be deleted now stays in the ledger for a later collection.
    """
    removed, unclear = await writing.remove(stores, keys, if_version)
    done = Collected()
    await discard(stores, [entry.blob_id for entry in removed if entry.blob_id is not None], done)
    for exc in done.errors:
        logger.debug("left a dead blob to the next collection: %s", exc)
    return Deleted({entry.key for entry in removed if entry.was_live}, unclear)


async def remove_expired(stores: Stores, limit: int) -> list[Removed]:
    """Remove up to *limit* expired rows; a reply that is lost leaves them to the next call."""
    write_id = os.urandom(16).hex()
    return await stores.to_catalog.refused(
        stores.catalog.expire_entries, stores.namespace, limit, write_id=write_id
    )


async def discard(stores: Stores, blob_ids: Sequence[str], done: Collected) -> None:
    """Delete the objects of dead blobs, then their ledger rows, in that order.

    A blob that cannot be deleted stays in the ledger and is due again later.
    """
    for start in range(0, len(blob_ids), PAGE):
        paths: dict[str, str] = {}
        for blob_id in blob_ids[start : start + PAGE]:
            try:
                paths[blob_path(stores.namespace, blob_id)] = blob_id
            except CorruptError as exc:  # a forged name leads nowhere
                done.errors.append(exc)
        try:
            failed = await stores.to_blobs.unanswered(stores.blobs.delete, list(paths))
            done.errors.extend(failed.values())
            gone = [blob_id for path, blob_id in paths.items() if path not in failed]
            await stores.to_catalog.unanswered(stores.catalog.forget_blobs, stores.namespace, gone)
            done.deleted += len(gone)
        except StoreError as exc:
            done.errors.append(exc)


async def collect_due(stores: Stores, limit: int, done: Collected) -> None:
    """Delete up to *limit* blobs that are dead, or pending past their lease, and due."""
    for page in pages(limit):
        due = await stores.to_catalog.unanswered(
            stores.catalog.take_due_blobs, stores.namespace, page, backoff_us=COLLECT_BACKOFF_US
        )
        await discard(stores, [blob.blob_id for blob in due], done)
        done.byte_size += sum(blob.byte_size for blob in due)
        if len(due) < page:
            return


async def cleanup_expired(stores: Stores, limit: int, done: Collected) -> None:
    """Remove up to *limit* expired entries with their blobs, and as many due blobs besides."""
    for page in pages(limit):
        removed = await remove_expired(stores, page)
        done.entries += len(removed)
        blob_ids = [entry.blob_id for entry in removed if entry.blob_id is not None]
        await discard(stores, blob_ids, done)
        if len(removed) < page:
            break
    await collect_due(stores, limit, done)


async def count_garbage(
    stores: Stores, limit: int, stray_age_us: int | None, done: Collected
) -> None:
    """Count what ``collect_garbage`` would delete."""
    due = await stores.to_catalog.unanswered(stores.catalog.due_blobs, stores.namespace, limit)
    done.deleted += len(due)
    done.byte_size += sum(blob.byte_size for blob in due)
    if stray_age_us is not None and done.deleted < limit:
        found = await strays(stores, older_than_us=stray_age_us, limit=limit - done.deleted)
        done.deleted += len(found)
        done.byte_size += sum(info.byte_size for info in found)


async def collect_garbage(
    stores: Stores, limit: int, stray_age_us: int | None, done: Collected
) -> None:
    """Delete up to *limit* due blobs, then strays, if an age is given for them."""
    await collect_due(stores, limit, done)
    if stray_age_us is not None and done.deleted < limit:
        found = await strays(stores, older_than_us=stray_age_us, limit=limit - done.deleted)
        await delete_strays(stores, found, done)


def pages(limit: int) -> list[int]:
    """*limit* cut into pages."""
    return [min(PAGE, limit - start) for start in range(0, limit, PAGE)]


async def strays(stores: Stores, *, older_than_us: int, limit: int) -> list[BlobInfo]:
    """Up to *limit* objects of this namespace that no ledger row knows, older than that."""
    return await stores.to_blobs.unanswered(_find_strays, stores, older_than_us, limit)


async def _find_strays(stores: Stores, older_than_us: int, limit: int) -> list[BlobInfo]:
    prefix = namespace_path(stores.namespace)
    found: list[BlobInfo] = []
    page: list[BlobInfo] = []

    async def sift() -> None:
        names = [info.path.removeprefix(prefix) for info in page]
        known = await stores.catalog.known_blobs(stores.namespace, names)
        found.extend(info for info, name in zip(page, names, strict=True) if name not in known)
        page.clear()

    async for info in stores.blobs.scan(prefix):
        if info.age_us >= older_than_us:
            page.append(info)
        if len(page) == PAGE:
            await sift()
            if len(found) >= limit:
                return found[:limit]
    await sift()
    return found[:limit]


async def delete_strays(stores: Stores, objects: Sequence[BlobInfo], done: Collected) -> None:
    for start in range(0, len(objects), PAGE):
        page = {info.path: info.byte_size for info in objects[start : start + PAGE]}
        failed = await stores.to_blobs.unanswered(stores.blobs.delete, list(page))
        done.errors.extend(failed.values())
        done.deleted += len(page) - len(failed)
        done.byte_size += sum(size for path, size in page.items() if path not in failed)
