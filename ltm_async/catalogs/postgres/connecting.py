"""Connections for the running loop, whose driver is imported beside it: that takes 25 ms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import MissingDriverError
from ...worker import aside
from .options import PoolKey

if TYPE_CHECKING:
    from types import ModuleType

    from .pool import Connections


async def connect(key: PoolKey) -> Connections:
    pool = await aside(_load)
    connections: Connections = pool.Connections(await pool.open_pool(key))
    return connections


async def close(connections: Connections) -> None:
    await connections.aclose()


def _load() -> ModuleType:
    try:
        from . import pool
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="PostgresCatalog", extra="postgres") from exc
    return pool
