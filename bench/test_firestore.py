"""Firestore's emulator on this machine, beside the bare AsyncClient.

The emulator takes part of the same cores, so a wall clock shows what a user waits, and the CPU
time of this process what the library costs. A store of ours reads before it commits, which the
bare side does not: two requests beside one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from bench.bare_firestore import BareFirestore
from bench.conftest import Bench
from bench.workloads import entries, keys, phases, race, ratio, spread
from ltm_async import FirestoreCatalog, LTMBackend
from ltm_async.catalogs.firestore.options import TRANSPORTS
from tests.servers.firestore import new_project
from tests.servers.fixtures import firestore_server  # noqa: F401

BUDGET = 1.5
FIRST_ANSWER_BUDGET_MS = 100.0
ROUNDS = {1: 100, 100: 25}
CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}
Work = Sequence[dict[str, Any]]

pytestmark = pytest.mark.usefixtures("firestore_server")
transports = pytest.mark.parametrize("transport", TRANSPORTS)
clocks = pytest.mark.parametrize("clock", CLOCKS)
counts = pytest.mark.parametrize("count", ROUNDS)


@contextlib.asynccontextmanager
async def both(transport: str) -> AsyncIterator[tuple[LTMBackend, BareFirestore]]:
    project = new_project()
    bare = BareFirestore(project)
    catalog = FirestoreCatalog(project, transport=transport)
    async with LTMBackend(catalog, "memory:", timeout=None) as ltm:
        yield ltm, bare
    await catalog.aclose()
    await bare.aclose()


async def _store(ltm: LTMBackend, work: Work) -> None:
    if len(work) == 1:
        (entry,) = work
        assert (await ltm.store(entry["key"], entry["value"])).raise_for_error().stored
        return
    assert (await ltm.store_batch(work)).raise_for_error().stored == len(work)


async def _retrieve(ltm: LTMBackend, wanted: Sequence[str]) -> None:
    if len(wanted) == 1:
        assert (await ltm.retrieve(wanted[0])).raise_for_error().found
        return
    assert (await ltm.retrieve_batch(wanted)).raise_for_error().found == len(wanted)


@transports
@clocks
@counts
@pytest.mark.parametrize("fresh", [True, False], ids=["new", "existing"])
def test_store(bench: Bench, transport: str, count: int, fresh: bool, clock: str) -> None:
    title = f"Firestore, {transport}: store {count} {'new' if fresh else 'existing'}, {clock}"
    rounds, count = bench.pick(ROUNDS[count], 2), bench.pick(count, 3)

    async def main() -> dict[str, list[float]]:
        async with both(transport) as (ltm, bare):
            sides: dict[str, Callable[[Work], Awaitable[object]]] = {
                "ours": lambda work: _store(ltm, work),
                "bare": bare.store,
            }
            return await race(
                sides,
                lambda turn: entries(keys(turn * count if fresh else 0, count), turn),
                rounds=rounds,
                clock=CLOCKS[clock],
            )

    bench.report(ratio(title, bench.run(main), "bare"))


@transports
@clocks
@counts
def test_retrieve(bench: Bench, transport: str, count: int, clock: str) -> None:
    title = f"Firestore, {transport}: retrieve {count}, {clock}"
    rounds, count = bench.pick(ROUNDS[count], 2), bench.pick(count, 3)

    async def main() -> dict[str, list[float]]:
        async with both(transport) as (ltm, bare):
            work = entries(keys(0, 100), 0)
            await _store(ltm, work)
            await bare.store(work)
            wanted = [entry["key"] for entry in work[:count]]
            read = await ltm.retrieve_batch(wanted)
            assert await bare.retrieve(wanted) == {
                key: entry.value for key, entry in read.results.items()
            }
            sides: dict[str, Callable[[Sequence[str]], Awaitable[object]]] = {
                "ours": lambda wanted: _retrieve(ltm, wanted),
                "bare": bare.retrieve,
            }
            return await race(sides, lambda _: wanted, rounds=rounds, clock=CLOCKS[clock])

    bench.report(ratio(title, bench.run(main), "bare", limit=BUDGET))


_DRIVER = "import of the driver in its thread, and channel"
_ANSWERED = "first answered request"
_OURS = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import ltm_async
mark("import ltm_async")
import asyncio
from ltm_async import FirestoreCatalog, LTMBackend
mark("import the backend and the catalog, asyncio with them")
async def main(project, transport):
    catalog = FirestoreCatalog(project, transport=transport)
    ltm = LTMBackend(catalog, "memory:")
    mark("constructor")
    await catalog._documents()
    mark("{driver}")
    await catalog.open()
    mark("{answered}")
    assert (await ltm.store("key", {"turn": time.time()})).stored
    mark("first store")
    assert (await ltm.retrieve("key")).found
    mark("first retrieve")
    await catalog.aclose()
asyncio.run(main(*sys.argv[1:]))
import json
print(json.dumps(marks))
""".replace("{driver}", _DRIVER).replace("{answered}", _ANSWERED)
_BARE = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio
from bench.bare_firestore import BareFirestore
mark("imports")
async def main(project):
    bare = BareFirestore(project)
    await bare.retrieve(["now"])
    mark("first answered request")
    await bare.store([{"key": "key", "value": {"turn": time.time()}}])
    mark("first store")
    assert await bare.retrieve(["key"])
    mark("first retrieve")
    await bare.aclose()
asyncio.run(main(sys.argv[1]))
import json
print(json.dumps(marks))
"""


def test_a_fresh_process(bench: Bench) -> None:
    project = new_project()

    def measure() -> dict[str, list[dict[str, float]]]:
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in (*TRANSPORTS, "bare")}
        for _ in range(bench.pick(15, 2)):
            for transport in TRANSPORTS:
                runs[transport].append(phases(_OURS, project, transport))
            runs["bare"].append(phases(_BARE, project))
        return runs

    runs = bench.call(measure)
    for transport in TRANSPORTS:
        answered_ms = [run[_DRIVER] + run[_ANSWERED] for run in runs[transport]]
        title = f"Firestore cold start, {transport}: from the driver's import to its first answer"
        limit = FIRST_ANSWER_BUDGET_MS if transport == "light" else None
        bench.report(spread(title, answered_ms, limit=limit))
    for side, side_runs in runs.items():
        for phase in side_runs[-1]:
            spent_ms = [run[phase] for run in side_runs]
            bench.report(spread(f"Firestore cold start, {side}: {phase}", spent_ms))
