"""Blobs on an S3 server of this machine, beside bare aiobotocore; over TLS, as in production.

The server takes part of the same cores, so a wall clock shows what a user waits, and the CPU time
of this process what the library costs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from bench.bare_s3 import BareS3, bare_s3
from bench.conftest import Bench
from bench.workloads import keys, large_entries, phases, race, ratio, spread
from ltm_async import LTMBackend, S3BlobStore
from tests.s3_stores import bucket_of, store_on
from tests.servers.fixtures import s3_tls_server  # noqa: F401
from tests.servers.ministack import MiniStack

BUDGET = 1.15
BLOB_BYTES = 64 * 1024
CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}

clocks = pytest.mark.parametrize("clock", CLOCKS)
verbs = pytest.mark.parametrize("verb", ["put", "get"])


@contextlib.asynccontextmanager
async def both(server: MiniStack) -> AsyncIterator[tuple[S3BlobStore, BareS3]]:
    blobs, ca_file, key = store_on(server), str(server.ca_file), server.key
    async with bare_s3(
        server.endpoint_url, key.access_key_id, key.secret_access_key, ca_file, bucket_of(blobs)
    ) as bare:
        yield blobs, bare
    await blobs.aclose()


@clocks
@verbs
def test_store(bench: Bench, s3_tls_server: MiniStack, verb: str, clock: str) -> None:  # noqa: F811
    count = bench.pick(100, 3)

    def prepare(turn: int) -> dict[str, bytes]:
        made = large_entries(keys(turn * count, count), BLOB_BYTES)
        return {entry["key"]: entry["value"]["page"].encode() for entry in made}

    async def main() -> dict[str, list[float]]:
        async with both(s3_tls_server) as (blobs, bare):
            at_once = BareS3(None, "")._all  # the same gate for both sides

            async def put(objects: dict[str, bytes]) -> None:
                await at_once(blobs.put(name, data) for name, data in objects.items())

            async def get(names: Sequence[str]) -> list[bytes]:
                return await at_once(blobs.get(name, limit=BLOB_BYTES + 1) for name in names)

            rounds = bench.pick(25, 2)
            if verb == "put":
                sides: dict[str, Callable[[Any], Awaitable[object]]] = {
                    "ours": put,
                    "bare": bare.put,
                }
                return await race(sides, prepare, rounds=rounds, clock=CLOCKS[clock])
            objects = prepare(0)
            await put(objects)
            await bare.put(objects)
            assert await get(list(objects)) == await bare.get(objects) == [*objects.values()]
            sides = {"ours": get, "bare": bare.get}
            return await race(sides, lambda _: list(objects), rounds=rounds, clock=CLOCKS[clock])

    title = f"S3BlobStore {verb}, {count} blobs of 64 KiB, {clock}"
    bench.report(ratio(title, bench.run(main), "bare", limit=BUDGET))


@clocks
@verbs
def test_backend(
    bench: Bench,
    s3_tls_server: MiniStack,  # noqa: F811
    folder: str,
    verb: str,
    clock: str,
) -> None:
    """The bare side encodes and hashes too, but has no catalog and checks nothing it reads."""
    count = bench.pick(100, 3)

    def prepare(turn: int) -> list[dict[str, Any]]:
        return large_entries(keys(turn * count, count), BLOB_BYTES)

    async def main() -> dict[str, list[float]]:
        async with (
            both(s3_tls_server) as (blobs, bare),
            LTMBackend(f"sqlite:///{folder}/ltm.db", blobs, timeout=None) as ltm,
        ):

            async def store(work: list[dict[str, Any]]) -> None:
                done = await ltm.store_batch(work)
                assert done.raise_for_error().uploaded == len(work)

            async def retrieve(wanted: Sequence[str]) -> None:
                assert (await ltm.retrieve_batch(wanted)).raise_for_error().found == len(wanted)

            rounds = bench.pick(25, 2)
            if verb == "put":
                sides: dict[str, Callable[[Any], Awaitable[object]]] = {
                    "ours": store,
                    "bare": bare.store,
                }
                return await race(sides, prepare, rounds=rounds, clock=CLOCKS[clock])
            work = prepare(0)
            await store(work)
            await bare.store(work)
            names = [entry["key"] for entry in work]
            sides = {"ours": retrieve, "bare": bare.retrieve}
            return await race(sides, lambda _: names, rounds=rounds, clock=CLOCKS[clock])

    method = "store_batch" if verb == "put" else "retrieve_batch"
    title = f"{method} {count} blobs of 64 KiB on S3, {clock}"
    bench.report(ratio(title, bench.run(main), "bare", limit=BUDGET))


_OURS = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio
from ltm_async import S3BlobStore
mark("import S3BlobStore, asyncio with it")
async def main(uri, endpoint_url, key_id, secret, ca_file):
    blobs = S3BlobStore(uri, endpoint_url=endpoint_url, access_key_id=key_id,
                        secret_access_key=secret, ca_file=ca_file)
    mark("constructor")
    await blobs.open()
    mark("open")
    await blobs.put(f"{time.time()}", b"x" * 65536)
    mark("first put")
asyncio.run(main(*sys.argv[1:]))
import json
print(json.dumps(marks))
"""
_BARE = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio
from aiobotocore.session import get_session
mark("imports")
async def main(uri, endpoint_url, key_id, secret, ca_file):
    _, _, bucket, prefix = uri.split("/", 3)
    async with get_session().create_client(
        "s3", endpoint_url=endpoint_url, region_name="us-east-1", verify=ca_file,
        aws_access_key_id=key_id, aws_secret_access_key=secret,
    ) as client:
        mark("open")
        await client.put_object(Bucket=bucket, Key=prefix + f"{time.time()}", Body=b"x" * 65536)
        mark("first put")
asyncio.run(main(*sys.argv[1:]))
import json
print(json.dumps(marks))
"""


def test_a_fresh_process(bench: Bench, s3_tls_server: MiniStack) -> None:  # noqa: F811
    server = s3_tls_server
    arguments = [f"s3://{server.new_bucket()}/", server.endpoint_url, server.key.access_key_id]
    arguments += [server.key.secret_access_key, str(server.ca_file)]

    def measure() -> dict[str, list[dict[str, float]]]:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        for _ in range(bench.pick(15, 2)):
            for side, code in (("ours", _OURS), ("bare", _BARE)):
                runs[side].append(phases(code, *arguments))
        return runs

    runs = bench.call(measure)
    for phase in runs["ours"][-1]:
        bench.report(spread(f"S3 cold start: {phase}", [run[phase] for run in runs["ours"]]))
    totals = {side: [run["in all"] for run in side_runs] for side, side_runs in runs.items()}
    bench.report(ratio("S3 cold start, to the first put", totals, "bare"))
