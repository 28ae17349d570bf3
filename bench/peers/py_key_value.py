"""py-key-value's stores: ``put_many`` and ``get_many``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from diskcache import Cache
from key_value.aio.stores.disk import DiskStore
from key_value.aio.stores.postgresql import PostgreSQLStore
from key_value.aio.stores.s3 import S3Store

from bench.sides import Entries
from tests.servers.ministack import MiniStack

AT_ONCE = 50
FULL_SYNC = 2


class KeyValueStore:
    def __init__(self, store: Any) -> None:
        self._store = store

    async def store_batch(self, entries: Entries) -> None:
        await self._store.put_many(
            [entry["key"] for entry in entries], [entry["value"] for entry in entries]
        )

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        found = await self._store.get_many(list(keys))
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    async def store(self, key: str, value: Any) -> None:
        await self._store.put(key, value)

    async def retrieve(self, key: str) -> Any:
        return await self._store.get(key)


@contextlib.asynccontextmanager
async def open_postgres(dsn: str) -> AsyncIterator[KeyValueStore]:
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=10, ssl=False) as pool,
        PostgreSQLStore(pool=pool) as store,
    ):
        yield KeyValueStore(store)


@contextlib.asynccontextmanager
async def open_disk(folder: str) -> AsyncIterator[KeyValueStore]:
    cache = Cache(f"{folder}/key-value", eviction_policy="none", sqlite_synchronous=FULL_SYNC)
    async with DiskStore(disk_cache=cache) as store:
        yield KeyValueStore(store)
    cache.close()


@contextlib.asynccontextmanager
async def open_s3(server: MiniStack) -> AsyncIterator[KeyValueStore]:
    async with (
        get_session().create_client(
            "s3",
            endpoint_url=server.endpoint_url,
            region_name=server.region,
            aws_access_key_id=server.key.access_key_id,
            aws_secret_access_key=server.key.secret_access_key,
            config=AioConfig(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"}),
        ) as client,
        S3Store(client=client, bucket_name=server.new_bucket()) as store,
    ):
        yield KeyValueStore(store)
