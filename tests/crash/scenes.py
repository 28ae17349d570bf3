"""The prepared state on a pair of stores, copied for each run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ltm_async.testing import ManualClock
from ltm_async.testing.crashing import (
    Pair,
    Prepared,
    Scene,
    look_at,
    prepare,
)

from .templates import BlobTemplate, CatalogTemplate, Templates


class CopiedScene(Scene):
    """Copies of two templates, which are filled when this is made."""

    def __init__(self, catalog: CatalogTemplate, blobs: BlobTemplate) -> None:
        self._catalog, self._blobs = catalog, blobs
        clock = catalog.clock()
        asyncio.run(prepare(Pair(catalog.place, blobs.place), clock))
        catalog.keep()
        blobs.keep()
        self._now_us = clock()

    @contextlib.asynccontextmanager
    async def copy(self) -> AsyncIterator[Prepared]:
        pair = Pair(self._catalog.copied(), self._blobs.copied())
        # Versions may be times, so each copy may have its own.
        yield Prepared(pair, self._now_us, await look_at(pair))

    @contextlib.asynccontextmanager
    async def warm(self) -> AsyncIterator[None]:
        """Connections stay open from one run to the next."""
        pair = Pair(self._catalog.warm, self._blobs.warm)
        async with pair.opened(ManualClock()) as (catalog, blobs):
            await catalog.open()
            await blobs.open()
            yield


class Scenes:
    """The scene of each pair, prepared when first asked for."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._made: dict[str, CopiedScene] = {}

    def of(self, pair: str) -> CopiedScene:
        if pair not in self._made:
            self._made[pair] = self._make(pair)
        return self._made[pair]

    def _make(self, pair: str) -> CopiedScene:
        of_catalog, of_blobs = pair.split("+")
        return CopiedScene(self._templates.catalog(of_catalog), self._templates.blobs(of_blobs))


@pytest.fixture(scope="session")
def scenes(templates: Templates) -> Scenes:
    return Scenes(templates)
