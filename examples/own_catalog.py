"""A catalog of one's own; its tests are a subclass of ltm_async.testing.CatalogContract."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Sequence

from ltm_async import LTMBackend, MemoryBlobStore, MemoryCatalog
from ltm_async.clock import system_clock
from ltm_async.protocols import Row, Write, Written


class CountingCatalog(MemoryCatalog):
    def __init__(self, *, clock: Callable[[], int] = system_clock) -> None:
        super().__init__(clock=clock)
        self.calls: collections.Counter[str] = collections.Counter()

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        self.calls["commits"] += 1
        return await super().track_entries_batch(namespace, writes, write_id=write_id)

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        self.calls["reads"] += 1
        return await super().get_entries_batch(namespace, keys)


async def main() -> None:
    catalog = CountingCatalog()
    async with LTMBackend(catalog, MemoryBlobStore()) as ltm:
        await ltm.store_batch({"key": str(n), "value": n} for n in range(1000))
        await ltm.retrieve_batch(str(n) for n in range(1000))
    print(dict(catalog.calls))


if __name__ == "__main__":
    asyncio.run(main())
