"""Blobs in a GCS on this machine, each beside bare gcloud-aio at the same concurrency.

The server is a process of its own, so that it does not share a loop with what is measured; its
part is in the time of both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import aiohttp
import pytest
from gcloud.aio.storage import Storage

from bench.bare import Bare
from bench.conftest import Bench
from bench.workloads import ROOT, keys, large_entries, python, race, ratio, spread
from ltm_async import GCSBlobStore, LTMBackend

BLOB_BUDGET = 1.15
CONCURRENCY = 50
BYTE_SIZE = 64 * 1024
BUCKET = "bench"

Objects = Mapping[str, bytes]


LATENCIES_MS = [0, 20]
"""Before each answer: none, and what a bucket near by takes."""


@pytest.fixture(params=LATENCIES_MS, ids="{} ms".format)
def latency_ms(request: pytest.FixtureRequest) -> int:
    latency: int = request.param
    return latency


@pytest.fixture
def endpoint_url(latency_ms: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.servers.gcs", str(latency_ms)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        body = json.dumps({"name": BUCKET}).encode()
        urllib.request.urlopen(f"{url}/storage/v1/b", body).close()
        yield url
        server.communicate()


class BareStorage:
    """gcloud-aio by hand: as many at once, created only where there is nothing, no checksums.

    Names have a prefix as ours do: gcloud-aio encodes its slash, which takes time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def put(self, objects: Objects) -> None:
        async def put(name: str) -> None:
            await self._storage.upload(
                BUCKET,
                f"bare/{name}",
                objects[name],
                content_type="application/octet-stream",
                parameters={"ifGenerationMatch": "0"},
                force_resumable_upload=False,
            )

        await _at_once(objects, put)

    async def get(self, names: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}

        async def get(name: str) -> None:
            found[name] = await self._storage.download(BUCKET, f"bare/{name}")

        await _at_once(names, get)
        return found


async def _at_once(names: Sequence[str] | Objects, one: Callable[[str], Awaitable[None]]) -> None:
    todo = iter(names)

    async def work() -> None:
        for name in todo:
            await one(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


@contextlib.asynccontextmanager
async def bare_storage(endpoint_url: str) -> AsyncIterator[BareStorage]:
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        # It is asked for no token where an api_root is given, and made of files without one.
        token = cast("Any", object())
        yield BareStorage(Storage(session=cast("Any", session), token=token, api_root=endpoint_url))


def objects_of(turn: int, count: int) -> dict[str, bytes]:
    return {f"{turn}-{number}": os.urandom(BYTE_SIZE) for number in range(count)}


@pytest.mark.parametrize("verb", ["put", "get"])
def test_blob_store(bench: Bench, endpoint_url: str, latency_ms: int, verb: str) -> None:
    """The store alone, without a catalog."""
    count = bench.pick(100, 5)

    async def main() -> dict[str, list[float]]:
        blobs = GCSBlobStore(f"gs://{BUCKET}/ours/", endpoint_url=endpoint_url)
        async with bare_storage(endpoint_url) as bare:

            async def put(objects: Objects) -> None:
                await _at_once(objects, lambda name: blobs.put(name, objects[name]))

            async def get(names: Sequence[str]) -> dict[str, bytes | None]:
                found: dict[str, bytes | None] = {}

                async def get(name: str) -> None:
                    found[name] = await blobs.get(name, limit=BYTE_SIZE + 1)

                await _at_once(names, get)
                return found

            if verb == "put":
                spent_ms = await race(
                    {"ours": put, "bare": bare.put},
                    lambda turn: objects_of(turn, count),
                    rounds=bench.pick(60, 2),
                )
            else:
                made = [objects_of(turn, count) for turn in range(3)]
                for objects in made:
                    await put(objects)
                    await bare.put(objects)
                    names = list(objects)
                    assert await get(names) == await bare.get(names) == objects
                spent_ms = await race(
                    {"ours": get, "bare": bare.get},
                    lambda turn: list(made[turn % len(made)]),
                    rounds=bench.pick(60, 2),
                )
        await blobs.aclose()
        return spent_ms

    title = f"GCSBlobStore.{verb}, {count} of 64 KiB, {latency_ms} ms away"
    bench.report(ratio(title, bench.run(main), "bare", limit=BLOB_BUDGET))


class BareMemory:
    """What a careful program would do for the same: encode, hash, upload, then rows in SQLite."""

    def __init__(self, rows: Bare, storage: BareStorage) -> None:
        self._rows = rows
        self._storage = storage

    async def store(self, entries: Sequence[Mapping[str, Any]]) -> None:
        blobs = dict(self._rows.as_blobs(entries))
        await self._storage.put({row[4]: data for row, data in blobs.items()})
        await asyncio.to_thread(self._rows.store_rows, blobs)

    async def retrieve(self, wanted: Sequence[str]) -> dict[str, Any]:
        names = await asyncio.to_thread(self._rows.names, wanted)
        found = await self._storage.get(list(names.values()))
        return {key: json.loads(found[name]) for key, name in names.items()}


@pytest.mark.parametrize("verb", ["store", "retrieve"])
def test_blobs(bench: Bench, endpoint_url: str, latency_ms: int, folder: str, verb: str) -> None:
    """With a catalog in SQLite, whose rows are synced to the disk on both sides."""
    count = bench.pick(100, 3)
    stored: list[list[str]] = []

    def prepare(turn: int) -> list[dict[str, Any]]:
        return large_entries(keys(turn * count, count), BYTE_SIZE)

    async def main() -> dict[str, list[float]]:
        blobs = GCSBlobStore(f"gs://{BUCKET}/ours/", endpoint_url=endpoint_url)
        with contextlib.closing(Bare(folder)) as rows:
            async with (
                bare_storage(endpoint_url) as storage,
                LTMBackend(
                    f"sqlite:///{folder}/ltm.db", blobs, timeout=None, max_concurrency=CONCURRENCY
                ) as ltm,
            ):
                bare = BareMemory(rows, storage)

                async def store(work: Sequence[Mapping[str, Any]]) -> None:
                    assert (await ltm.store_batch(work)).raise_for_error().stored == len(work)

                async def retrieve(wanted: Sequence[str]) -> dict[str, Any]:
                    read = (await ltm.retrieve_batch(wanted)).raise_for_error()
                    return {key: entry.value for key, entry in read.results.items()}

                if verb == "store":
                    spent_ms = await race(
                        {"ours": store, "bare": bare.store}, prepare, rounds=bench.pick(40, 2)
                    )
                else:
                    for turn in range(3):
                        work = prepare(turn)
                        await store(work)
                        await bare.store(work)
                        stored.append([entry["key"] for entry in work])
                    assert await retrieve(stored[0]) == await bare.retrieve(stored[0])
                    spent_ms = await race(
                        {"ours": retrieve, "bare": bare.retrieve},
                        lambda turn: stored[turn % len(stored)],
                        rounds=bench.pick(60, 2),
                    )
        await blobs.aclose()
        return spent_ms

    title = f"{verb}_batch {count} blobs of 64 KiB in GCS, {latency_ms} ms away"
    bench.report(ratio(title, bench.run(main), "bare", limit=BLOB_BUDGET))


_FIRST_PUT = """
import asyncio, sys, time
from ltm_async import GCSBlobStore
async def main():
    late, done = [], False
    async def watch():
        while not done:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001)
    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    blobs = GCSBlobStore("gs://bench/first/", endpoint_url=sys.argv[1])
    began = time.perf_counter()
    await blobs.put(sys.argv[2], b"x")
    print((time.perf_counter() - began) * 1e3, max(late) * 1e3)
    done = True
    await watcher
    await blobs.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("latency_ms", [0])
def test_a_first_put(bench: Bench, endpoint_url: str) -> None:
    """The import of the driver included, and how long it holds up the loop beside it."""

    def measure() -> tuple[list[float], list[float]]:
        first_ms, late_ms = [], []
        for turn in range(bench.pick(15, 2)):
            first, late = map(float, python("-c", _FIRST_PUT, endpoint_url, str(turn)).split())
            first_ms.append(first)
            late_ms.append(late)
        return first_ms, late_ms

    first_ms, late_ms = bench.call(measure)
    bench.report(
        spread("first put to GCS of a process", first_ms),
        spread("longest loop stall in it", late_ms),
    )
