"""LangGraph's own stores: all operations of a batch in one ``abatch``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiosqlite
from langgraph.store.base import GetOp, PutOp
from langgraph.store.postgres import AsyncPostgresStore
from langgraph.store.sqlite import AsyncSqliteStore

from bench.sides import Entries

NAMESPACE = ("bench",)


class LangGraphStore:
    def __init__(self, store: Any) -> None:
        self._store = store

    async def store_batch(self, entries: Entries) -> None:
        await self._store.abatch(
            [PutOp(NAMESPACE, entry["key"], entry["value"]) for entry in entries]
        )

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        found = await self._store.abatch([GetOp(NAMESPACE, key) for key in keys])
        return {item.key: item.value for item in found if item is not None}

    async def store(self, key: str, value: Any) -> None:
        await self._store.aput(NAMESPACE, key, value)

    async def retrieve(self, key: str) -> Any:
        return (await self._store.aget(NAMESPACE, key)).value


@contextlib.asynccontextmanager
async def open_postgres(dsn: str) -> AsyncIterator[LangGraphStore]:
    pool = {"min_size": 1, "max_size": 10}
    async with AsyncPostgresStore.from_conn_string(dsn, pool_config=pool) as store:
        await store.setup()
        yield LangGraphStore(store)


@contextlib.asynccontextmanager
async def open_sqlite(folder: str) -> AsyncIterator[LangGraphStore]:
    async with aiosqlite.connect(f"{folder}/langgraph.db", isolation_level=None) as conn:
        await conn.execute("PRAGMA journal_mode = WAL")
        await conn.execute("PRAGMA synchronous = FULL")
        store = AsyncSqliteStore(conn)
        await store.setup()
        yield LangGraphStore(store)
