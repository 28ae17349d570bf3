"""Calls with many entries: cut into batches, each reported key by key, none raising."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from . import collecting, reading, telemetry, writing
from .deadline import Deadline
from .drafting import Draft
from .errors import StoreError
from .results import (
    DeleteBatchResult,
    Failure,
    RetrieveBatchResult,
    RetrieveResult,
    StoreBatchResult,
)
from .stores import Stores
from .transfer import chunks

T = TypeVar("T")

TEXT_GROWTH = 16
MAX_TEXT = 400_000
"""What an index of short words takes of their bytes, and what one of long words takes."""
VECTOR_GROWTH = 6
"""What a vector takes as decimal digits, of its bytes."""
ROW_OVERHEAD = 2_000


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class Failures:
    """Why keys failed so far, and the first failure as it was."""

    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    first: StoreError | None = None

    def add(self, keys: Iterable[str], exc: StoreError) -> None:
        self.errors.update(dict.fromkeys(keys, Failure.of(exc)))
        self.first = self.first or exc


async def store_batch(
    stores: Stores, drafts: Sequence[Draft], timeout_s: float | None
) -> StoreBatchResult:
    versions: dict[str, int | None] = {}
    inlined = uploaded = deduplicated = byte_size = 0

    async def store(batch: Sequence[Draft]) -> None:
        nonlocal inlined, uploaded, deduplicated, byte_size
        try:
            stored = await writing.write_batch(stores, batch)
        finally:
            for draft in batch:
                draft.text = None  # its turn is over
        versions.update(dict.fromkeys([draft.key for draft in batch], stored.written.version))
        inlined += sum(draft.byte_size < stores.inline_threshold for draft in batch)
        uploaded += len(stored.blob_ids)
        deduplicated += len({*stored.written.unchanged, *stored.renewed} - {*stored.blob_ids})
        byte_size += sum(draft.byte_size for draft in batch)

    batches = cut(
        drafts,
        count=stores.batch_size,
        size=getattr(stores.catalog, "batch_bytes", None),
        size_of=lambda draft: _row_bytes(draft, stores),
    )
    failures = await _in_batches(batches, timeout_s, lambda draft: draft.key, store)
    return StoreBatchResult(
        versions=versions,
        errors=failures.errors,
        inlined=inlined,
        uploaded=uploaded,
        deduplicated=deduplicated,
        byte_size=byte_size,
        exception=failures.first,
    )


async def retrieve_batch(
    stores: Stores, keys: Sequence[str], timeout_s: float | None
) -> RetrieveBatchResult:
    results: dict[str, RetrieveResult] = {}
    missing: list[str] = []
    damaged = Failures()

    async def retrieve(batch: Sequence[str]) -> None:
        read = await reading.read_batch(stores, batch)
        found, errors = read.results, read.errors
        for key in batch:
            if key in found:
                results[key] = found[key]
            elif key in errors:
                damaged.add([key], errors[key])
            else:
                missing.append(key)

    batches = chunks(keys, stores.batch_size)
    failures = await _in_batches(batches, timeout_s, str, retrieve)
    telemetry.looked_up(found=len(results), missing=len(missing))
    return RetrieveBatchResult(
        results=results,
        missing=missing,
        errors=damaged.errors | failures.errors,
        exception=failures.first or damaged.first,
    )


async def delete_batch(
    stores: Stores, keys: Sequence[str], timeout_s: float | None
) -> DeleteBatchResult:
    deleted = 0
    missing: list[str] = []
    unclear = Failures()

    async def delete(batch: Sequence[str]) -> None:
        nonlocal deleted
        done = await collecting.delete_entries(stores, batch, None)
        deleted += len(done.live)
        others = [key for key in batch if key not in done.live]
        if done.unclear is None:
            missing.extend(others)
        elif others:
            unclear.add(others, done.unclear)

    batches = chunks(keys, stores.batch_size)
    failures = await _in_batches(batches, timeout_s, str, delete)
    return DeleteBatchResult(
        deleted=deleted,
        missing=missing,
        errors=unclear.errors | failures.errors,
        exception=failures.first or unclear.first,
    )


def cut(
    items: Sequence[T], *, count: int, size: int | None, size_of: Callable[[T], int]
) -> Iterable[Sequence[T]]:
    """*items* in batches of at most *count*, whose sizes make up at most *size*.

    One that is larger by itself is a batch by itself, for the store to refuse.
    """
    if size is None:
        yield from chunks(items, count)
        return
    start = total = 0
    for place, item in enumerate(items):
        item_size = size_of(item)
        if place > start and (place - start == count or total + item_size > size):
            yield items[start:place]
            start, total = place, 0
        total += item_size
    if start < len(items):
        yield items[start:]


def _row_bytes(draft: Draft, stores: Stores) -> int:
    """What a row takes at most, its fields' names, its hashes, its text and its vector included."""
    size = draft.byte_size
    value = stores.values.inlined_bytes(size) if size < stores.inline_threshold else 0
    text = min(TEXT_GROWTH * draft.byte_size, MAX_TEXT) if stores.index_text else 0
    vector = 0 if stores.embedder is None else VECTOR_GROWTH * stores.embedder.vector_bytes
    return value + text + vector + len(draft.metadata) + 4 * len(draft.key) + ROW_OVERHEAD


async def _in_batches(
    batches: Iterable[Sequence[T]],
    timeout_s: float | None,
    key_of: Callable[[T], str],
    work: Callable[[Sequence[T]], Awaitable[None]],
) -> Failures:
    """Do *work* batch by batch; a batch that fails does not keep the next from being tried."""
    failures = Failures()
    began = asyncio.get_running_loop().time()
    for batch in batches:
        try:
            async with Deadline(timeout_s, since=began):
                await work(batch)
        except StoreError as exc:
            failures.add(map(key_of, batch), exc)
    return failures
