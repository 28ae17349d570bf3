"""Where a catalog and a blob store keep what outlives the objects, and looks at it around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from ...blobs.memory import MemoryBlobStore
from ...catalogs.memory import MemoryCatalog
from ...protocols import BlobStore, Catalog
from ..clock import ManualClock


class RawRow(NamedTuple):
    """An entry as it lies in the catalog, expired or not."""

    namespace: str
    key: str
    version: int
    content_hash: str
    byte_size: int
    inlined_value: str | None
    blob_id: str | None
    expires_at: int | None


class RawBlob(NamedTuple):
    """A row of the blob ledger as it lies in the catalog."""

    namespace: str
    blob_id: str
    key: str
    state: str
    byte_size: int
    due_at: int | None


class CatalogPlace(Protocol):
    """A catalog's rows, whatever objects were made to reach them."""

    def clock_at(self, instant_us: int) -> ManualClock:
        """The clock of what is opened here, set to an instant."""
        clock = ManualClock()
        clock.advance((instant_us - clock()) / 1e6)
        return clock

    def open(self, clock: ManualClock) -> Catalog:
        """A new object that knows nothing of those before."""
        ...

    async def close(self, catalog: Catalog) -> None:
        """End what ``open`` gave."""
        await catalog.aclose()

    async def look(self) -> tuple[Sequence[RawRow], Sequence[RawBlob]]:
        """All rows and the whole ledger, of all namespaces, read around the adapter."""
        ...


class BlobPlace(Protocol):
    """A blob store's objects, whatever objects were made to reach them."""

    def open(self, clock: ManualClock) -> BlobStore: ...

    async def close(self, blobs: BlobStore) -> None:
        await blobs.aclose()

    async def look(self) -> Mapping[str, bytes]:
        """All objects by path, of all namespaces, read around the adapter."""
        ...


class Pair(NamedTuple):
    """A catalog and a blob store that belong together."""

    catalog: CatalogPlace
    blobs: BlobPlace

    @contextlib.asynccontextmanager
    async def opened(self, clock: ManualClock) -> AsyncIterator[tuple[Catalog, BlobStore]]:
        catalog = self.catalog.open(clock)
        blobs = self.blobs.open(clock)
        try:
            yield catalog, blobs
        finally:
            await self.blobs.close(blobs)
            await self.catalog.close(catalog)


class MemoryCatalogPlace(CatalogPlace):
    """Rows that live on from one backend to the next, since the catalog does.

    Args:
        make: A class that keeps them as ``MemoryCatalog`` does.
    """

    def __init__(self, make: Callable[..., MemoryCatalog] = MemoryCatalog) -> None:
        self._clock = ManualClock()
        self.catalog = make(clock=self._now)

    def open(self, clock: ManualClock) -> Catalog:
        self._clock = clock
        return self.catalog

    async def close(self, catalog: Catalog) -> None:
        """Nothing: what is closed would be lost."""

    async def look(self) -> tuple[Sequence[RawRow], Sequence[RawBlob]]:
        spaces = self.catalog._spaces.items()
        rows = [
            RawRow(name, key, row.version, *row[2:6], row.expires_at)
            for name, space in spaces
            for key, row in space.rows.items()
        ]
        ledger = [
            RawBlob(name, blob_id, blob.key, blob.state, blob.byte_size, blob.due_at)
            for name, space in spaces
            for blob_id, blob in space.blobs.items()
        ]
        return rows, ledger

    def _now(self) -> int:
        return self._clock()


class MemoryBlobPlace(BlobPlace):
    """Objects that live on from one backend to the next."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        self.blobs = MemoryBlobStore(clock=self._now)

    def open(self, clock: ManualClock) -> BlobStore:
        self._clock = clock
        return self.blobs

    async def close(self, blobs: BlobStore) -> None:
        """Nothing: what is closed would be lost."""

    async def look(self) -> Mapping[str, bytes]:
        return {path: data for path, (data, _) in self.blobs._objects.items()}

    def _now(self) -> int:
        return self._clock()
