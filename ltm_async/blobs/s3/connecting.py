"""A client for the running loop, made in a thread: neither its import nor its files block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ...errors import MissingDriverError
from .options import Options

if TYPE_CHECKING:
    from .driver import Driver
    from .requests import Requests


@contextlib.asynccontextmanager
async def connected(options: Options) -> AsyncIterator[Requests]:
    """What can be asked of S3, by one client with its connections."""
    driver = await asyncio.to_thread(_load, options)
    async with driver.requests() as requests:
        yield requests


def _load(options: Options) -> Driver:
    """Import what takes a quarter of a second, and make what takes another tenth."""
    try:
        from .driver import Driver
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="S3BlobStore", extra="s3") from exc
    return Driver(options)
