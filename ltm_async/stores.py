"""What the operations of one backend work on: its two stores, its namespace, its limits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .calling import Caller
from .frozen import Frozen, frozen
from .protocols import BlobStore, Catalog
from .transfer import Gate, PerLoop
from .values import Values

if TYPE_CHECKING:
    from .embedding import Embedder

LEASE_US = 10 * 60 * 1_000_000
"""How long a reservation holds: beyond any call's deadline, so that only a stalled writer,
or a killed one, loses it. An abandoned blob stays as long, for a late upload to land first."""
COLLECT_BACKOFF_US = 60 * 1_000_000
"""How long a collector has to delete what it took before another tries."""


class Damaged:
    """Keys whose blob this process found missing or changed.

    Storing the same content again would otherwise find it there already, and never heal it.
    """

    LIMIT = 10_000

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}

    def add(self, key: str) -> None:
        if len(self._keys) == self.LIMIT:
            self._keys.clear()
        self._keys[key] = None

    def discard(self, key: str) -> None:
        self._keys.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._keys


@frozen
class Stores(Frozen):
    """Made once by a backend; all but *damaged* stays as it is."""

    catalog: Catalog
    blobs: BlobStore
    namespace: str
    values: Values
    to_catalog: Caller
    to_blobs: Caller
    inline_threshold: int
    batch_size: int
    index_text: bool
    embedder: Embedder | None
    max_concurrency: int
    gates: PerLoop[Gate]
    damaged: Damaged = dataclasses.field(default_factory=Damaged)
