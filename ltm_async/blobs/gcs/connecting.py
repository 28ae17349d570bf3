"""A client for the running loop, which its import and the reading of credentials do not stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ...errors import MissingDriverError
from ...worker import aside
from .options import Options

if TYPE_CHECKING:
    from .client import Client

CLOSE_TIMEOUT_S = 5.0


async def connect(options: Options) -> Client:
    make = await aside(partial(_load, options))
    return make()


async def close(client: Client) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.aclose()


def _load(options: Options) -> Callable[[], Client]:
    """Import what takes a sixth of a second and read the credentials; the rest is for the loop."""
    try:
        from .client import Client
        from .credentials import read_credentials
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="GCSBlobStore", extra="gcs") from exc
    credentials = read_credentials(options) if options.has_google_credentials else None
    return lambda: Client(options, credentials)
