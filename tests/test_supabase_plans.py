"""What row-level security does to the plans of statements: none reads what is another's."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from .databases import TABLES, Console
from .projects import Project
from .servers.postgrest import PostgREST
from .test_postgres_schema import Planned, fill, run_every_function

USER = json.dumps({"sub": "a user", "owners": [""]})
OTHERS = """
INSERT INTO {}ltm_texts SELECT 'others', 'k' || n, '''tea'':1'::tsvector, 1
FROM generate_series(1, 20000) AS n;
INSERT INTO {}ltm_entries SELECT 'others', 'k' || n, 1, 'w', 'h', 1, '1', NULL, '{"a":1}', 1, 1, 1
FROM generate_series(1, 20000) AS n;
"""


@pytest.fixture
def filled(supabase_server: PostgREST, console: Console) -> Iterator[Project]:
    project = Project(supabase_server, console)
    yield project
    project.clear()


@pytest.mark.parametrize("at_first", [False, True], ids=["analyzed", "grown"])
async def test_under_policies_every_statement_finds_its_rows_by_an_index(
    filled: Project, at_first: bool
) -> None:
    """A policy is asked before any operator that might tell something, unless that is known to
    tell nothing; those of text search are not.
    """
    planned = Planned(filled)
    async with planned as conn:
        await conn.execute("SET ROLE authenticated")
        await conn.execute("SELECT set_config('request.jwt.claims', $1, false)", USER)
        if at_first:
            for _ in range(7):  # plans are made, and kept, for tables as small as that
                await run_every_function(conn, 10)
            filled.clear()
        await asyncio.to_thread(fill, filled, 5_000)
        await asyncio.to_thread(filled.run, OTHERS)
        if not at_first:
            await asyncio.to_thread(filled.run, "; ".join(f"ANALYZE {{}}{t}" for t in TABLES))
        planned.plans.clear()
        for _ in range(7):
            await run_every_function(conn, 10)
    scans = [
        found
        for plan in planned.plans
        if "One-Time Filter: false" not in plan  # which is not run
        for found in re.findall(r"(?:Seq|Tid|Index|Only) Scan .*ltm_\w+.*\n.*", plan)
    ]
    assert len(scans) > 500
    for scan in scans:
        assert "Seq Scan" not in scan, scan
        found_by = r"(Index|TID) Cond: .*(namespace = |ctid = )"
        assert re.search(found_by, scan), scan
        keys = r"key|blob_id|expires_at|due_at|deleted_at|ctid"
        by = "changed_by" if "_changed on" in scan else keys
        assert re.search(by, scan) or "ltm_texts" in scan or "ltm_vectors" in scan, scan
