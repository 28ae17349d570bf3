"""The memory of a batch has a limit that does not depend on the size of the batch."""

from __future__ import annotations

import pytest

from bench.conftest import Bench
from bench.workloads import Figure, python

MIB = 1024 * 1024
ROWS_BYTES = 500 * 2048
"""One batch of rows: what a row, its key, hash, blob name and SQL parameters weigh."""


@pytest.mark.parametrize("by", ["tracemalloc", "rss"])
@pytest.mark.parametrize("inflight", [64, 8])
@pytest.mark.parametrize(("count", "byte_size"), [(10_000, 20_000), (40_000, 5_000)])
def test_memory_of_a_batch_of_blobs(
    bench: Bench, count: int, byte_size: int, inflight: int, by: str
) -> None:
    count = bench.pick(count, 60)
    arguments = [str(count), str(byte_size), str(inflight * MIB), by]
    peak = bench.call(lambda: int(python("-m", "bench.memory", *arguments)))
    bench.report(
        Figure(
            what=f"store_batch of {count:,} blobs of {byte_size:,} bytes, "
            f"{inflight} MiB in flight, {by}",
            value=peak / MIB,
            unit="MiB",
            limit=(inflight * MIB + ROWS_BYTES) / MIB,
        )
    )
