"""TLS as every connection of ours uses it: the server's certificate and name are verified."""

from __future__ import annotations

import asyncio
import functools
import ssl


@functools.cache
def _default_context() -> ssl.SSLContext:
    return ssl.create_default_context()


async def default_context() -> ssl.SSLContext:
    """The context that all connections share: reading the system's certificates takes 20 ms."""
    return await asyncio.to_thread(_default_context)
