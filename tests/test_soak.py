"""Rounds of everything at once; what a process holds at rest after each does not grow.

``LTM_SOAK_S`` has it go on for other than some seconds: ``make soak`` for twenty minutes.
``LTM_CHAOS_REPORT`` names a folder that gets the figures as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from ltm_async import LTMBackend, writing
from ltm_async.cache import Cache

from .chaos.setups import postgres_and_s3, sqlite_and_local

SECONDS = float(os.environ.get("LTM_SOAK_S", "2"))
SEED = int(os.environ.get("LTM_SEED", "1"))
CALLERS = 12
CALLS = 8
"""Of each caller in a round."""
CROWD = 60
"""More at once than any pool has connections."""
LEASE_US = 3_000_000
KEYS = [f"key {number}" for number in range(200)]
GROWTH_MIB = 16
"""What an allocator may hold back; a leak of 100 bytes a call is more in twenty minutes."""


class Held(NamedTuple):
    """By this process, at rest."""

    at_s: float
    descriptors: int
    threads: int
    tasks: int
    sockets: int
    rss_mib: float


def held() -> Held:
    links = []
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(entry.path))
    pages = int(pathlib.Path("/proc/self/statm").read_text("ascii").split()[1])
    return Held(
        at_s=time.monotonic(),
        descriptors=len(links),
        threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
        sockets=sum(link.startswith("socket:") for link in links),
        rss_mib=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


async def some_calls(ltm: LTMBackend, cache: Cache, seeded: random.Random) -> None:
    async def action(number: int) -> list[int]:
        return [number] * 500

    for _ in range(CALLS):
        key, some = seeded.choice(KEYS), seeded.sample(KEYS, 5)
        value: Any = [seeded.random(), "x" * seeded.choice([0, 0, 5_000])]
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


async def soak(settings: Any, title: str) -> None:
    seeded = random.Random(SEED)
    ltm = LTMBackend.from_config({**settings, "timeout": 30})
    cache = Cache(ltm)
    rounds: list[Held] = []
    began = time.monotonic()
    await asyncio.gather(*(ltm.store(f"crowd {number}", "x" * 5_000) for number in range(CROWD)))
    while time.monotonic() < began + SECONDS or len(rounds) < 4:
        rounds.append(held())
        await asyncio.gather(*(some_calls(ltm, cache, seeded) for _ in range(CALLERS)))
        await ltm.collect_garbage()

    async with asyncio.timeout(30):  # until no lease holds any more
        while not await nothing_left(ltm):  # noqa: ASYNC110  # leases tell no one
            await asyncio.sleep(0.2)
    await ltm.aclose()
    report(title, rounds, time.monotonic() - began)
    for field in ("descriptors", "threads", "tasks", "sockets"):
        before, after = halves(rounds, field)
        assert max(after) <= max(before), f"{field} grow: {before}, {after}"
    before, after = halves(rounds, "rss_mib")
    assert max(after) <= max(before) + GROWTH_MIB


async def nothing_left(ltm: LTMBackend) -> bool:
    await ltm.collect_garbage()
    verified = await ltm.verify()
    assert verified.sound, verified.problems
    return verified.pending_blobs == verified.dead_blobs == verified.strays == 0


def halves(rounds: Sequence[Held], field: str) -> tuple[list[float], list[float]]:
    values = [getattr(held, field) for held in rounds]
    return values[: len(values) // 2], values[len(values) // 2 :]


def report(title: str, rounds: Sequence[Held], seconds: float) -> None:
    figures = {
        "seed": SEED,
        "seconds": round(seconds),
        "calls": CROWD + CALLERS * CALLS * len(rounds),
        **{
            field: [round(min(values)), round(max(values))]
            for field in Held._fields[1:]
            if (values := [getattr(held, field) for held in rounds])
        },
        "rss_mib_per_hour": round(
            3600
            * statistics.linear_regression(
                [held.at_s for held in rounds], [held.rss_mib for held in rounds]
            ).slope,
            1,
        ),
    }
    sys.stdout.write(f"\n{title}: {figures}\n")
    if folder := os.environ.get("LTM_CHAOS_REPORT"):
        pathlib.Path(folder, f"soak-{title}.json").write_text(json.dumps(figures, indent=1) + "\n")


@pytest.fixture(params=["sqlite+local", "postgres+s3"])
def setting(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    stores = sqlite_and_local(tmp_path) if request.param[0] == "s" else postgres_and_s3()
    with stores as setup:
        yield request.param, setup.direct


@pytest.mark.timeout(2 * SECONDS + 120)
async def test_nothing_grows(setting: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LEASE_US", LEASE_US)
    title, settings = setting
    await soak(settings, title)
