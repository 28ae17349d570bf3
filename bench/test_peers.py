"""The library beside what users would take instead: same server, same payloads, same rounds.

Collected where the extra ``bench`` is installed, as ``make bench`` does.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import pytest

from bench.conftest import Bench
from bench.figures import ratio
from bench.peers import PROMISES, disk_caches, langgraph_stores, py_key_value
from bench.racing import race
from bench.sides import Entries, Ours, Side, batch_call, one_call
from bench.tables import PEER_CELLS, peer_row
from bench.workloads import BLOB_BYTES, entries, keys, large_entries
from ltm_async import LTMBackend
from tests.s3_stores import store_on

pytestmark = pytest.mark.filterwarnings("ignore:A configured store is unstable")
OpenPeer: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Side]]

ROUNDS = {1: 100, 100: 30, 500: 10}
KEPT = {False: 1_000, True: 100}
"""Entries that are there before, small and large."""


OPEN: Mapping[str, OpenPeer] = {
    "LangGraph's AsyncPostgresStore": langgraph_stores.open_postgres,
    "LangGraph's AsyncSqliteStore": langgraph_stores.open_sqlite,
    "py-key-value's PostgreSQLStore": py_key_value.open_postgres,
    "py-key-value's DiskStore": py_key_value.open_disk,
    "py-key-value's S3Store": py_key_value.open_s3,
    "diskcache": disk_caches.open_diskcache,
    "diskcache as it comes": disk_caches.open_diskcache_as_it_comes,
    "cashews' disk": disk_caches.open_cashews,
}


@pytest.fixture
def place(request: pytest.FixtureRequest, kind: str) -> Any:
    """What all sides of a race work on."""
    fixtures = {"PostgreSQL": "dsn", "SQLite": "folder", "S3": "s3_server"}
    return request.getfixturevalue(fixtures[kind])


@asynccontextmanager
async def all_sides(kind: str, place: Any, folder: str) -> AsyncIterator[dict[str, Side]]:
    catalog = place if kind == "PostgreSQL" else f"sqlite:///{folder}/ltm.db"
    blobs = store_on(place) if kind == "S3" else f"{folder}/blobs"
    async with AsyncExitStack() as stack:
        ltm = await stack.enter_async_context(LTMBackend(catalog, blobs, timeout=None))
        sides: dict[str, Side] = {"ours": Ours(ltm)}
        for name in PROMISES[kind]:
            sides[name] = await stack.enter_async_context(OPEN[name](place))
        yield sides
    if not isinstance(blobs, str):
        await blobs.aclose()


@pytest.mark.parametrize("kind", PROMISES)
@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_peers(bench: Bench, kind: str, place: Any, folder: str, verb: str) -> None:
    """Small values stay out of S3: the library keeps them in its catalog."""

    async def main() -> None:
        async with all_sides(kind, place, folder) as sides:
            for large in (False, True) if kind != "S3" else (True,):
                everything = keys(0, bench.pick(KEPT[large], 10))
                await fill(sides, made(everything, -1, large=large))
                for count in (count for count, are in PEER_CELLS if are is large):
                    await measure(bench, kind, sides, verb, count, everything, large=large)

    bench.run(main)


async def fill(sides: Mapping[str, Side], work: Entries) -> None:
    some = {entry["key"]: entry["value"] for entry in work[:10]}
    for side in sides.values():
        await side.store_batch(work)
        assert await side.retrieve_batch(list(some)) == some


async def measure(
    bench: Bench,
    kind: str,
    sides: Mapping[str, Side],
    verb: str,
    count: int,
    everything: Sequence[str],
    *,
    large: bool,
) -> None:
    what = peer_row(verb, count, large=large)
    rounds, count = bench.pick(ROUNDS[count], 2), bench.pick(count, 5)
    make_call = one_of if count == 1 else batch_call
    run = await race(
        {name: make_call(side, verb) for name, side in sides.items()},
        lambda turn: made(random.Random(turn).sample(everything, count), turn, large=large),
        rounds=rounds,
        at_most_s=2.0,
    )
    for name in PROMISES[kind]:
        bench.report(ratio(kind, what, run.wall_ms, name, limit=1.0, size=count))


def made(names: Sequence[str], turn: int, *, large: bool) -> Entries:
    return large_entries(names, BLOB_BYTES) if large else entries(names, turn)


def one_of(side: Side, verb: str) -> Callable[[Entries], Any]:
    call = one_call(side, verb)
    return lambda work: call((work[0]["key"], work[0]["value"]))
