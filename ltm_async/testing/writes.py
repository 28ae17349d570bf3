"""What the contracts of catalogs write, and what they ask of a subclass."""

from __future__ import annotations

import itertools

import pytest

from ..entry import NEVER, Expiry, hash_of, new_blob_id
from ..protocols import Catalog, Reservation, Row, Write
from .hiding import refuse_hidden

SPACE = "contract"
SECOND_US = 1_000_000
LEASE_US = 60 * SECOND_US
LARGE = hash_of(b"large")
OTHER = hash_of(b"other")

_numbers = itertools.count()


def new_write_id() -> str:
    return f"{next(_numbers):032x}"


def small(
    key: str,
    text: str = '"v"',
    *,
    metadata: str = "{}",
    expiry: Expiry = NEVER,
    if_version: int | None = None,
) -> Write:
    content_hash = hash_of(text.encode())
    return Write(key, content_hash, len(text), text, None, metadata, expiry, if_version)


def large(
    key: str, blob_id: str | None, *, content_hash: str = LARGE, expiry: Expiry = NEVER
) -> Write:
    """A value kept as a blob; without *blob_id* it renews the one the row has."""
    return Write(key, content_hash, 5, None, blob_id, "{}", expiry)


def reservation(key: str, content_hash: str = LARGE) -> Reservation:
    return Reservation(new_blob_id(content_hash), key, content_hash, 5)


class CatalogTests:
    """A catalog, and ways to look at its store without the adapter.

    Tests of a contract cannot be hidden by a subclass.
    """

    def __init_subclass__(cls) -> None:
        refuse_hidden(cls)
        super().__init_subclass__()

    @pytest.fixture
    def catalog(self) -> Catalog:
        raise NotImplementedError

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        """Let the catalog's clock go on, or its rows grow older by as much."""
        raise NotImplementedError

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        """``{key: inlined_value}`` of all rows, expired ones included."""
        raise NotImplementedError

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        """``{blob_id: state}``."""
        raise NotImplementedError

    async def track(self, catalog: Catalog, *writes: Write) -> int:
        written = await catalog.track_entries_batch(SPACE, writes, write_id=new_write_id())
        assert written.version is not None
        return written.version

    async def store_large(
        self,
        catalog: Catalog,
        key: str,
        *,
        content_hash: str = LARGE,
        expiry: Expiry = NEVER,
    ) -> str:
        blob = reservation(key, content_hash)
        assert await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US) == {}
        write = large(key, blob.blob_id, content_hash=content_hash, expiry=expiry)
        await self.track(catalog, write)
        return blob.blob_id

    async def row(self, catalog: Catalog, key: str) -> Row:
        row = await catalog.get_entry(SPACE, key)
        assert row is not None
        return row
