"""Hashing and the like without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .entry import hash_of

T = TypeVar("T")

ON_LOOP_BYTES = 1024 * 1024
"""Up to this size hashing takes less than a millisecond; a thread would cost as much."""


async def content_hash(data: bytes) -> str:
    return await off_loop(partial(hash_of, data), len(data))  # hashlib lets other threads run


async def off_loop(work: Callable[[], T], byte_size: int) -> T:
    """What *work* gives, in a thread where there are many bytes."""
    if byte_size <= ON_LOOP_BYTES:
        return work()
    try:
        return await asyncio.to_thread(work)
    except RuntimeError:  # the interpreter is on its way out and starts no thread any more
        return work()
