"""A state with everything in it: entries of every kind, and blobs at every stage of their life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ... import LTMBackend
from ...entry import blob_path, compute_content_hash, encode
from ...protocols import Catalog, Reservation
from ...stores import LEASE_US
from ..clock import ManualClock
from .places import Pair

NAMESPACE = "crash"
NEIGHBOUR = "neighbour"
"""Another namespace of the same stores, which no operation may touch."""


def small(name: str) -> Any:
    return {"is": name}


def large(name: str) -> Any:
    return {"is": name, "filler": [name] * 400}


class Entry(NamedTuple):
    """A live entry as a reader sees it."""

    value: Any
    metadata: Mapping[str, Any] | None = {}
    """None for whatever there is."""
    ttl_s: int | None = None
    """From the start of the operation, so only for what it writes."""


BEFORE: Mapping[str, Entry] = {
    "large": Entry(large("new"), {"old": True}),
    "list": Entry([large("first")]),
    "other large": Entry(large("other")),
    "other small": Entry(small("other")),
    "small": Entry(small("old")),
}
"""The live entries that every operation finds."""
EXPIRED = frozenset({"ended large", "ended small"})
"""The keys of expired rows that no cleanup has removed yet."""


class State(NamedTuple):
    """What readers can see, and which keys have a row."""

    entries: Mapping[str, Entry]
    keys: frozenset[str]


FOUND = State(BEFORE, EXPIRED.union(BEFORE))


class Blob(NamedTuple):
    """A blob of the prepared state that no row names."""

    blob_id: str
    data: bytes

    @classmethod
    def of(cls, name: str) -> Blob:
        value = large(name)
        blob_id = f"{compute_content_hash(value)[7:23]}-{'0' * 32}"
        return cls(blob_id, encode("value", value).encode())

    @property
    def path(self) -> str:
        return blob_path(NAMESPACE, self.blob_id)


KILLED_WRITERS = Blob.of("killed writer")
"""Uploaded under a lease that has ended."""
RUNNING_WRITERS = Blob.of("running writer")
"""Uploaded under a lease that has not ended: nobody may touch it."""
STRAY = Blob.of("stray")
"""Known to no ledger: its upload landed after its reservation was forgotten."""


async def prepare(pair: Pair, clock: ManualClock) -> None:
    """Fill *pair* with ``FOUND`` and every kind of blob, and let *clock* run past their ends."""
    async with pair.opened(clock) as (catalog, blobs):
        ltm = LTMBackend(catalog, blobs, namespace=NAMESPACE, on_unavailable="raise")
        await ltm.store("large", large("old"))
        for key, entry in BEFORE.items():  # over "large": its first blob is dead from here on
            await ltm.store(key, entry.value, metadata=entry.metadata)
        await ltm.store("ended large", large("ended"), ttl=60)
        await ltm.store("ended small", small("ended"), ttl=60)
        await _reserve(catalog, KILLED_WRITERS)
        for blob in (KILLED_WRITERS, STRAY):
            await blobs.put(blob.path, blob.data)
        neighbour = LTMBackend(catalog, blobs, namespace=NEIGHBOUR, on_unavailable="raise")
        await neighbour.store("large", large("neighbour"))
        await neighbour.store("large", large("neighbour's newer"), ttl=60)
        clock.advance(3600)
        await _reserve(catalog, RUNNING_WRITERS)
        await blobs.put(RUNNING_WRITERS.path, RUNNING_WRITERS.data)


async def _reserve(catalog: Catalog, blob: Blob) -> None:
    content_hash = compute_content_hash(large("any"))
    reservation = Reservation(blob.blob_id, "reserved", content_hash, len(blob.data))
    await catalog.reserve_blobs(NAMESPACE, [reservation], lease_us=LEASE_US)
