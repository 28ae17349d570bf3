"""A hit of the cache beside the retrieve in it, and a miss beside a retrieve and a store."""

from __future__ import annotations

from typing import Any

import pytest

from bench.conftest import Bench
from bench.figures import ratio
from bench.racing import Race, race
from bench.workloads import document, keys
from ltm_async import Cache, LTMBackend

HIT_BUDGET = 1.5
ROUNDS = 1_000
OVER = "ltm.retrieve"


def url_of(catalog: str, folder: str, request: pytest.FixtureRequest) -> str:
    if catalog == "sqlite":
        return f"sqlite:///{folder}/ltm.db?synchronous=NORMAL"
    return str(request.getfixturevalue("dsn"))


@pytest.mark.parametrize("catalog", ["sqlite", "postgres"])
@pytest.mark.parametrize("how", ["wrap", "cached"])
def test_a_hit(
    bench: Bench, folder: str, how: str, catalog: str, request: pytest.FixtureRequest
) -> None:
    url = url_of(catalog, folder, request)
    everything = keys(0, bench.pick(1_000, 20))
    rounds = bench.pick(ROUNDS, 3)

    async def main() -> Race:
        runs = 0

        async def find(key: str) -> dict[str, Any]:
            nonlocal runs
            runs += 1
            return document(key, 0)

        async with LTMBackend(url, folder, timeout=None) as ltm:
            cache = Cache(ltm, cleanup_probability=0, lease=None)
            cached = cache.cached()(find)
            names = {key: await cache.key(cached, key) for key in everything}
            for key in everything:
                await cached(key)

            async def wrap(key: str) -> None:
                assert (await cache.wrap(find, {"key": key}))["_cache_hit"]

            async def retrieve(key: str) -> None:
                assert (await ltm.retrieve(names[key])).found

            run = await race(
                {"ours": wrap if how == "wrap" else cached, OVER: retrieve},
                lambda turn: everything[turn % len(everything)],
                rounds=rounds,
            )
            assert runs == len(everything)
            return run

    run = bench.run(main)
    what = f"a hit by {how}, {catalog}"
    bench.report(ratio("Cache", what, run.wall_ms, OVER, limit=HIT_BUDGET))


@pytest.mark.parametrize("lease", [None, 30.0], ids=["no lease", "lease"])
def test_a_miss(bench: Bench, dsn: str, folder: str, lease: float | None) -> None:
    over = "ltm.retrieve and ltm.store"

    async def main() -> Race:
        async def find(key: str) -> dict[str, Any]:
            return document(key, 0)

        async with LTMBackend(dsn, folder, timeout=None) as ltm:
            cache = Cache(ltm, cleanup_probability=0, lease=lease)

            async def wrap(key: str) -> None:
                assert not (await cache.wrap(find, {"key": key}))["_cache_hit"]

            async def by_hand(key: str) -> None:
                assert not (await ltm.retrieve(key)).found
                await ltm.store(key, await find(key), ttl=60)

            return await race(
                {"ours": wrap, over: by_hand},
                lambda turn: keys(turn, 1)[0],
                rounds=bench.pick(ROUNDS // 2, 3),
            )

    what = "a miss, postgres" + ("" if lease is None else ", with a lease")
    bench.report(ratio("Cache", what, bench.run(main).wall_ms, over))
