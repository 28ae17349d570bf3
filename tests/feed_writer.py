"""A process that writes until it is killed: ``python -m tests.feed_writer '{"type": …}'``."""

from __future__ import annotations

import asyncio
import json
import sys

from ltm_async import LTMBackend, RetryPolicy

KEYS = [f"key {number:02}" for number in range(40)]


async def write(catalog: dict[str, object]) -> None:
    retry = RetryPolicy(attempts=20)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise", timeout=None, retry=retry)
    turn = 0
    while True:
        turn += 1
        batch = [{"key": key, "value": f"killed {turn}"} for key in KEYS[turn % 7 :: 3]]
        await ltm.store_batch(batch)
        await ltm.delete_batch(KEYS[turn % 11 :: 5])
        await ltm.store(f"killed {turn}", turn)
        sys.stdout.write("wrote\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(json.loads(sys.argv[1])))
