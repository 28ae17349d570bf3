"""The library beside what users would take instead: same server, same payloads, same rounds.

Collected where the extra ``bench`` is installed, as ``make bench`` does.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, TypeAlias

import pytest

from bench.conftest import Bench
from bench.figures import ratio
from bench.peers import Promises, disk_caches, langgraph_stores, py_key_value
from bench.racing import race
from bench.sides import Entries, Ours, Side, batch_call, one_call
from bench.workloads import BLOB_BYTES, entries, keys, large_entries
from ltm_async import LTMBackend
from tests.s3_stores import store_on

pytestmark = pytest.mark.filterwarnings("ignore:A configured store is unstable")
OpenPeer: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Side]]

ROUNDS = {1: 100, 100: 30, 500: 10}
SMALL = 200
CELLS = [
    (kind, count, byte_size)
    for kind in ("PostgreSQL", "SQLite", "S3")
    for count, byte_size in [(1, SMALL), (100, SMALL), (500, SMALL), (1, BLOB_BYTES), (100, BLOB_BYTES)]
    if kind != "S3" or byte_size == BLOB_BYTES  # small values are kept in the catalog, not there
]
KEPT = 2_000
"""Small entries that are there before; large ones are a hundred."""


class Peer(NamedTuple):
    promises: Promises
    open: OpenPeer


PEERS: Mapping[str, Mapping[str, Peer]] = {
    "PostgreSQL": {
        "LangGraph's AsyncPostgresStore": Peer(
            langgraph_stores.POSTGRES, langgraph_stores.open_postgres
        ),
        "py-key-value's PostgreSQLStore": Peer(py_key_value.POSTGRES, py_key_value.open_postgres),
    },
    "SQLite": {
        "LangGraph's AsyncSqliteStore": Peer(langgraph_stores.SQLITE, langgraph_stores.open_sqlite),
        "py-key-value's DiskStore": Peer(py_key_value.DISK, py_key_value.open_disk),
        "diskcache": Peer(disk_caches.DISKCACHE, disk_caches.open_diskcache),
        "diskcache as it comes": Peer(
            disk_caches.DISKCACHE_AS_IT_COMES, disk_caches.open_diskcache_as_it_comes
        ),
        "cashews' disk": Peer(disk_caches.CASHEWS, disk_caches.open_cashews),
    },
    "S3": {"py-key-value's S3Store": Peer(py_key_value.S3, py_key_value.open_s3)},
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
        for name, peer in PEERS[kind].items():
            sides[name] = await stack.enter_async_context(peer.open(place))
        yield sides
    if not isinstance(blobs, str):
        await blobs.aclose()


@pytest.mark.parametrize(("kind", "count", "byte_size"), CELLS)
@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_a_peer(
    bench: Bench, kind: str, place: Any, folder: str, verb: str, count: int, byte_size: int
) -> None:
    large = byte_size == BLOB_BYTES
    what = f"{verb} {count} of {'64 KiB' if large else 'about 200 bytes'}"
    rounds, count = bench.pick(ROUNDS[count], 2), bench.pick(count, 5)
    everything = keys(0, bench.pick(100 if large else KEPT, 10))

    def prepare(turn: int) -> Entries:
        chosen = random.Random(turn).sample(everything, count)
        return large_entries(chosen, byte_size) if large else entries(chosen, turn)

    async def main() -> None:
        async with all_sides(kind, place, folder) as sides:
            first = large_entries(everything, byte_size) if large else entries(everything, -1)
            for side in sides.values():
                await side.store_batch(first)
                found = await side.retrieve_batch(everything[:10])
                assert found == {entry["key"]: entry["value"] for entry in first[:10]}
            calls = {name: batch_call(side, verb) for name, side in sides.items()}
            if count == 1:
                calls = {name: one_of(side, verb) for name, side in sides.items()}
            run = await race(calls, prepare, rounds=rounds)
            for name in PEERS[kind]:
                bench.report(ratio(kind, what, run.wall_ms, name, limit=1.0, size=count))

    bench.run(main)


def one_of(side: Side, verb: str) -> Callable[[Entries], Any]:
    call = one_call(side, verb)
    return lambda work: call((work[0]["key"], work[0]["value"]))
