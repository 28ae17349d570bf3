"""FirestoreCatalog on Google's emulator: its contract, its requests and its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async import FirestoreCatalog
from ltm_async.protocols import Catalog
from ltm_async.testing import CatalogContract, ManualClock

from .servers.firestore import Firestore, new_project


class TestFirestoreCatalog(CatalogContract):
    @pytest.fixture
    async def catalog(self, firestore_server: Firestore) -> AsyncIterator[Catalog]:
        self.server, self.project, self.clock = firestore_server, new_project(), ManualClock()
        catalog = FirestoreCatalog(self.project, clock=lambda _: self.clock())
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return {
            entry["key"]: entry["inlined_value"]
            for entry in self._documents("ltm_entries")
            if entry["namespace"] == namespace
        }

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return {
            blob["blob_id"]: blob["state"]
            for blob in self._documents("ltm_blobs")
            if blob["namespace"] == namespace
        }

    def _documents(self, collection: str) -> list[dict[str, Any]]:
        return self.server.documents(self.project, collection)
