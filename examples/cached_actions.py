"""Results that are made once, served while they are stale, and refreshed behind the answer."""

from __future__ import annotations

import asyncio
import itertools

from ltm_async import Cache, LTMBackend
from ltm_async.cache import Work

behind: list[Work] = []  # in a web framework its own: background_tasks.add_task in Starlette
count = itertools.count(1)


async def rate(currency: str) -> dict[str, object]:
    return {"currency": currency, "asked": next(count)}


async def main() -> None:
    async with LTMBackend("sqlite:///memory.db", "./blobs") as ltm:
        cache = Cache(ltm, fresh_for=0.2, stale_for=3600, defer=behind.append)
        await cache.invalidate(pattern="cache:__main__.rate:*")

        # Fifty at once ask once, also where they are in several processes.
        calls = [cache.wrap(rate, {"currency": "EUR"}) for _ in range(50)]
        print("all were told:", {told["asked"] for told in await asyncio.gather(*calls)})

        await asyncio.sleep(0.3)
        stale = await cache.wrap(rate, {"currency": "EUR"})
        print("stale, and at once:", stale["asked"], "hit:", stale["_cache_hit"])

        for work in behind:
            await work()
        fresh = await cache.wrap(rate, {"currency": "EUR"})
        print("refreshed behind it:", fresh["asked"], "hit:", fresh["_cache_hit"])


asyncio.run(main())
