"""From a new process to its first answers, phase by phase, beside a bare program."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.conftest import Bench
from bench.workloads import phases, python, spread

IMPORT_BUDGET_MS = 5.0
COLD_START_BUDGET_MS = 100.0

_OURS = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import ltm_async
mark("import ltm_async")
from ltm_async import LTMBackend
mark("import the backend, asyncio with it")
import asyncio, json
async def main(folder):
    mark("loop")
    ltm = LTMBackend(f"sqlite:///{folder}/ltm.db", f"{folder}/blobs")
    mark("constructor")
    await ltm.__aenter__()
    mark("open")
    assert (await ltm.store("key", {"turn": time.time()})).stored
    mark("first store")
    assert (await ltm.retrieve("key")).found
    mark("first retrieve")
asyncio.run(main(sys.argv[1]))
print(json.dumps(marks))
"""
_BARE = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
import asyncio
from bench.bare import Bare
mark("imports")
import json
async def main(folder):
    mark("loop")
    bare = Bare(folder)
    mark("open")
    bare.store([{"key": "key", "value": {"turn": time.time()}}])
    mark("first store")
    assert bare.retrieve(["key"])
    mark("first retrieve")
asyncio.run(main(sys.argv[1]))
print(json.dumps(marks))
"""
_IMPORT = """
import time
began = time.perf_counter()
import ltm_async
print((time.perf_counter() - began) * 1e3)
import sys
assert not {"asyncio", "sqlite3"} & {*sys.modules}
"""


def test_import(bench: Bench) -> None:
    def measure() -> tuple[list[float], list[float]]:
        inside_ms, around_ms = [], []
        for _ in range(bench.pick(31, 2)):
            began = time.monotonic()
            python("-c", "pass")
            between = time.monotonic()
            inside_ms.append(float(python("-c", _IMPORT)))
            around_ms.append((time.monotonic() - between - (between - began)) * 1e3)
        return inside_ms, around_ms

    inside_ms, around_ms = bench.call(measure)
    bench.report(
        spread("import ltm_async, by its own clock", inside_ms, limit=IMPORT_BUDGET_MS),
        spread("import ltm_async, process over bare process", around_ms, limit=IMPORT_BUDGET_MS),
    )


@pytest.mark.parametrize("file", ["new", "existing"])
def test_a_fresh_process(bench: Bench, folder: str, file: str) -> None:
    def measure() -> dict[str, list[dict[str, float]]]:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        for turn in range(bench.pick(21, 2)):
            place = Path(folder, str(turn if file == "new" else 0))
            place.mkdir(exist_ok=True)
            for side, code in (("ours", _OURS), ("bare", _BARE)):
                runs[side].append(phases(code, str(place)))
        return runs

    runs = bench.call(measure)
    for phase in runs["ours"][-1]:
        spent_ms = [run[phase] for run in runs["ours"]]
        bench.report(spread(f"cold start, {file} file: {phase}", spent_ms))
    over_ms = [
        ours["in all"] - bare["in all"]
        for ours, bare in zip(runs["ours"], runs["bare"], strict=True)
    ]
    bench.report(spread(f"cold start, {file} file: over bare", over_ms, limit=COLD_START_BUDGET_MS))
