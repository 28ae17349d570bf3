"""Backends for tests: every pair of stores we have, with a clock that moves when told."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from ltm_async import (
    GCSBlobStore,
    LocalBlobStore,
    LTMBackend,
    MemoryBlobStore,
    MemoryCatalog,
    PostgresCatalog,
    RetryPolicy,
    SQLiteCatalog,
)
from ltm_async.protocols import BlobStore, Catalog
from ltm_async.testing import Faults, ManualClock, faulty_blob_store, faulty_catalog

from . import buckets, databases

EMBEDDED_PAIRS = ("sqlite+local", "sqlite memory+memory", "memory+memory")
PAIRS = (*EMBEDDED_PAIRS, "postgres+local", "sqlite+gcs")
QUICK = RetryPolicy(base_s=0.001, cap_s=0.002, throttled_base_s=0.001)


@dataclasses.dataclass(frozen=True, slots=True)
class Rig:
    """A backend, and what a test needs to look behind it."""

    ltm: LTMBackend
    catalog: Catalog
    blobs: BlobStore
    clock: ManualClock
    faults: Faults

    async def objects(self) -> set[str]:
        """The paths of all objects of the default namespace."""
        from ltm_async.entry import namespace_path

        return {info.path async for info in self.blobs.scan(namespace_path(""))}

    async def aclose(self) -> None:
        await self.ltm.aclose()
        await self.blobs.aclose()
        await self.catalog.aclose()


def make_rig(pair: str, folder: pathlib.Path, faults: Faults | None = None, **options: Any) -> Rig:
    clock = ManualClock()
    catalog: Catalog
    blobs: BlobStore
    if pair == "sqlite+local":
        catalog = SQLiteCatalog(str(folder / "ltm.db"), clock=clock)
        blobs = LocalBlobStore(folder / "blobs")
    elif pair == "sqlite+gcs":
        server = buckets.current()
        server.clock = clock
        catalog = SQLiteCatalog(str(folder / "ltm.db"), clock=clock)
        blobs = GCSBlobStore(f"gs://{server.new_bucket()}/", endpoint_url=server.endpoint_url)
    elif pair == "postgres+local":
        database = databases.current()
        clock = database.clock_at(None)
        catalog = PostgresCatalog(database.dsn, schema=database.schema)
        blobs = LocalBlobStore(folder / "blobs")
    else:
        blobs = MemoryBlobStore(clock=clock)
        catalog = (
            MemoryCatalog(clock=clock)
            if pair == "memory+memory"
            else SQLiteCatalog(":memory:", clock=clock)
        )
    faults = faults or Faults()
    options = {"on_unavailable": "raise", "retry": QUICK, **options}
    ltm = LTMBackend(faulty_catalog(catalog, faults), faulty_blob_store(blobs, faults), **options)
    return Rig(ltm, catalog, blobs, clock, faults)
