"""How much memory a batch takes beyond what its caller holds; one process, one measurement.

``python -m bench.memory store|retrieve COUNT BYTES INFLIGHT_BYTES tracemalloc|rss`` prints it in
bytes.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Literal

from bench.workloads import keys, large_entries
from ltm_async import LTMBackend

By = Literal["tracemalloc", "rss"]


async def measure(verb: str, count: int, byte_size: int, inflight_bytes: int, by: By) -> int:
    """Bytes at the highest point of a batch, beyond what was there before it.

    What ``retrieve_batch`` gives is its caller's, and does not count either.
    """
    with tempfile.TemporaryDirectory(prefix="ltm-bench-") as folder:
        async with LTMBackend(
            f"sqlite:///{folder}/ltm.db",
            f"{folder}/blobs",
            max_inflight_bytes=inflight_bytes,
            timeout=None,
        ) as ltm:
            await ltm.store_batch(large_entries(keys(count, 50), byte_size))  # modules, threads
            work = large_entries(keys(0, count), byte_size)
            if verb == "retrieve":
                await ltm.store_batch(work)
                work = []
            if by == "tracemalloc":
                tracemalloc.start()
            before = _restart(by)
            if verb == "retrieve":
                read = await ltm.retrieve_batch(keys(0, count))
                assert read.raise_for_error().found == count
                return _peak(by) - _now(by)
            done = await ltm.store_batch(work)
            assert done.raise_for_error().stored == count
            return _peak(by) - before


def _restart(by: By) -> int:
    """Forget the peak so far; return what is in use."""
    gc.collect()
    if by == "tracemalloc":
        tracemalloc.reset_peak()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    return _now(by)


def _now(by: By) -> int:
    return tracemalloc.get_traced_memory()[0] if by == "tracemalloc" else _status("VmRSS")


def _peak(by: By) -> int:
    return tracemalloc.get_traced_memory()[1] if by == "tracemalloc" else _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


if __name__ == "__main__":
    verb, *numbers, how = sys.argv[1:]
    count, byte_size, inflight_bytes = map(int, numbers)
    by: By = "rss" if how == "rss" else "tracemalloc"
    print(asyncio.run(measure(verb, count, byte_size, inflight_bytes, by)))
