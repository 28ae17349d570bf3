"""A client for the running loop, made in a thread: neither its import nor its files block."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...errors import MissingDriverError
from ...worker import aside
from .options import Options

if TYPE_CHECKING:
    from .driver import Driver
    from .requests import Requests


async def connect(options: Options) -> Requests:
    driver = await aside(partial(_load, options))
    sender = driver.sender()
    try:
        return await driver.requests(sender)
    except BaseException:
        await sender.close()
        raise


async def close(requests: Requests) -> None:
    await requests.aclose()


def _load(options: Options) -> Driver:
    """Import what takes a quarter of a second, and make what takes another tenth."""
    try:
        from .driver import Driver
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="S3BlobStore", extra="s3") from exc
    return Driver(options)
