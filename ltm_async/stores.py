"""What the operations of one backend work on: its two stores, its namespace, its limits."""

from __future__ import annotations

import dataclasses

from .protocols import BlobStore, Catalog
from .retry import RetryPolicy
from .transfer import Gate, PerLoop

LEASE_US = 10 * 60 * 1_000_000
"""How long a reservation holds: beyond any call's deadline, so that only a stalled writer,
or a killed one, loses it. An abandoned blob stays as long, for a late upload to land first."""
COLLECT_BACKOFF_US = 60 * 1_000_000
"""How long a collector has to delete what it took before another tries."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    catalog: Catalog
    blobs: BlobStore
    namespace: str
    retry: RetryPolicy
    inline_threshold: int
    batch_size: int
    max_concurrency: int
    gates: PerLoop[Gate]
