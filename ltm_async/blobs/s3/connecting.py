"""A client for the running loop, made in a thread: neither its import nor its files block."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from ...errors import MissingDriverError
from .options import Options

if TYPE_CHECKING:
    from .driver import Driver
    from .requests import Requests


class Connection:
    """What can be asked of S3, by one client and its connections, while it is entered.

    No generator: asyncio closes all of those at once when a loop ends, the outer ones while the
    inner ones are still at it.
    """

    def __init__(self, options: Options) -> None:
        self._options = options

    async def __aenter__(self) -> Requests:
        driver = await asyncio.to_thread(_load, self._options)
        self._sender = driver.sender()
        try:
            return await driver.requests(self._sender)
        except BaseException:
            await self._sender.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._sender.close()


def _load(options: Options) -> Driver:
    """Import what takes a quarter of a second, and make what takes another tenth."""
    try:
        from .driver import Driver
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="S3BlobStore", extra="s3") from exc
    return Driver(options)
