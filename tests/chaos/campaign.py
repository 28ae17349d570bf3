"""Workers, one fault after another, and then the judgement over everything they were told."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from ltm_async import LTMBackend, StoreError, writing
from ltm_async.testing import (
    Recorder,
    Step,
    Violation,
    check_history,
    check_versions,
    read_history,
)

from .faults import LEASE_S, TIMEOUT_S
from .setups import Setup
from .worker import Job

WORKERS = 4
CALM_S = 0.3
"""Between two faults, when all is well again."""
HOLD_S = (0.2, 1.5)
PROBE_S = 0.02
STOP_S = 20.0
ROUNDS = 50
READ_AT_ONCE = 100


@dataclasses.dataclass(kw_only=True)
class Figures:
    """What a campaign did and found."""

    seed: int
    seconds: float = 0
    calls: int = 0
    unknown: int = 0
    """Calls whose outcome the client was not told."""
    refused: int = 0
    """Calls that failed, and had no effect."""
    keys: int = 0
    faults: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    longest_over_s: float = 0
    """Of a call over its deadline, of processes that were not frozen meanwhile."""
    longest_recovery_s: float = 0
    """From the end of a fault to the end of the first call that succeeds."""
    violations: list[str] = dataclasses.field(default_factory=list)
    entries: int = 0
    strays: int = 0
    """Objects whose upload ended after their reservation was forgotten: the audit's work."""


class Worker:
    """One process of clients, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.name = name
        self.process = process
        self.said: list[str] = []
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, job: Job) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "tests.chaos.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
        await process.stdin.drain()
        return cls(process, job.name)

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(line.decode())

    async def stop(self) -> None:
        """Wait for its calls to end; one that does not is a bug."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(STOP_S):
            await self.process.wait()
            await self._listening

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._listening


async def campaign(setup: Setup, *, seconds: float, seed: int) -> Figures:
    """Go on for *seconds*, through every fault of *setup* as often as there is time."""
    seeded = random.Random(seed)
    figures = Figures(seed=seed)
    workers: list[Worker] = []
    away: list[tuple[float, float]] = []
    numbers = itertools.count()
    async with contextlib.AsyncExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setattr(writing, "LEASE_US", int(LEASE_S * 1e6))
        probe = LTMBackend.from_config(setup.settings[0])
        stack.push_async_callback(probe.aclose)

        async def staff() -> list[int]:
            """Replace those that are gone; the processes at work."""
            at_work = [worker for worker in workers if worker.process.returncode is None]
            for _ in range(WORKERS - len(at_work)):
                number = next(numbers)
                job = Job(
                    name=f"worker {number}",
                    settings=setup.settings[number % len(setup.settings)],
                    seed=seed,
                    lease_us=int(LEASE_S * 1e6),
                    clock_off_s=setup.clock_off_s,
                )
                worker = await Worker.start(job)
                stack.push_async_callback(worker.kill)
                workers.append(worker)
                at_work.append(worker)
            return [worker.process.pid for worker in at_work]

        await staff()
        await _recovery(probe)  # servers that have just started are slow
        began = time.monotonic()
        for name in _in_turns(list(setup.faults), seeded):
            await asyncio.sleep(CALM_S)
            if time.monotonic() > began + seconds:
                break
            figures.faults[name] += 1
            struck = time.monotonic()
            async with setup.faults[name](seeded, await staff()):
                await asyncio.sleep(seeded.uniform(*HOLD_S))
            if name == "worker frozen":
                away.append((struck, time.monotonic()))
            recovery_s = await _recovery(probe)
            figures.longest_recovery_s = max(figures.longest_recovery_s, recovery_s)
        for worker in workers:
            if worker.process.returncode is None:
                await worker.stop()
    figures.seconds = time.monotonic() - began
    history = read_history(worker.said for worker in workers)  # type: ignore[misc]
    _count(figures, history, away)
    await _judge(setup, figures, history)
    return figures


def _in_turns(names: Sequence[str], seeded: random.Random) -> Iterator[str]:
    """Each once, in any order, and again."""
    while True:
        yield from seeded.sample(names, len(names))


async def _recovery(probe: LTMBackend) -> float:
    healed = time.monotonic()
    for turn in itertools.count():
        with contextlib.suppress(StoreError):
            await probe.store("probe", [turn, "x" * 2_000])
            break
        await asyncio.sleep(PROBE_S)
    return time.monotonic() - healed


def _count(figures: Figures, history: Sequence[Step], away: Sequence[tuple[float, float]]) -> None:
    figures.calls = len(history)
    figures.keys = len({step.key for step in history})
    for step in history:
        figures.unknown += step.status == "unknown"
        figures.refused += step.status == "failed"
        if step.returned_ns is not None:
            began_s, ended_s = step.invoked_ns / 1e9, step.returned_ns / 1e9
            over_s = ended_s - began_s - TIMEOUT_S
            if not any(began_s < until and ended_s > since for since, until in away):
                figures.longest_over_s = max(figures.longest_over_s, over_s)


async def _judge(setup: Setup, figures: Figures, history: list[Step]) -> None:
    """When no lease holds any more: collect, see that rows and blobs agree, and read everything."""
    await asyncio.sleep(LEASE_S)
    recorder = Recorder()
    async with LTMBackend.from_config(setup.direct) as ltm:
        await ltm.delete("probe")
        for _ in range(ROUNDS):
            if not (await ltm.collect_garbage()).raise_for_error().deleted:
                break
        verified = await ltm.verify()
        judge = recorder.client("judge", ltm)
        keys = sorted({step.key for step in history})
        for start in range(0, len(keys), READ_AT_ONCE):
            read = await judge.retrieve_batch(keys[start : start + READ_AT_ONCE])
            figures.violations += [f"{key}: {why}" for key, why in read.errors.items()]
    figures.entries, figures.strays = verified.entries, verified.strays
    figures.violations += [f"{key}: {why}" for key, why in verified.problems.items()]
    if verified.pending_blobs:
        figures.violations.append(f"{verified.pending_blobs} blobs are still pending")
    everything = history + recorder.history()
    for check in (check_versions, check_history):
        figures.violations += await asyncio.to_thread(_found, check, everything)


def _found(
    check: Callable[[Sequence[Step]], list[Violation]], history: Sequence[Step]
) -> list[str]:
    return [
        f"{found.key}: {found.what}: " + "; ".join(map(str, found.steps[:10]))
        for found in check(history)
    ]
