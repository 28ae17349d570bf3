"""SupabaseCatalog on a real PostgREST beside a bare httpx2 call of an equivalent function."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from bench.bare_supabase import SCHEMA, BareSupabase, Entries, bare_client
from bench.conftest import Bench
from bench.sides import our_call, retrieve_batch, store_batch
from bench.workloads import (
    ROUNDS,
    document,
    entries,
    keys,
    phases,
    race,
    ratio,
    spread,
    titled,
)
from ltm_async import LTMBackend
from ltm_async.schema import supabase_script
from tests.databases import Console
from tests.projects import RestPlace
from tests.servers.postgres import Postgres
from tests.servers.postgrest import DEFAULT_PRIVILEGES, SUPABASE, PostgREST, token_of

BUDGET = 1.5
INIT_BUDGET_MS = 100.0
NAME, BARE = "bench", "a bare httpx2 call"
ME = "a-user"


@pytest.fixture(scope="module")
def place(postgres: Postgres) -> Iterator[RestPlace]:
    console = Console(postgres.dsn)
    console.run(SUPABASE)
    console.run(f"CREATE SCHEMA {NAME}; {DEFAULT_PRIVILEGES.format(schema=NAME)}")
    console.run(supabase_script(NAME) + SCHEMA.format(schema=NAME))
    with PostgREST(postgres) as api:
        api.expose(console.run, NAME)
        yield RestPlace(postgres.dsn, NAME, "", api.url, token_of(ME))
    console.close()


@contextlib.asynccontextmanager
async def both(place: RestPlace) -> AsyncIterator[tuple[LTMBackend, BareSupabase]]:
    async with (
        LTMBackend(place.catalog(), "memory:", namespace=ME) as ltm,
        bare_client(place.url, NAME, place.access_token, ME) as bare,
    ):
        yield ltm, bare


@pytest.mark.parametrize("count", [100, 500])
@pytest.mark.parametrize("fresh", [True, False], ids=["new", "existing"])
def test_store_batch(bench: Bench, place: RestPlace, count: int, fresh: bool) -> None:
    title = "Supabase " + titled("store_batch", count, 500) + (" new" if fresh else " existing")
    rounds = bench.pick(ROUNDS[count], 2)
    count = bench.pick(count, 7)
    everything = keys(0, bench.pick(20_000, 20))
    salt = 1_000_000 * count

    def prepare(turn: int) -> Entries:
        if fresh:
            return entries(keys(salt + turn * count, count), turn)
        return entries(random.Random(turn).sample(everything, count), turn)

    async def main() -> dict[str, list[float]]:
        async with both(place) as (ltm, bare):
            if not fresh:
                await fill(ltm, bare, entries(everything, -1))
            spent_ms = await race(
                {"ours": lambda work: store_batch(ltm, work), BARE: bare.store_batch},
                prepare,
                rounds=rounds,
            )
            last = [entry["key"] for entry in prepare(len(spent_ms["ours"]))]
            assert await retrieve_batch(ltm, last) == await bare.retrieve_batch(last)
            return spent_ms

    bench.report(ratio(title, bench.run(main), BARE, limit=BUDGET))


@pytest.mark.parametrize("count", [100, 500])
def test_retrieve_batch(bench: Bench, place: RestPlace, count: int) -> None:
    title = "Supabase " + titled("retrieve_batch", count, 500)
    rounds = bench.pick(ROUNDS[count], 2)
    count = bench.pick(count, 7)
    everything = keys(0, bench.pick(20_000, 20))

    async def main() -> dict[str, list[float]]:
        async with both(place) as (ltm, bare):
            await fill(ltm, bare, entries(everything, 0))
            return await race(
                {
                    "ours": lambda wanted: retrieve_batch(ltm, wanted),
                    BARE: bare.retrieve_batch,
                },
                lambda turn: random.Random(turn).sample(everything, count),
                rounds=rounds,
            )

    bench.report(ratio(title, bench.run(main), BARE, limit=BUDGET))


@pytest.mark.parametrize("method", ["store", "retrieve"])
def test_one_entry(bench: Bench, place: RestPlace, method: str) -> None:
    everything = keys(0, bench.pick(20_000, 20))
    shuffled = random.Random(1).sample(everything, len(everything))

    async def main() -> dict[str, list[float]]:
        async with both(place) as (ltm, bare):
            await fill(ltm, bare, entries(everything, -1))
            ours = our_call(ltm, method)

            async def by_hand(work: tuple[str, int]) -> None:
                key, turn = work
                if method == "store":
                    await bare.store(key, document(key, turn))
                else:
                    await bare.retrieve(key)

            return await race(
                {"ours": lambda work: ours(*work), BARE: by_hand},
                lambda turn: (shuffled[turn], turn),
                rounds=bench.pick(500, 2),
            )

    bench.report(ratio(f"Supabase {method}, one entry", bench.run(main), BARE, limit=BUDGET))


async def fill(ltm: LTMBackend, bare: BareSupabase, work: Entries) -> None:
    await store_batch(ltm, work)
    for start in range(0, len(work), 500):
        await bare.store_batch(work[start : start + 500])


_OURS = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
from ltm_async import LTMBackend
mark("import ltm_async, asyncio with it")
from ltm_async import SupabaseCatalog
mark("import the adapter")
import asyncio, json
async def main(url, schema, key, token, namespace):
    mark("loop")
    catalog = SupabaseCatalog(url, key=key, access_token=token, schema=schema, rest_path="/")
    ltm = LTMBackend(catalog, "memory:", namespace=namespace)
    mark("constructor")
    async with ltm:
        mark("driver, connect, check")
        assert (await ltm.store("key", {"turn": time.time()})).stored
        mark("first store")
        assert (await ltm.retrieve("key")).found
        mark("first retrieve")
asyncio.run(main(*sys.argv[1:]))
print(json.dumps(marks))
"""
_BARE = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio
mark("import asyncio")
from bench.bare_supabase import bare_client
mark("import the driver")
import json
async def main(url, schema, key, token, namespace):
    mark("loop")
    async with bare_client(url, schema, token, namespace) as bare:
        mark("client")
        await bare.store("key", {"turn": time.time()})
        mark("first store")
        assert await bare.retrieve("key")
        mark("first retrieve")
asyncio.run(main(*sys.argv[1:]))
print(json.dumps(marks))
"""


def test_a_fresh_process(bench: Bench, place: RestPlace) -> None:
    def measure() -> dict[str, list[dict[str, float]]]:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        for _ in range(bench.pick(31, 2)):
            for side, code in (("ours", _OURS), ("bare", _BARE)):
                arguments = (place.url, NAME, PostgREST.anon_key, place.access_token, ME)
                runs[side].append(phases(code, *arguments))
        return runs

    runs = bench.call(measure)
    for side in "ours", "bare":
        for phase in runs[side][-1]:
            spent_ms = [run[phase] for run in runs[side]]
            bench.report(spread(f"Supabase cold start, {side}: {phase}", spent_ms))
    init_ms = [run["constructor"] + run["driver, connect, check"] for run in runs["ours"]]
    over_ms = [
        ours["in all"] - bare["in all"]
        for ours, bare in zip(runs["ours"], runs["bare"], strict=True)
    ]
    bench.report(
        spread("Supabase cold start: SupabaseCatalog init", init_ms, limit=INIT_BUDGET_MS),
        spread("Supabase cold start: over bare", over_ms, limit=INIT_BUDGET_MS),
    )
