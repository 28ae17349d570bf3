"""Entries that end by themselves, and the cleanup that removes them with their blobs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from ltm_async import LTMBackend


async def main() -> None:
    async with LTMBackend("sqlite:///memory.db", "./blobs") as ltm:
        await ltm.store("session", {"cart": []}, ttl=0.3)  # seconds
        await ltm.store("draft", "long text " * 1000, ttl=timedelta(milliseconds=300))
        await ltm.store("offer", "for now", expires_at=datetime.now(UTC) + timedelta(days=90))
        await ltm.store("name", "Ada")  # for ever

        # A new time for an entry, counted from now; its value stays as it is.
        kept = await ltm.touch("session", ttl=timedelta(hours=1))
        print("session touched:", kept.touched)

        # The catalog's clock decides, the same for every process that uses it.
        await asyncio.sleep(0.4)
        found = await ltm.retrieve_batch(["session", "draft", "offer", "name"])
        print("found:", sorted(found.results), "missing:", found.missing)

        # Nothing returns an expired entry; a cleanup now and then makes room.
        print("waiting for a cleanup:", (await ltm.stats()).expired)
        cleaned = await ltm.cleanup_expired(limit=100)
        print("entries removed:", cleaned.deleted, "blobs deleted:", cleaned.blobs_deleted)


asyncio.run(main())
