"""What clients of one key are told at the same time is explained by some order, on every pair.

``LTM_HISTORIES_S`` has each pair go on for so many seconds, from the seed ``LTM_MODEL_SEED`` or
one that is drawn and printed (``make model``).
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os
import pathlib
import random
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from ltm_async import LTMBackend, MemoryBlobStore, PostgresCatalog
from ltm_async.protocols import BlobStore, Catalog
from ltm_async.testing import Step, Violation, check_history, check_versions

from .backends import PAIRS, make_rig
from .databases import Database
from .model.crowd import gather
from .servers.tcp_proxy import LOST_REPLY, NO_FAULTS, TcpProxy

SECONDS = float(os.environ.get("LTM_HISTORIES_S", "0"))
KEYS = 3
ROUNDS = {"memory+memory": 60, "sqlite+local": 10, "postgres+s3": 2, "sqlite+azure": 2}
USUAL_ROUNDS = 5
CLIENTS = 6


@pytest.fixture(autouse=True)
def _breakers_ask_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm_async.calling.COOL_DOWN_S", 0.0)


def story(history: Sequence[Step], violation: Violation) -> str:
    """The steps of a key, a line each, those that contradict each other marked."""
    steps = sorted(
        (step for step in history if step.key == violation.key), key=lambda step: step.invoked_ns
    )
    lines = []
    for step in steps:
        times = [
            "-" if instant is None else f"{(instant - steps[0].invoked_ns) / 1e6:.3f}"
            for instant in (step.invoked_ns, step.returned_ns)
        ]
        told = {
            name: value
            for name, value in dataclasses.asdict(step).items()
            if value not in {None, False} and not name.endswith("_ns")
        }
        lines.append(f"{'*' if step in violation.steps else ' '} {' to '.join(times)} ms {told}")
    return "\n".join(lines)


class Figures(collections.Counter[str]):
    """What was seen, of how many histories."""

    def judge(self, history: Sequence[Step], seed: int) -> None:
        for violation in (*check_versions(history), *check_history(history)):
            pytest.fail(f"seed {seed}: {violation.what}\n{story(history, violation)}")
        self["histories"] += len({step.key for step in history})
        self["steps"] += len(history)
        self.update(f"{step.kind} {step.status}" for step in history)

    def show(self, name: str, first: int, last: int) -> None:
        shown = ", ".join(f"{what} {count}" for what, count in sorted(self.items()))
        sys.stdout.write(f"\n{name}: seeds {first} to {last}: {shown}\n")


def seeds(rounds: int) -> range | Sequence[int]:
    if SECONDS == 0:
        return range(rounds)
    first = int(os.environ.get("LTM_MODEL_SEED") or random.randrange(10**6))
    return range(first, first + 10**6)


@pytest.mark.timeout(180 if SECONDS == 0 else 600 + 3 * SECONDS)
@pytest.mark.parametrize("pair", PAIRS)
async def test_an_order_explains_what_a_crowd_was_told(pair: str, tmp_path: pathlib.Path) -> None:
    rig = make_rig(pair, tmp_path)
    figures = Figures()
    until = time.monotonic() + SECONDS
    tried = seeds(ROUNDS.get(pair, USUAL_ROUNDS))
    for seed in tried:
        stores: list[tuple[Catalog, BlobStore]] = [(rig.catalog, rig.blobs)] * CLIENTS
        figures.judge(await gather(stores, seed=seed, keys=KEYS, pass_time=rig.clock.advance), seed)
        if SECONDS and time.monotonic() > until:
            break
    assert (await rig.ltm.verify()).sound
    await rig.aclose()
    assert figures["retrieve ok"]
    assert SECONDS or pair != "memory+memory" or figures["store unknown"]
    figures.show(pair, tried[0], seed)


@pytest.mark.timeout(180 if SECONDS == 0 else 600 + 3 * SECONDS)
async def test_an_order_explains_what_a_crowd_was_told_over_connections_that_are_cut(
    database: Database, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """Each client has its own way to PostgreSQL; commits are cut off on either side of it."""
    ways = [tcp_proxy(database.server.port) for _ in range(4)]
    catalogs = [
        PostgresCatalog(
            database.dsn.replace(f":{database.server.port}/", f":{way.port}/"),
            schema=database.schema,
        )
        for way in ways
    ]
    blobs = MemoryBlobStore()
    figures = Figures()
    until = time.monotonic() + SECONDS
    tried = seeds(USUAL_ROUNDS)
    for seed in tried:
        cutting = asyncio.create_task(_cut(ways, random.Random(seed)))
        stores: list[tuple[Catalog, BlobStore]] = [(catalog, blobs) for catalog in catalogs]
        try:
            # What keeps house and looks at the end goes another way.
            history = await gather(
                stores, seed=seed, keys=KEYS, badness=0.0, plain=(_direct(database), blobs)
            )
        finally:
            cutting.cancel()
            await asyncio.wait([cutting])
            for way in ways:
                way.faults = NO_FAULTS
        figures.judge(history, seed)
        if SECONDS and time.monotonic() > until:
            break
    for catalog in catalogs:
        await catalog.aclose()
    async with LTMBackend(_direct(database), blobs, on_unavailable="raise") as ltm:
        assert (await ltm.verify()).sound
    assert SECONDS or sum(n for told, n in figures.items() if told.endswith("unknown")) > 0
    figures.show("postgres, cut", tried[0], seed)


def _direct(database: Database) -> PostgresCatalog:
    return PostgresCatalog(database.dsn, schema=database.schema)


async def _cut(ways: Sequence[TcpProxy], seeded: random.Random) -> None:
    while True:
        await asyncio.sleep(seeded.uniform(0.0, 0.03))
        way = seeded.choice(ways)
        if seeded.random() < 0.5:
            way.reset_all()
        else:
            way.faults = LOST_REPLY
            await asyncio.sleep(seeded.uniform(0.0, 0.01))
            way.faults = NO_FAULTS
