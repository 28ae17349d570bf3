"""Code without an event loop, from several threads, on the same backend as async code."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ltm_async import BlockingCallError, LTMBackend, SyncLTMBackend

ltm = LTMBackend("sqlite:///memory.db", "./blobs")
blocking = SyncLTMBackend.from_backend(ltm)


def remember(number: int) -> bool:
    stored = blocking.store(f"order:{number}", {"number": number, "open": True}, ttl=86_400)
    return bool(stored["stored"])  # the results are plain dicts


async def read() -> None:
    hit = await ltm.retrieve("order:7")  # async code sees the same
    print("from async code:", hit.value)
    try:
        blocking.retrieve("order:7")
    except BlockingCallError as exc:
        print("refused:", str(exc).partition(":")[0])


with ThreadPoolExecutor(8) as threads:
    print("stored from 8 threads:", sum(threads.map(remember, range(100))))

found = blocking.retrieve_batch(f"order:{number}" for number in range(101))
print("found:", found["found"], "missing:", found["missing"])
asyncio.run(read())

blocking.update("visits", lambda count: count + 1, default=0)
page = blocking.list_entries("order:", limit=1000)
print("deleted:", blocking.delete_batch(entry["key"] for entry in page["entries"])["deleted"])
blocking.close()
