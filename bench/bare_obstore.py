"""The same work by hand: obstore's own calls, with as many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

import obstore

AT_ONCE = 50


class BareObstore:
    """Creates and reads whole objects; nothing is verified, and nothing bounded in time.

    Args:
        store: One of obstore's.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, objects: Mapping[str, bytes]) -> None:
        await at_once(self._put(name, data) for name, data in objects.items())

    async def get(self, names: Iterable[str]) -> list[bytes]:
        return await at_once(map(self._get, names))

    async def _put(self, name: str, data: bytes) -> None:
        await obstore.put_async(self._store, f"bare/{name}", data, mode="create")

    async def _get(self, name: str) -> bytes:
        reply = await obstore.get_async(self._store, f"bare/{name}")
        return bytes(await reply.bytes_async())


async def at_once(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """What *calls* give, a number of them side by side."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[Any]) -> Any:
        async with gate:
            return await call

    return await asyncio.gather(*map(one, calls))
