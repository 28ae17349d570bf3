"""The memory of a batch has a limit that does not depend on the size of the batch."""

from __future__ import annotations

import pytest

from bench.conftest import Bench
from bench.figures import Figure
from bench.processes import python

MIB = 1024 * 1024
ROWS_BYTES = 500 * 2048
"""One batch of rows: what a row, its key, hash, blob name and SQL parameters weigh."""
CASES = [
    ("store", 1_000, 64 * 1024, 8),
    ("store", 4_000, 20_000, 8),
    ("store", 40_000, 200, 8),
    ("retrieve", 4_000, 20_000, 8),
]
"""What is called with how many entries of how many bytes, and with how many MiB in flight."""


@pytest.mark.parametrize("by", ["tracemalloc", "rss"])
@pytest.mark.parametrize(("verb", "count", "byte_size", "inflight"), CASES)
def test_memory_of_a_batch(
    bench: Bench, verb: str, count: int, byte_size: int, inflight: int, by: str
) -> None:
    """Of a store it is beyond the entries that are given, of a retrieve beyond what it gives.

    The interpreter keeps what it has freed, so RSS may be above what is in use.
    """
    what = f"{verb}_batch of {count:,} of {byte_size:,} bytes, {inflight} MiB in flight, {by}"
    count = bench.pick(count, 60)
    arguments = [verb, str(count), str(byte_size), str(inflight * MIB), by]
    peak = bench.call(lambda: int(python("-m", "bench.memory", *arguments)))
    limit = (inflight * MIB + ROWS_BYTES) / MIB
    bench.report(Figure(store="Memory", what=what, value=peak / MIB, unit="MiB", limit=limit))
