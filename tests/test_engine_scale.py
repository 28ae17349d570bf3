"""Many entries in little memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, sys
from pathlib import Path
from ltm_async import DuckDBQueryEngine, LTMBackend, SQLiteCatalog

LARGE = "x" * 131_072
MIB = 1024 * 1024


class OneContent:
    '''A blob store all of whose blobs are the same bytes, so that they take no memory.'''

    name = "one"

    async def open(self):
        pass

    async def aclose(self):
        pass

    async def put(self, path, data):
        self.data = data

    async def get(self, path, *, limit):
        return self.data[:limit]

    async def delete(self, paths):
        return {}

    async def scan(self, prefix):
        return
        yield

    def uri(self, path):
        return path


def peak():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


async def main():
    catalog = SQLiteCatalog(":memory:")
    async with LTMBackend(catalog, OneContent(), on_unavailable="raise", timeout=None) as ltm:
        for start in range(0, 100_000, 5000):
            done = await ltm.store_batch(
                {
                    "key": f"k{n:06}",
                    "value": LARGE if n % 100 == 0 else n,
                    "metadata": {"group": n % 7},
                }
                for n in range(start, start + 5000)
            )
            assert done.stored == 5000
        engine = DuckDBQueryEngine(ltm, threads=2, memory_limit="64MB", temp_directory=sys.argv[1])
        async with engine:
            await engine.query("SELECT max(value) FROM entries", prefix="k00000")  # warm up
            Path("/proc/self/clear_refs").write_text("5")
            before = peak()
            found = await engine.query(
                "SELECT (metadata->>'group')::INT AS g, count(*), count(*) FILTER (NOT inlined),"
                " sum(length(value)) FROM entries GROUP BY g ORDER BY g"
            )
            assert found.entries == 100_000 and not found.errors
            assert sum(row[1] for row in found.rows) == 100_000
            assert sum(row[2] for row in found.rows) == 1000
            small = sum(len(str(n)) for n in range(100_000) if n % 100)
            assert sum(row[3] for row in found.rows) == 1000 * len(f'"{LARGE}"') + small
            print((peak() - before) // MIB)


asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_aggregates_over_a_hundred_thousand_entries_take_bounded_memory(tmp_path: object) -> None:
    """The values have 125 MiB; DuckDB may use 61 of them, and the pages in flight take some."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 110
