"""SupabaseCatalog on a real PostgREST: its contract, its requests, its limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async.protocols import Catalog
from ltm_async.testing import CatalogContract

from .projects import Project


class TestSupabaseCatalog(CatalogContract):
    """As a user, under row-level security."""

    @pytest.fixture
    async def catalog(self, project: Project) -> AsyncIterator[Catalog]:
        self.project = project
        self.clock = project.clock_at(None)
        catalog = project.catalog()
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return self._select("SELECT key, inlined_value FROM {}ltm_entries", namespace)

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return self._select("SELECT blob_id, state FROM {}ltm_blobs", namespace)

    def _select(self, query: str, namespace: str) -> dict[str, Any]:
        return dict(self.project.rows(f"{query} WHERE namespace = $1", namespace))
