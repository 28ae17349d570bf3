"""A process whose clients call one backend at random: ``python -m tests.chaos.worker``.

Its first line of input is a job, and it goes on until its input ends. Its output is the log of a
:class:`ltm_async.testing.Recorder`, so what a killed one was told is known up to its last moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import sys
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from ltm_async import LTMBackend, LTMError, writing
from ltm_async.testing import RecordedClient, Recorder

EPOCH_S = 2.0
KEYS = 10
"""Clients meet on so many keys, which are others in each epoch: judging one takes long histories
badly."""
CLIENTS = 2
PAUSE_S = 0.02
AFTER_FAILURE_S = 0.2
"""What is known to be down is not asked: without a pause, nearly all calls would be such."""
CANCEL_WITHIN_S = 0.03
LARGE = "x" * 3_000

WEIGHTS = {
    "store": 6,
    "compare and swap": 2,
    "mortal": 1,
    "batch": 2,
    "retrieve": 6,
    "retrieve batch": 2,
    "touch": 1,
    "update": 2,
    "delete": 1,
    "delete batch": 1,
    "cancelled store": 2,
    "cleanup": 1,
    "collect": 1,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    settings: Mapping[str, Any]
    """As of ``LTMBackend.from_config``."""
    seed: int
    lease_us: int
    clock_off_s: float
    """How far its clock jumps to and fro each second."""


def keys_now() -> list[str]:
    """The same in all processes."""
    epoch = int(time.monotonic() / EPOCH_S)
    return [f"{epoch}/{number}" for number in range(KEYS)]


async def work(job: Job) -> None:
    vars(writing)["LEASE_US"] = job.lease_us
    recorder = Recorder(log=sys.stdout)
    ltm = LTMBackend.from_config(job.settings)  # opened by the first call, in an outage too
    clients = [
        asyncio.create_task(
            _call_on(
                recorder.client(f"{job.name}-{number}", ltm),
                random.Random(f"{job.seed} {job.name} {number}"),
            )
        )
        for number in range(CLIENTS)
    ]
    if job.clock_off_s:
        clients.append(asyncio.create_task(_step_clock(random.Random(job.seed), job.clock_off_s)))
    await asyncio.to_thread(sys.stdin.read)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    await ltm.aclose()


async def _step_clock(seeded: random.Random, off_s: float) -> None:
    real_ns, offset_ns = time.time_ns, 0
    vars(time).update(
        time=lambda: (real_ns() + offset_ns) / 1e9, time_ns=lambda: real_ns() + offset_ns
    )
    while True:
        offset_ns = int(seeded.uniform(-off_s, off_s) * 1e9)
        await asyncio.sleep(1)


async def _call_on(client: RecordedClient, seeded: random.Random) -> None:
    number = 0
    while True:
        number += 1
        pause_s = PAUSE_S
        try:
            await _call(client, seeded, number)
        except LTMError:
            pause_s = AFTER_FAILURE_S
        await asyncio.sleep(seeded.uniform(0, pause_s))


async def _call(client: RecordedClient, seeded: random.Random, number: int) -> None:
    keys = keys_now()
    key, some = seeded.choice(keys), seeded.sample(keys, 3)
    value = [client.name, number, LARGE if seeded.random() < 0.3 else ""]
    match seeded.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]:
        case "store":
            await client.store(key, value)
        case "compare and swap":
            found = await client.retrieve(key)
            expected = {"if_version": found.version} if found.found else {"if_absent": True}
            await client.store(key, value, **expected)
        case "mortal":
            await client.store(key, value, ttl=seeded.uniform(0.2, 1))
        case "batch":
            await client.store_batch([{"key": one, "value": [one, *value]} for one in some])
        case "retrieve":
            await client.retrieve(key)
        case "retrieve batch":
            await client.retrieve_batch(some)
        case "touch":
            await client.touch(key, metadata={"touched": number})
        case "update":
            await client.update(key, value)
        case "delete":
            await client.delete(key)
        case "delete batch":
            await client.delete_batch(some)
        case "cancelled store":
            await _cancelled(client.store(key, value), seeded.uniform(0, CANCEL_WITHIN_S))
        case "cleanup":
            await client.ltm.cleanup_expired(20)
        case "collect":
            await client.ltm.collect_garbage(limit=100)


async def _cancelled(call: Awaitable[object], after_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(after_s):
            await call


def main() -> None:
    asyncio.run(work(Job(**json.loads(sys.stdin.readline()))))


if __name__ == "__main__":
    main()
