"""The contract of catalogs, on ours."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from ltm_async import MemoryCatalog, SQLiteCatalog
from ltm_async.protocols import Catalog
from ltm_async.testing import (
    BlobStoreContract,
    CatalogContract,
    ChangesContract,
    CrashPointContract,
    ManualClock,
    SearchContract,
    VectorContract,
)


class TestSQLiteCatalog(CatalogContract, ChangesContract, SearchContract, VectorContract):
    @pytest.fixture
    async def catalog(self, tmp_path: pathlib.Path) -> AsyncIterator[Catalog]:
        self.clock = ManualClock()
        self.path = tmp_path / "ltm.db"
        catalog = SQLiteCatalog(str(self.path), clock=self.clock)
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return self._select("SELECT key, inlined_value FROM ltm_entries", namespace)

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return self._select("SELECT blob_id, state FROM ltm_blobs", namespace)

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        return {*self._select("SELECT key, 1 FROM ltm_vectors", namespace)}

    def _select(self, select: str, namespace: str) -> dict[str, Any]:
        with closing(sqlite3.connect(self.path)) as db:
            return dict(db.execute(f"{select} WHERE namespace = ?", (namespace,)).fetchall())


class TestSQLiteCatalogInMemory(CatalogContract, ChangesContract, SearchContract, VectorContract):
    """One connection for reads and writes."""

    @pytest.fixture
    async def catalog(self) -> AsyncIterator[Catalog]:
        self.clock = ManualClock()
        catalog = SQLiteCatalog(":memory:", clock=self.clock)
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return await self._select(catalog, "SELECT key, inlined_value FROM ltm_entries", namespace)

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return await self._select(catalog, "SELECT blob_id, state FROM ltm_blobs", namespace)

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        return {*await self._select(catalog, "SELECT key, 1 FROM ltm_vectors", namespace)}

    async def _select(self, catalog: Catalog, select: str, namespace: str) -> dict[str, Any]:
        assert isinstance(catalog, SQLiteCatalog)
        return await catalog._read(
            lambda conn, _now: dict(conn.execute(f"{select} WHERE namespace = ?", (namespace,)))
        )


class TestMemoryCatalog(CatalogContract, ChangesContract, SearchContract, VectorContract):
    @pytest.fixture
    async def catalog(self) -> AsyncIterator[Catalog]:
        self.clock = ManualClock()
        catalog = MemoryCatalog(clock=self.clock)
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        assert isinstance(catalog, MemoryCatalog)
        rows = catalog._spaces[namespace].rows if namespace in catalog._spaces else {}
        return {key: row.inlined_value for key, row in rows.items()}

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        assert isinstance(catalog, MemoryCatalog)
        blobs = catalog._spaces[namespace].blobs
        return {blob_id: blob.state for blob_id, blob in blobs.items()}

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        assert isinstance(catalog, MemoryCatalog)
        return {*catalog._spaces[namespace].vectors}


@pytest.mark.parametrize(
    "contract",
    [
        BlobStoreContract,
        CatalogContract,
        ChangesContract,
        CrashPointContract,
        SearchContract,
        VectorContract,
    ],
)
def test_a_subclass_cannot_hide_a_test_of_a_contract(contract: type) -> None:
    tests = [name for base in contract.__mro__ for name in vars(base) if name.startswith("test_")]
    for name in tests:
        with pytest.raises(TypeError, match=f"Mine hides contract tests: .*{name}"):
            type("Mine", (contract,), {name: None})
    assert tests
