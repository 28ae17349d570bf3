"""Storing: check everything, reserve, upload, commit once, and settle what stays unclear.

The steps and why they are in this order: each blob is in the catalog's ledger before its
upload begins, so whatever stops this process, the collector knows of it; nothing is visible
before the commit, all of a batch is after it; a commit whose reply was lost is settled by
*abandoning* its blobs, which refuses it should it still arrive.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import telemetry
from .drafting import PAUSE_EVERY_BYTES, Draft
from .entry import Expiry, blob_path, new_blob_id, to_datetime
from .errors import FencedError, OutcomeUnknownError, StoreError, UnavailableError
from .protocols import Outcome, Removed, Reservation, Row, Write, Written
from .results import StoreResult
from .stores import LEASE_US, Stores
from .transfer import fan_out

if TYPE_CHECKING:
    from .embedding import Embedder

logger = logging.getLogger(__name__)

ROUNDS = 3
"""A fenced write is uploaded again under new names, at most twice."""
PAUSE_EVERY_TEXTS = 20
ABANDON_TIMEOUT_S = 0.5
"""A failed call may take this much beyond its deadline to give back its reservations."""


class Stored(NamedTuple):
    """What became of one batch."""

    written: Written
    blob_ids: Mapping[str, str]
    """The blob uploaded for each key that got one."""
    renewed: Mapping[str, str]
    """The blob that was there already for each key that needed no upload."""


async def write_batch(stores: Stores, drafts: Sequence[Draft]) -> Stored:
    """Write at most ``batch_size`` drafts: all of them or none.

    Their vectors are asked for first, once, whatever the catalog does afterwards.

    Raises:
        ConflictError: A compare-and-swap did not match; nothing was written.
        OutcomeUnknownError: The commit's reply was lost for good.
        StoreError: Nothing was written.
    """
    write_id = os.urandom(16).hex()
    vectors = {} if stores.embedder is None else await _vectors(stores.embedder, drafts)
    for tried in range(1, ROUNDS + 1):
        try:
            return await _attempt(stores, drafts, vectors, write_id)
        except FencedError:
            if tried == ROUNDS:
                raise
    raise AssertionError("unreachable")


async def _attempt(
    stores: Stores, drafts: Sequence[Draft], vectors: Mapping[str, bytes], write_id: str
) -> Stored:
    large = [draft for draft in drafts if draft.byte_size >= stores.inline_threshold]
    blob_ids: dict[str, str] = {}
    try:
        renewed = await _bring_up(stores, large, blob_ids) if large else {}
        texts = await _texts(drafts) if stores.index_text else {}
        writes = await _to_writes(stores, drafts, blob_ids, texts, vectors)
        written = await _commit(stores, writes, write_id)
    except OutcomeUnknownError:
        raise  # the row may name them, now or later
    except BaseException:
        # Harmless whatever happened: only what is still pending dies.
        await _abandon(stores, list(blob_ids.values()))
        raise
    for key in blob_ids:
        stores.damaged.discard(key)
    return Stored(written, blob_ids, renewed)


async def _bring_up(
    stores: Stores, large: Sequence[Draft], blob_ids: dict[str, str]
) -> Mapping[str, str]:
    """Reserve and upload blobs; return those there already and drop them from *blob_ids*."""
    try:
        renewed = await _reserve(stores, large, blob_ids)
        for key in renewed:
            del blob_ids[key]
        await _upload(stores, [draft for draft in large if draft.key in blob_ids], blob_ids)
    except OutcomeUnknownError as exc:
        raise UnavailableError(f"{exc}; nothing was written", store=exc.store) from exc
    return renewed


async def _reserve(
    stores: Stores, large: Sequence[Draft], blob_ids: dict[str, str]
) -> Mapping[str, str]:
    """Reserve a name for each draft, put into *blob_ids*; return what is there already."""

    async def reserve() -> Mapping[str, str]:
        # A name is sent once. Sent again, its first reservation could arrive after the blob was
        # collected, and would let a commit pass that names nothing.
        hashes = {
            draft.key: stores.values.content_hash(draft.key, draft.content_hash) for draft in large
        }
        blob_ids.update((key, new_blob_id(content_hash)) for key, content_hash in hashes.items())
        blobs = [
            Reservation(
                blob_ids[draft.key],
                draft.key,
                # What is damaged must not be taken for the same content.
                "" if draft.key in stores.damaged else hashes[draft.key],
                draft.byte_size,
            )
            for draft in large
        ]
        return await stores.catalog.reserve_blobs(stores.namespace, blobs, lease_us=LEASE_US)

    return await stores.to_catalog.unanswered(reserve)


async def _upload(stores: Stores, drafts: Sequence[Draft], blob_ids: Mapping[str, str]) -> None:
    gate = stores.gates.get()

    async def upload(draft: Draft) -> None:
        path = blob_path(stores.namespace, blob_ids[draft.key])
        async with gate.admit(draft.byte_size):
            data = await stores.values.seal_blob(
                draft.key, blob_ids[draft.key], draft.encoded().encode()
            )
            await stores.to_blobs.unanswered(stores.blobs.put, path, data)
        telemetry.transferred("up", draft.byte_size)

    await fan_out(drafts, upload, count=stores.max_concurrency)


async def _texts(drafts: Sequence[Draft]) -> dict[str, str]:
    """The words to find each draft by; made on the loop, in turns of some milliseconds."""
    from .text import text_of

    texts: dict[str, str] = {}
    for number, draft in enumerate(drafts, 1):
        texts[draft.key] = text_of(draft.key, draft.value)
        if number % PAUSE_EVERY_TEXTS == 0:
            await asyncio.sleep(0)
    return texts


async def _vectors(embedder: Embedder, drafts: Sequence[Draft]) -> dict[str, bytes]:
    """A vector for each draft, of one call; none are made of what was stored before."""
    from .text import prose_of

    texts: list[str] = []
    for number, draft in enumerate(drafts, 1):
        texts.append(prose_of(draft.key, draft.value))
        if number % PAUSE_EVERY_TEXTS == 0:
            await asyncio.sleep(0)
    made = await embedder.vectors(texts)
    return dict(zip((draft.key for draft in drafts), made, strict=True))


async def _to_writes(
    stores: Stores,
    drafts: Sequence[Draft],
    blob_ids: Mapping[str, str],
    texts: Mapping[str, str],
    vectors: Mapping[str, bytes],
) -> list[Write]:
    """What is to be committed; made on the loop, in turns of some milliseconds."""
    values = stores.values
    writes: list[Write] = []
    since_pause = 0
    for draft in drafts:
        key, inlined = draft.key, None
        if draft.byte_size < stores.inline_threshold:
            inlined = values.seal_inlined(key, draft.encoded())
            since_pause += draft.byte_size
        writes.append(
            Write(
                key,
                values.content_hash(key, draft.content_hash),
                draft.byte_size,
                inlined,
                blob_ids.get(key),
                draft.metadata,
                draft.expiry,
                draft.if_version,
                texts.get(key),
                vectors.get(key),
            )
        )
        if since_pause >= PAUSE_EVERY_BYTES:
            since_pause = 0
            await asyncio.sleep(0)
    return writes


async def _commit(stores: Stores, writes: Sequence[Write], write_id: str) -> Written:
    try:
        return await stores.to_catalog.refused(
            stores.catalog.track_entries_batch, stores.namespace, writes, write_id=write_id
        )
    except OutcomeUnknownError as exc:
        return await _settle(stores, writes, write_id, exc)


async def _settle(
    stores: Stores, writes: Sequence[Write], write_id: str, lost: OutcomeUnknownError
) -> Written:
    """Find out what became of a commit whose reply was *lost*."""
    keys = [write.key for write in writes]
    blob_ids = [write.blob_id for write in writes if write.blob_id is not None]
    try:
        resolved = await stores.to_catalog.unanswered(
            stores.catalog.resolve_write,
            stores.namespace,
            write_id,
            keys=keys,
            blob_ids=blob_ids,
            grace_us=LEASE_US,
        )
    except StoreError as exc:
        raise lost from exc
    if resolved.outcome is Outcome.FAILED:
        raise FencedError("the commit was lost, and is refused from now on") from lost
    if resolved.outcome is Outcome.UNKNOWN:
        raise lost
    return Written(resolved.version, (), await _expiries(stores, keys, resolved.version))


async def _expiries(stores: Stores, keys: Sequence[str], version: int | None) -> dict[str, int]:
    """When the entries end that have *version*, as far as it can still be read."""
    try:
        rows = await stores.to_catalog.unanswered(
            stores.catalog.get_entries_batch, stores.namespace, keys
        )
    except StoreError:
        return {}
    return {
        row.key: row.expires_at
        for row in rows
        if row.version == version and row.expires_at is not None
    }


async def _abandon(stores: Stores, blob_ids: Sequence[str]) -> None:
    """Give back reservations, if it can be done quickly; the lease does it otherwise."""
    if not blob_ids:
        return
    try:
        async with asyncio.timeout(ABANDON_TIMEOUT_S):
            await stores.catalog.abandon_blobs(stores.namespace, blob_ids, grace_us=LEASE_US)
    except (StoreError, TimeoutError) as exc:
        logger.debug("left %d reservations to their lease: %s", len(blob_ids), exc)


def stored_result(stores: Stores, draft: Draft, stored: Stored) -> StoreResult:
    blob_id = stored.blob_ids.get(draft.key) or stored.renewed.get(draft.key)
    ends = stored.written.expires_at.get(draft.key)
    uploaded = draft.key in stored.blob_ids
    same = draft.key in stored.renewed or draft.key in stored.written.unchanged
    return StoreResult(
        key=draft.key,
        content_hash=draft.content_hash,
        byte_size=draft.byte_size,
        inlined=draft.byte_size < stores.inline_threshold,
        storage_uri=blob_id and stores.blobs.uri(blob_path(stores.namespace, blob_id)),
        deduplicated=same and not uploaded,
        version=stored.written.version,
        expires_at=None if ends is None else to_datetime(ends),
        stored=True,
    )


async def touch(stores: Stores, key: str, expiry: Expiry, metadata: str | None) -> Row | None:
    write_id = os.urandom(16).hex()
    try:
        return await stores.to_catalog.refused(
            stores.catalog.touch_entry,
            stores.namespace,
            key,
            expiry=expiry,
            metadata=metadata,
            write_id=write_id,
        )
    except OutcomeUnknownError as exc:
        lost = exc
    try:
        resolved = await stores.to_catalog.unanswered(
            stores.catalog.resolve_write,
            stores.namespace,
            write_id,
            keys=[key],
            blob_ids=[],
            grace_us=LEASE_US,
        )
        row = await stores.to_catalog.unanswered(stores.catalog.get_entry, stores.namespace, key)
    except StoreError as exc:
        raise lost from exc
    if row is None or row.version != resolved.version:
        raise lost
    return row


class Removal(NamedTuple):
    """What one transaction removed."""

    removed: Sequence[Removed]
    unclear: OutcomeUnknownError | None = None
    """Why it cannot be told of the keys beside those whether they had an entry; none has now."""


async def remove(stores: Stores, keys: Sequence[str], if_version: int | None) -> Removal:
    """Delete rows; their blobs are dead from then on."""
    write_id = os.urandom(16).hex()
    try:
        removed = await stores.to_catalog.refused(
            stores.catalog.delete_entries_batch,
            stores.namespace,
            keys,
            write_id=write_id,
            if_version=if_version,
        )
        return Removal(removed)
    except OutcomeUnknownError as exc:
        lost = exc
    try:
        gone = await stores.to_catalog.unanswered(
            stores.catalog.resolve_removal, stores.namespace, write_id, keys
        )
    except StoreError as exc:
        raise lost from exc
    if not gone:
        raise lost  # nothing was there to remove, or it never arrived, or it may yet
    # Their blobs are left to a collection.
    return Removal([Removed(key, True, None) for key in gone], lost)
