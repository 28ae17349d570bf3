"""diskcache, and cashews on top of it: pickles in SQLite, large ones in files beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from cashews import Cache as Cashews
from diskcache import Cache

from bench.sides import Entries

FULL_SYNC = 2


class DiskCache:
    """In a thread, as a program of asyncio has to call it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def store_batch(self, entries: Entries) -> None:
        await asyncio.to_thread(self._store_batch, entries)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return await asyncio.to_thread(self._retrieve_batch, keys)

    async def store(self, key: str, value: Any) -> None:
        await asyncio.to_thread(self._cache.set, key, value)

    async def retrieve(self, key: str) -> Any:
        return await asyncio.to_thread(self._cache.get, key)

    def _store_batch(self, entries: Entries) -> None:
        with self._cache.transact():
            for entry in entries:
                self._cache.set(entry["key"], entry["value"])

    def _retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        with self._cache.transact():
            return {key: self._cache.get(key) for key in keys}


class CashewsDisk:
    def __init__(self, cache: Cashews) -> None:
        self._cache = cache

    async def store_batch(self, entries: Entries) -> None:
        await self._cache.set_many({entry["key"]: entry["value"] for entry in entries})

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return dict(zip(keys, await self._cache.get_many(*keys), strict=True))

    async def store(self, key: str, value: Any) -> None:
        await self._cache.set(key, value)

    async def retrieve(self, key: str) -> Any:
        return await self._cache.get(key)


@contextlib.asynccontextmanager
async def open_diskcache(folder: str) -> AsyncIterator[DiskCache]:
    options = {"eviction_policy": "none", "sqlite_synchronous": FULL_SYNC}
    with Cache(f"{folder}/diskcache", **options) as cache:
        yield DiskCache(cache)


@contextlib.asynccontextmanager
async def open_diskcache_as_it_comes(folder: str) -> AsyncIterator[DiskCache]:
    with Cache(f"{folder}/diskcache-as-it-comes", eviction_policy="none") as cache:
        yield DiskCache(cache)


@contextlib.asynccontextmanager
async def open_cashews(folder: str) -> AsyncIterator[CashewsDisk]:
    cache = Cashews()
    cache.setup(f"disk://?directory={folder}/cashews&shards=0&eviction_policy=none")
    await cache.init()
    yield CashewsDisk(cache)
    await cache.close()
