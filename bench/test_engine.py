"""SQL over many entries, beside bare DuckDB that is fed with the same rows by hand."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import duckdb

from bench.conftest import Bench
from bench.figures import ratio, spread
from bench.racing import Race, race
from bench.workloads import document, keys
from ltm_async import DuckDBQueryEngine, LTMBackend
from ltm_async.entry import blob_path

LOAD_BUDGET = 2.5
SQL = (
    "SELECT value->>'agent' AS agent, count(*) AS n, avg((value->>'confidence')::DOUBLE) AS mean,"
    " max(length(value)) AS longest FROM entries GROUP BY agent ORDER BY agent"
)


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
