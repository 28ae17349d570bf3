"""Read, change, write back: again, until no other writer came between."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from .drafting import draft_one, hashed
from .errors import ConflictError
from .reading import read_batch
from .results import StoreResult
from .stores import Stores
from .writing import stored_result, write_batch

WAIT_BASE_S = 0.002
WAIT_CAP_S = 0.2


async def update(
    stores: Stores,
    key: str,
    fn: Callable[[Any], Any | Awaitable[Any]],
    *,
    default: Any,
    metadata: Mapping[str, Any] | None,
    ttl: float | timedelta | None,
    expires_at: datetime | None,
) -> StoreResult:
    tried = 0
    while True:
        now = (await read_batch(stores, [key])).result(key)
        value = fn(now.value if now.found else default)
        if inspect.isawaitable(value):
            value = await value
        keeps_expiry = ttl is None and expires_at is None
        draft = draft_one(
            key,
            value,
            now.metadata if metadata is None else metadata,
            ttl,
            now.expires_at if keeps_expiry else expires_at,
            now.version or 0,
        )
        try:
            return stored_result(stores, draft, await write_batch(stores, [await hashed(draft)]))
        except ConflictError:
            tried += 1
            await asyncio.sleep(random.uniform(0, min(WAIT_CAP_S, WAIT_BASE_S * 2.0**tried)))
