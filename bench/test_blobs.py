"""Blobs of 64 KiB in each blob store, beside its bare driver with as many transfers at once.

The servers take part of the same cores, so a wall clock shows what a user waits, and the CPU time
of this process what the library costs. Under an added round trip of 30 ms it is the fan-out that
decides.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import pytest

from bench.bare_obstore import at_once
from bench.bare_sqlite import BareSQLite
from bench.buckets import BareMemory, Bucket, OpenBucket, azure, gcs, gcs_server, s3, s3_by_obstore
from bench.conftest import Bench
from bench.figures import ratio, spread
from bench.links import delayed
from bench.racing import WARMUP, Race, longest_stall_ms, race
from bench.sides import Entries, Ours, Side, batch_call
from bench.workloads import BLOB_BYTES, keys, large_entries
from ltm_async import LTMBackend

BUDGET = 1.15
FAR_MS = 30
ROUNDS = {100: 25, 500: 10, 10_000: 2}
AT_MOST_S = 2.0
TO_READ = 2
"""Batches that are kept to be read."""

verbs = pytest.mark.parametrize("verb", ["store", "retrieve"])


class Server(NamedTuple):
    port: int
    open: OpenBucket


@pytest.fixture(scope="module")
def gcs_port() -> Iterator[int]:
    with gcs_server() as port:
        yield port


@pytest.fixture(params=["s3", "s3 by obstore", "gcs", "azure"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "gcs":
        return Server(request.getfixturevalue("gcs_port"), gcs)
    makers: dict[str, tuple[str, Callable[[Any, int], AbstractAsyncContextManager[Bucket]]]] = {
        "s3": ("s3_tls_server", s3),
        "s3 by obstore": ("s3_server", s3_by_obstore),
        "azure": ("azure_server", azure),
    }
    fixture, open_bucket = makers[request.param]
    found = request.getfixturevalue(fixture)
    return Server(found.port, functools.partial(open_bucket, found))


@contextlib.asynccontextmanager
async def both(bucket: Bucket, folder: str) -> AsyncIterator[dict[str, Side]]:
    """With a catalog in SQLite, whose rows are synced to the disk on both sides."""
    with contextlib.closing(BareSQLite(folder)) as rows:
        async with LTMBackend(f"sqlite:///{folder}/ltm.db", bucket.ours, timeout=None) as ltm:
            yield {"ours": Ours(ltm), bucket.driver: BareMemory(rows, bucket.bare)}


@pytest.mark.parametrize(("count", "away_ms"), [(100, 0), (500, 0), (100, FAR_MS)])
def test_a_batch(bench: Bench, server: Server, folder: str, count: int, away_ms: int) -> None:
    away = f", {away_ms} ms away" if away_ms else ""

    async def main(port: int) -> None:
        async with server.open(port) as bucket, both(bucket, folder) as sides:
            for verb, run in (await stored_and_retrieved(bench, sides, count)).items():
                what = f"{verb}_batch {count:,} blobs of 64 KiB{away}"
                figure = functools.partial(ratio, bucket.store, over=bucket.driver, size=count)
                bench.report(
                    figure(what, run.wall_ms, limit=BUDGET),
                    figure(f"{what}, CPU", run.cpu_ms),
                )

    with delayed(server.port, away_ms) as port:
        bench.run(lambda: main(port))


async def stored_and_retrieved(
    bench: Bench, sides: Mapping[str, Side], size: int
) -> dict[str, Race]:
    """Race new batches of *size* in, and some of them out."""
    rounds, count = bench.pick(ROUNDS[size], 2), bench.pick(size, 3)
    warmup = WARMUP if size <= 500 else 0
    made: list[Entries] = []

    def new(turn: int) -> Entries:
        work = large_entries(keys(turn * count, count), BLOB_BYTES)
        made[:] = [*made, work][-TO_READ:]
        return work

    calls = {name: batch_call(side, "store") for name, side in sides.items()}
    stored = await race(calls, new, rounds=rounds, at_most_s=AT_MOST_S, warmup=warmup)
    last = made[-1]
    for side in sides.values():
        found = await side.retrieve_batch([entry["key"] for entry in last])
        assert found == {entry["key"]: entry["value"] for entry in last}
    calls = {name: batch_call(side, "retrieve") for name, side in sides.items()}
    retrieved = await race(calls, lambda turn: made[turn % len(made)], rounds=rounds, warmup=warmup)
    return {"store": stored, "retrieve": retrieved}


@pytest.mark.parametrize("verb", ["put", "get"])
def test_the_store_alone(bench: Bench, server: Server, verb: str) -> None:
    """Without a catalog, without JSON and hashes: what the adapter itself adds."""
    count = bench.pick(100, 3)

    def objects_of(turn: int) -> dict[str, bytes]:
        made = large_entries(keys(turn * count, count), BLOB_BYTES)
        return {entry["key"]: entry["value"]["page"].encode() for entry in made}

    async def main() -> None:
        async with server.open(server.port) as bucket:

            async def put(objects: Mapping[str, bytes]) -> None:
                await at_once(bucket.ours.put(name, data) for name, data in objects.items())

            async def get(names: Sequence[str]) -> list[bytes]:
                return await at_once(bucket.ours.get(name, limit=BLOB_BYTES + 1) for name in names)

            rounds = bench.pick(25, 2)
            what = f"{verb} {count} of 64 KiB, without a catalog"
            if verb == "put":
                run = await race(
                    {"ours": put, bucket.driver: bucket.bare.put}, objects_of, rounds=rounds
                )
            else:
                objects = objects_of(0)
                await put(objects)
                await bucket.bare.put(objects)
                names = list(objects)
                assert await get(names) == await bucket.bare.get(names) == [*objects.values()]
                run = await race(
                    {"ours": get, bucket.driver: bucket.bare.get}, lambda _: names, rounds=rounds
                )
            bench.report(
                ratio(bucket.store, what, run.wall_ms, bucket.driver, limit=BUDGET),
                ratio(bucket.store, f"{what}, CPU", run.cpu_ms, bucket.driver),
            )

    bench.run(main)


class BareFiles:
    """A side of local files and their rows, each synced; it blocks the loop."""

    def __init__(self, bare: BareSQLite) -> None:
        self._bare = bare

    async def store_batch(self, entries: Entries) -> None:
        self._bare.store_blobs(entries)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._bare.retrieve_blobs(keys)

    async def store(self, key: str, value: Any) -> None:
        await self.store_batch([{"key": key, "value": value}])

    async def retrieve(self, key: str) -> Any:
        return (await self.retrieve_batch([key]))[key]


@pytest.mark.parametrize("count", ROUNDS)
def test_a_batch_of_local_files(bench: Bench, folder: str, count: int) -> None:
    """The budget is the design's for cloud stores; it names none for local files."""

    async def main() -> None:
        with contextlib.closing(BareSQLite(folder)) as rows:
            url = f"sqlite:///{folder}/ltm.db"
            async with LTMBackend(url, f"{folder}/blobs", timeout=None) as ltm:
                sides: dict[str, Side] = {"ours": Ours(ltm), "bare files": BareFiles(rows)}
                for verb, run in (await stored_and_retrieved(bench, sides, count)).items():
                    what = f"{verb}_batch {count:,} blobs of 64 KiB"
                    times, over = run.wall_ms, "bare files"
                    bench.report(ratio("Local files", what, times, over, limit=BUDGET, size=count))

    bench.run(main)


@verbs
def test_the_loop_while_many_blobs_are_under_way(bench: Bench, folder: str, verb: str) -> None:
    count = bench.pick(500, 5)
    names = keys(0, count)

    async def main() -> None:
        url = f"sqlite:///{folder}/ltm.db"
        async with LTMBackend(url, f"{folder}/blobs", timeout=None) as ltm:
            side = Ours(ltm)
            worst_ms = []
            for _ in range(bench.pick(7, 2)):
                work = large_entries(names, BLOB_BYTES)
                if verb == "retrieve":
                    await side.store_batch(work)
                worst_ms.append(await longest_stall_ms(batch_call(side, verb)(work)))
            what = f"longest loop stall in {verb}_batch {count} blobs of 64 KiB"
            bench.report(spread("Local files", what, worst_ms))

    bench.run(main)
