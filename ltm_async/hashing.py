"""Hashing without holding up the event loop."""

from __future__ import annotations

import asyncio

from .entry import hash_of

ON_LOOP_BYTES = 1024 * 1024
"""Up to this size hashing takes less than a millisecond; a thread would cost as much."""


async def content_hash(data: bytes) -> str:
    if len(data) <= ON_LOOP_BYTES:
        return hash_of(data)
    try:
        return await asyncio.to_thread(hash_of, data)  # hashlib lets other threads run meanwhile
    except RuntimeError:  # the interpreter is on its way out and starts no thread any more
        return hash_of(data)
