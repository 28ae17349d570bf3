"""Crash points of a catalog or a blob store of one's own, as tests to subclass."""

from __future__ import annotations

import pytest

from ..faults import Mode
from ..hiding import refuse_hidden
from .operations import OPERATIONS, Operation
from .places import BlobPlace, CatalogPlace, MemoryBlobPlace, MemoryCatalogPlace, Pair
from .points import IN_PROCESS, PreparedEachTime, stop_at_each


class CrashPointContract:
    """Subclass it, and give it the place of what you have written::

        class MyPlace(CatalogPlace):
            def __init__(self, path):
                self.path = path

            def open(self, clock):
                return MyCatalog(self.path, clock=clock)

            async def look(self):
                return rows_in(self.path), ledger_in(self.path)  # around MyCatalog


        class TestCrashPoints(CrashPointContract):
            @pytest.fixture(autouse=True)
            def folder(self, tmp_path):
                self.paths = (str(tmp_path / f"{n}.db") for n in itertools.count())

            def new_catalog_place(self):
                return MyPlace(next(self.paths))

    Every operation of the backend is stopped at each of its steps, and after each a fresh backend
    must find what the caller may expect; see :mod:`ltm_async.testing.crashing.recovery`.
    A step is a call of the catalog or of the blob store: it is refused, loses its request or its
    reply, arrives late, is cancelled before or after, or is the first of those that are refused.
    Processes are not killed.
    """

    def __init_subclass__(cls) -> None:
        refuse_hidden(cls)
        super().__init_subclass__()

    def new_catalog_place(self) -> CatalogPlace:
        """An empty one, asked for once in each run: up to some dozen times a test."""
        return MemoryCatalogPlace()

    def new_blob_place(self) -> BlobPlace:
        return MemoryBlobPlace()

    @pytest.mark.parametrize("mode", IN_PROCESS, ids=lambda mode: mode.value)
    @pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
    async def test_an_operation_stopped_at_any_step_leaves_the_old_or_the_new(
        self, operation: Operation, mode: Mode
    ) -> None:
        scene = PreparedEachTime(lambda: Pair(self.new_catalog_place(), self.new_blob_place()))
        assert await stop_at_each(scene, operation, [mode]) == []
