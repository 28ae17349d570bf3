"""SQL over many entries, beside bare DuckDB that is fed with the same rows by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bench.conftest import Bench
from bench.figures import ratio, spread
from bench.racing import Race, race
from bench.workloads import document, keys
from ltm_async import DuckDBQueryEngine, LTMBackend, UnavailableError
from ltm_async.entry import blob_path

LOAD_BUDGET = 2.5
CANCEL_BUDGET_MS = 100.0
HEAVY = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE hash(a.range, b.range) = 7"
SQL = (
    "SELECT value->>'agent' AS agent, count(*) AS n, avg((value->>'confidence')::DOUBLE) AS mean,"
    " max(length(value)) AS longest FROM entries GROUP BY agent ORDER BY agent"
)
RANKED = "SELECT key, score FROM matches ORDER BY score DESC, key LIMIT 10"


class BareDuckDB:
    """Reads rows and files of the same memory, page by page, and checks nothing."""

    def __init__(self, folder: str) -> None:
        self._db = sqlite3.connect(f"{folder}/ltm.db")
        self._blobs = Path(folder, "blobs")
        self._base = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "512MB"})

    def aggregate(self) -> list[Any]:
        cursor = self._base.cursor()
        cursor.execute("CREATE TEMP TABLE entries (key VARCHAR, metadata JSON, value JSON)")
        rows = self._db.execute(
            "SELECT key, metadata, inlined_value, blob_id FROM ltm_entries ORDER BY key"
        )
        while page := rows.fetchmany(500):
            lines = [(key, more, value or self._blob(blob)) for key, more, value, blob in page]
            cursor.execute(
                "INSERT INTO entries SELECT line[1], line[2], line[3]"
                " FROM (SELECT unnest(from_json($1::VARCHAR, '[[\"VARCHAR\"]]')) AS line)",
                [json.dumps(lines)],
            )
        found = cursor.execute(SQL).fetchall()
        cursor.close()
        return found

    def _blob(self, blob_id: str) -> str:
        return (self._blobs / blob_path("", blob_id)).read_text()


def test_cancel(bench: Bench) -> None:
    """From its cancellation to the end of its call, and to the next query that is answered."""

    async def measure() -> tuple[list[float], list[float]]:
        returned_ms, ended_ms = [], []
        async with (
            LTMBackend("memory:", "memory:", on_unavailable="raise") as ltm,
            DuckDBQueryEngine(ltm, threads=2) as engine,
            await engine.load() as loaded,
        ):
            for _ in range(bench.pick(101, 2)):
                task = asyncio.create_task(loaded.query(HEAVY))
                await asyncio.sleep(0.05)
                assert not task.done()
                task.cancel()
                began = time.perf_counter()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                returned_ms.append((time.perf_counter() - began) * 1e3)
                while True:
                    with contextlib.suppress(UnavailableError):  # it has not ended yet
                        await loaded.query("SELECT 1")
                        break
                    await asyncio.sleep(0.001)
                ended_ms.append((time.perf_counter() - began) * 1e3)
        return returned_ms, ended_ms

    returned_ms, ended_ms = bench.run(measure)
    bench.report(
        spread("DuckDB", "cancel a query that is at work", returned_ms, limit=CANCEL_BUDGET_MS)
    )
    bench.report(spread("DuckDB", "until the next can be asked of the same entries", ended_ms))


def test_aggregate(bench: Bench, folder: str) -> None:
    count = bench.pick(20_000, 300)

    async def measure() -> tuple[Race, list[float]]:
        async with LTMBackend(f"sqlite:///{folder}/ltm.db", f"{folder}/blobs", timeout=None) as ltm:
            names = keys(0, count)
            for start in range(0, count, 5000):
                work = [
                    {
                        "key": key,
                        "value": {
                            **document(key, n),
                            **({"page": "x" * 16_384} if n % 100 == 0 else {}),
                        },
                        "metadata": {"n": n},
                    }
                    for n, key in enumerate(names[start : start + 5000], start)
                ]
                (await ltm.store_batch(work)).raise_for_error()
            bare = BareDuckDB(folder)

            async with DuckDBQueryEngine(ltm, threads=2) as engine:

                async def ours(_: int) -> None:
                    found = await engine.query(SQL)
                    assert found.rows == bare_rows

                async def by_hand(_: int) -> None:
                    bare.aggregate()

                bare_rows = bare.aggregate()
                sides = {"ours": ours, "bare DuckDB": by_hand}
                run = await race(sides, lambda turn: turn, rounds=bench.pick(7, 2))
                warm_ms = []
                async with await engine.load() as loaded:
                    for _ in range(bench.pick(21, 2)):
                        began = time.perf_counter()
                        assert (await loaded.query(SQL)).rows == bare_rows
                        warm_ms.append((time.perf_counter() - began) * 1e3)
            return run, warm_ms

    run, warm_ms = bench.run(measure)
    what = f"load {count:,} entries, {count // 100:,} of them blobs, and aggregate"
    bench.report(ratio("DuckDB", what, run.wall_ms, "bare DuckDB", limit=LOAD_BUDGET))
    bench.report(spread("DuckDB", f"aggregate over {count:,} loaded entries", warm_ms))


@pytest.mark.parametrize("count", [10_000, 100_000])
def test_search(bench: Bench, count: int) -> None:
    """Texts of 60 words, of which one that is sought is in a tenth and the other in a hundredth."""
    made = bench.pick(count, 300)

    async def measure() -> list[list[float]]:
        rng = random.Random(7)
        ours: list[list[float]] = [[], [], [], []]
        async with LTMBackend("memory:", "memory:", timeout=None) as ltm:
            for start in range(0, made, 5000):
                work = [
                    {"key": f"k{n:06}", "value": {"text": text_of(n, rng)}}
                    for n in range(start, min(start + 5000, made))
                ]
                (await ltm.store_batch(work)).raise_for_error()
            async with DuckDBQueryEngine(ltm, threads=2) as engine:
                for _ in range(bench.pick(5 if count < 100_000 else 2, 2)):
                    began = time.perf_counter()
                    async with await engine.load():
                        ours[0].append((time.perf_counter() - began) * 1e3)
                    began = time.perf_counter()
                    once = await engine.query(RANKED, search="green tea")
                    ours[1].append((time.perf_counter() - began) * 1e3)
                    began = time.perf_counter()
                    async with await engine.load(index_text=True) as loaded:
                        ours[2].append((time.perf_counter() - began) * 1e3)
                        for _ in range(bench.pick(7, 2)):
                            began = time.perf_counter()
                            found = await loaded.query(RANKED, search="green tea")
                            ours[3].append((time.perf_counter() - began) * 1e3)
                            assert found.rows == once.rows
                            assert len(found.rows) == 10
        return ours

    plain, at_once, indexed, searched = bench.run(measure)
    bench.report(spread("DuckDB", f"load {made:,} texts", plain))
    bench.report(spread("DuckDB", f"load {made:,} texts and search them once", at_once))
    bench.report(spread("DuckDB", f"load {made:,} texts with an index of their words", indexed))
    bench.report(spread("DuckDB", f"search {made:,} loaded texts", searched))


def text_of(n: int, rng: random.Random) -> str:
    words = [f"w{int(rng.paretovariate(0.5)) % 30_000}" for _ in range(58)]
    return " ".join([*words, "tea" if n % 10 == 0 else "x", "green" if n % 100 == 0 else "y"])
