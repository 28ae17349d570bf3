"""Blobs on Azurite on this machine, beside bare obstore, and how soon a process has its first.

The server takes part of the same cores, so a wall clock shows what a user waits, and the CPU time
of this process what the library costs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bench.bare_obstore import BareObstore, at_once
from bench.conftest import Bench
from bench.workloads import keys, large_entries, phases, race, ratio, spread
from tests.azure_stores import container_of, store_on
from tests.servers.azurite import Azurite
from tests.servers.fixtures import azure_server  # noqa: F401

BUDGET = 1.15
BLOB_BYTES = 64 * 1024
CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("verb", ["put", "get"])
def test_store(bench: Bench, azure_server: Azurite, verb: str, clock: str) -> None:  # noqa: F811
    count = bench.pick(100, 3)

    def prepare(turn: int) -> dict[str, bytes]:
        made = large_entries(keys(turn * count, count), BLOB_BYTES)
        return {entry["key"]: entry["value"]["page"].encode() for entry in made}

    async def main() -> dict[str, list[float]]:
        server = azure_server
        blobs = store_on(server)
        bare = BareObstore(
            server.endpoint_url, server.account_name, server.account_key, container_of(blobs)
        )

        async def put(objects: dict[str, bytes]) -> None:
            await at_once(blobs.put(name, data) for name, data in objects.items())

        async def get(names: Sequence[str]) -> list[bytes]:
            return await at_once(blobs.get(name, limit=BLOB_BYTES + 1) for name in names)

        rounds = bench.pick(25, 2)
        sides: dict[str, Callable[[Any], Awaitable[object]]] = {"ours": put, "bare": bare.put}
        if verb == "get":
            objects = prepare(0)
            await put(objects)
            await bare.put(objects)
            assert await get(list(objects)) == await bare.get(objects) == [*objects.values()]
            sides = {"ours": get, "bare": bare.get}
            spent = await race(sides, lambda _: list(objects), rounds=rounds, clock=CLOCKS[clock])
        else:
            spent = await race(sides, prepare, rounds=rounds, clock=CLOCKS[clock])
        await blobs.aclose()
        return spent

    title = f"AzureBlobStore {verb}, {count} blobs of 64 KiB, {clock}"
    bench.report(ratio(title, bench.run(main), "bare", limit=BUDGET))


_OURS = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio
from ltm_async import AzureBlobStore
mark("import AzureBlobStore, asyncio with it")
async def main(uri, endpoint_url, account, key):
    blobs = AzureBlobStore(uri, endpoint_url=endpoint_url, account_name=account, account_key=key)
    mark("constructor")
    await blobs.open()
    mark("open, obstore imported")
    await blobs.put(f"{time.time()}", b"x" * 65536)
    mark("first put")
    await blobs.aclose()
    mark("close")
asyncio.run(main(*sys.argv[1:]))
import json
print(json.dumps(marks))
"""
_BARE = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio, obstore
from obstore.store import AzureStore
mark("imports")
async def main(uri, endpoint_url, account, key):
    store = AzureStore(uri.split("/")[2], endpoint=endpoint_url, account_name=account,
                       account_key=key, client_options={"allow_http": True})
    mark("open")
    await obstore.put_async(store, f"{time.time()}", b"x" * 65536, mode="create")
    mark("first put")
    await asyncio.sleep(0.01)  # or one process in five aborts
asyncio.run(main(*sys.argv[1:]))
import json
print(json.dumps(marks))
"""


def test_a_fresh_process(bench: Bench, azure_server: Azurite) -> None:  # noqa: F811
    server = azure_server
    arguments = [f"az://{server.new_container()}/", server.endpoint_url]
    arguments += [server.account_name, server.account_key]

    def measure() -> dict[str, list[dict[str, float]]]:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        for _ in range(bench.pick(15, 2)):
            for side, code in (("ours", _OURS), ("bare", _BARE)):
                runs[side].append(phases(code, *arguments))
        return runs

    runs = bench.call(measure)
    for side, side_runs in runs.items():
        for phase in side_runs[-1]:
            bench.report(
                spread(f"Azure cold start, {side}: {phase}", [run[phase] for run in side_runs])
            )
