"""Backends for tests: every pair of stores we have, with a clock that moves when told."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from ltm_async import (
    FirestoreCatalog,
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

from . import azure_stores, places
from .s3_stores import store_on
from .servers.firestore import new_project

EMBEDDED_PAIRS = ("sqlite+local", "sqlite memory+memory", "memory+memory")
PAIRS = (
    *EMBEDDED_PAIRS,
    "postgres+local",
    "postgres+s3",
    "supabase+local",
    "firestore+gcs",
    "sqlite+azure",
)
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
    of_catalog, of_blobs = pair.split("+")
    clock = _clock(of_catalog)
    catalog = _catalog(of_catalog, folder, clock)
    blobs = _blob_store(of_blobs, folder, clock)
    faults = faults or Faults()
    options = {"on_unavailable": "raise", "retry": QUICK, **options}
    ltm = LTMBackend(faulty_catalog(catalog, faults), faulty_blob_store(blobs, faults), **options)
    return Rig(ltm, catalog, blobs, clock, faults)


def _clock(of_catalog: str) -> ManualClock:
    match of_catalog:
        case "postgres":
            return places.database().clock_at(None)
        case "supabase":
            return places.project().clock_at(None)
    return ManualClock()


def _catalog(name: str, folder: pathlib.Path, clock: ManualClock) -> Catalog:
    match name:
        case "sqlite":
            return SQLiteCatalog(str(folder / "ltm.db"), clock=clock)
        case "sqlite memory":
            return SQLiteCatalog(":memory:", clock=clock)
        case "memory":
            return MemoryCatalog(clock=clock)
        case "postgres":
            return PostgresCatalog(places.database().dsn, schema=places.database().schema)
        case "supabase":
            return places.project().catalog()
        case "firestore":
            return FirestoreCatalog(new_project(), clock=lambda _: clock())
    raise ValueError(name)


def _blob_store(name: str, folder: pathlib.Path, clock: ManualClock) -> BlobStore:
    match name:
        case "local":
            return LocalBlobStore(folder / "blobs")
        case "memory":
            return MemoryBlobStore(clock=clock)
        case "s3":
            return store_on(places.s3())
        case "azure":
            return azure_stores.store_on(places.azure())
        case "gcs":
            server = places.gcs()
            server.clock = clock
            return GCSBlobStore(f"gs://{server.new_bucket()}/", endpoint_url=server.endpoint_url)
    raise ValueError(name)
