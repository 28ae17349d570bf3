"""TLS as every connection of ours uses it: the server's certificate and name are verified."""

from __future__ import annotations

import functools
import ssl

from .worker import aside


@functools.cache
def _default_context() -> ssl.SSLContext:
    return ssl.create_default_context()


async def default_context() -> ssl.SSLContext:
    """The context that all connections share: reading the system's certificates takes 20 ms."""
    return await aside(_default_context)
