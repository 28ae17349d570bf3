"""From a new process to its first answers from PostgreSQL, beside a bare asyncpg program."""

from __future__ import annotations

import asyncio

import pytest

from bench.bare_postgres import BarePostgres, bare_connection
from bench.conftest import Bench
from bench.workloads import phases, spread
from ltm_async import LTMBackend, PostgresCatalog

COLD_START_BUDGET_MS = 100.0
INIT_BUDGET_MS = 50.0

_OURS = """
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
from ltm_async import LTMBackend
mark("import ltm_async, asyncio with it")
from ltm_async import PostgresCatalog
mark("import the driver")
import asyncio, json
async def main(dsn, name, known):
    mark("loop")
    options = {"install": False, "pooler": False} if known == "known" else {}
    ltm = LTMBackend(PostgresCatalog(dsn, schema=name, **options), "memory:")
    mark("constructor")
    async with ltm:
        mark("connect" if options else "connect, schema")
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
import asyncpg
from bench.bare_postgres import BarePostgres
mark("import the driver")
import json
async def main(dsn, name, known):
    mark("loop")
    conn = await asyncpg.connect(dsn, ssl=False)
    mark("connect")
    bare = BarePostgres(conn, table=name)
    if known != "known":
        await bare.install()
        mark("schema")
    await bare.store("key", {"turn": time.time()})
    mark("first store")
    assert await bare.retrieve("key")
    mark("first retrieve")
    await conn.close()
asyncio.run(main(*sys.argv[1:]))
print(json.dumps(marks))
"""


@pytest.mark.parametrize("schema", ["new", "existing", "known"])
def test_a_fresh_process(bench: Bench, dsn: str, schema: str) -> None:
    """*known* is a schema that is not asked for, as with ``install=False``."""

    def measure() -> dict[str, list[dict[str, float]]]:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
        if schema == "known":
            asyncio.run(_install(dsn, "cold0"))
        for turn in range(bench.pick(31, 2)):
            name = f"cold{turn if schema == 'new' else 0}"
            for side, code in (("ours", _OURS), ("bare", _BARE)):
                runs[side].append(phases(code, dsn, name, schema))
        return runs

    runs = bench.call(measure)
    title = f"cold start, {schema} schema"
    for side in "ours", "bare":
        for phase in runs[side][-1]:
            spent_ms = [run[phase] for run in runs[side]]
            bench.report(spread(f"{title}, {side}: {phase}", spent_ms))
    init_ms = [sum(_init(run)) for run in runs["ours"]]
    with_driver_ms = [sum(_init(run)) + run["import the driver"] for run in runs["ours"]]
    over_ms = [
        ours["in all"] - bare["in all"]
        for ours, bare in zip(runs["ours"], runs["bare"], strict=True)
    ]
    bench.report(
        spread(f"{title}: PostgresCatalog init", init_ms, limit=INIT_BUDGET_MS),
        spread(f"{title}: the same with asyncpg's import", with_driver_ms, limit=INIT_BUDGET_MS),
        spread(f"{title}: over bare", over_ms, limit=COLD_START_BUDGET_MS),
    )


def _init(run: dict[str, float]) -> list[float]:
    """Its constructor, and to connect and look at the schema."""
    return [spent_ms for phase, spent_ms in run.items() if phase.startswith("con")]


async def _install(dsn: str, name: str) -> None:
    async with (
        LTMBackend(PostgresCatalog(dsn, schema=name), "memory:"),
        bare_connection(dsn) as conn,
    ):
        await BarePostgres(conn, table=name).install()
