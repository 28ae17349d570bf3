"""Rounds of everything at once, in a process of its own: ``python -m tests.soak.worker JOB``.

What a process of tests holds is not this library's alone. Each line of output is what this one held
at rest, as JSON; the last one comes once nothing is left to collect.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ltm_async import LTMBackend, writing
from ltm_async.cache import Cache

CALLERS = 12
CALLS = 8
"""Of each caller in a round."""
CROWD = 60
"""More at once than any pool has connections."""
ROUNDS = 4
"""At least."""
LEASE_US = 3_000_000
KEYS = [f"key {number}" for number in range(200)]
LARGE = "x" * 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    settings: Mapping[str, Any]
    """As of ``LTMBackend.from_config``."""
    seconds: float
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """By this process, at rest."""

    at_s: float
    calls: int
    """Up to now."""
    descriptors: int
    sockets: int
    threads: int
    tasks: int
    rss_mib: float


def held(calls: int) -> Held:
    links = []
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(entry.path))
    pages = int(pathlib.Path("/proc/self/statm").read_text("ascii").split()[1])
    return Held(
        at_s=time.monotonic(),
        calls=calls,
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
        rss_mib=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


async def soak(job: Job) -> None:
    vars(writing)["LEASE_US"] = LEASE_US
    seeded = random.Random(job.seed)
    async with LTMBackend.from_config(job.settings) as ltm:
        cache = Cache(ltm)
        calls = await crowd(ltm)
        await settle(ltm)
        began = time.monotonic()
        rounds = 0
        while time.monotonic() < began + job.seconds or rounds < ROUNDS:
            tell(held(calls))
            await asyncio.gather(*(some_calls(ltm, cache, seeded) for _ in range(CALLERS)))
            await ltm.collect_garbage()
            calls += CALLERS * CALLS
            rounds += 1
        await settle(ltm)
        tell(held(calls))


async def crowd(ltm: LTMBackend) -> int:
    """Have every pool and every thread that there will ever be. How many calls it took."""
    numbers = range(CROWD)
    await asyncio.gather(*(ltm.store(f"crowd {number}", LARGE) for number in numbers))
    await asyncio.gather(*(ltm.retrieve(f"crowd {number}") for number in numbers))
    return 2 * CROWD


async def some_calls(ltm: LTMBackend, cache: Cache, seeded: random.Random) -> None:
    async def action(number: int) -> list[int]:
        return [number] * 500

    for _ in range(CALLS):
        key, some = seeded.choice(KEYS), seeded.sample(KEYS, 5)
        value: Any = [seeded.random(), seeded.choice(["", "", LARGE])]
        match seeded.randrange(9):
            case 0 | 1:
                await ltm.store(key, value, ttl=seeded.choice([None, 0.05]))
            case 2:
                await ltm.store_batch([{"key": one, "value": value} for one in some])
            case 3:
                await ltm.retrieve_batch(some)
            case 4:
                with contextlib.suppress(TimeoutError):  # cancelled wherever it is by then
                    async with asyncio.timeout(seeded.uniform(0, 0.01)):
                        await ltm.store(key, value)
            case 5:
                await ltm.delete(key)
            case 6:
                await cache.wrap(action, {"number": seeded.randrange(20)}, ttl_seconds=0.05)
            case 7:
                await ltm.cleanup_expired(limit=20)
            case 8:
                await ltm.retrieve(key)


async def settle(ltm: LTMBackend) -> None:
    """Collect until no lease holds any more and nothing is left."""
    async with asyncio.timeout(30):
        while True:
            await ltm.collect_garbage()
            verified = await ltm.verify()
            if not verified.sound:
                raise AssertionError(verified.problems)
            if verified.pending_blobs == verified.dead_blobs == verified.strays == 0:
                return
            await asyncio.sleep(0.2)


def tell(of: Held) -> None:
    sys.stdout.write(json.dumps(dataclasses.asdict(of)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(soak(Job(**json.loads(sys.argv[1]))))
