"""From a new process to its first answers, phase by phase, beside a bare program."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from bench import cold_programs as programs
from bench.arenas import OpenArena
from bench.bare_postgres import BarePostgres, bare_connection
from bench.buckets import gcs_server
from bench.cold_start import Runs, figures_of, init_of, runs_of
from bench.conftest import Bench
from bench.figures import spread
from bench.processes import python
from bench.workloads import entries, keys
from ltm_async import LTMBackend, PostgresCatalog
from ltm_async.catalogs.firestore.options import TRANSPORTS
from tests.projects import RestPlace
from tests.servers.azurite import Azurite
from tests.servers.firestore import new_project
from tests.servers.ministack import MiniStack
from tests.servers.postgrest import PostgREST, token_of

IMPORT_BUDGET_MS = 5.0
WARM_BUDGET_MS = 10.0
ROUNDS = 7
INIT_MS = {"SQLite": 5.0, "PostgreSQL": 50.0, "Supabase": 100.0, "Firestore": 100.0, "DuckDB": 50.0}
"""The targets of ``requirements.md``."""


@pytest.fixture
def rounds(bench: Bench) -> int:
    return bench.pick(ROUNDS, 2)


def test_import(bench: Bench, rounds: int) -> None:
    def measure() -> tuple[list[float], list[float]]:
        inside_ms, around_ms = [], []
        for _ in range(2 * rounds):
            began = time.monotonic()
            python("-c", "pass")
            between = time.monotonic()
            inside_ms.append(float(python("-c", programs.IMPORT)))
            around_ms.append((time.monotonic() - between - (between - began)) * 1e3)
        return inside_ms, around_ms

    inside_ms, around_ms = bench.call(measure)
    bench.report(
        spread("Import", "import ltm_async, by its own clock", inside_ms, limit=IMPORT_BUDGET_MS),
        spread(
            "Import", "import ltm_async, over a bare process", around_ms, limit=IMPORT_BUDGET_MS
        ),
    )


@pytest.mark.parametrize("file", ["new", "existing"])
def test_sqlite(bench: Bench, rounds: int, folder: str, file: str) -> None:
    def arguments(turn: int) -> list[str]:
        place = Path(folder, str(turn if file == "new" else 0))
        place.mkdir(exist_ok=True)
        return [str(place)]

    runs = bench.call(runs_of, programs.SQLITE, programs.BARE_SQLITE, arguments, rounds)
    wanted = ["constructor", "open"]
    bench.report(
        *figures_of("SQLite", runs, title=f"{file} file"),
        init_of("SQLite", f"init, {file} file", runs, wanted, limit=INIT_MS["SQLite"]),
    )


@pytest.mark.parametrize("schema", ["new", "existing", "known"])
def test_postgres(bench: Bench, rounds: int, dsn: str, schema: str) -> None:
    """*known* is a schema that is not asked for, as with ``install=False``."""
    if schema == "known":
        asyncio.run(_install(dsn, "cold0"))

    def arguments(turn: int) -> list[str]:
        return [dsn, f"cold{turn if schema == 'new' else 0}", schema]

    runs = bench.call(runs_of, programs.POSTGRES, programs.BARE_POSTGRES, arguments, rounds)
    wanted = [name for name in runs["ours"][-1] if name.startswith("con")]
    store, title = "PostgreSQL", f"{schema} schema"
    bench.report(
        *figures_of(store, runs, title=title),
        init_of(store, f"init, {title}", runs, wanted, limit=INIT_MS[store]),
        init_of(
            store,
            f"init, {title}, asyncpg's import with it",
            runs,
            [*wanted, "import the driver"],
            limit=INIT_MS[store],
        ),
    )


async def _install(dsn: str, name: str) -> None:
    async with (
        LTMBackend(PostgresCatalog(dsn, schema=name), "memory:"),
        bare_connection(dsn) as conn,
    ):
        await BarePostgres(conn, table=name).install()


def test_supabase(bench: Bench, rounds: int, rest_place: RestPlace) -> None:
    me, place = uuid.uuid4().hex, rest_place
    given = [place.url, place.schema, PostgREST.anon_key, token_of(me), me]
    runs = bench.call(runs_of, programs.SUPABASE, programs.BARE_SUPABASE, lambda _: given, rounds)
    wanted = ["constructor", "driver, connect, check"]
    bench.report(
        *figures_of("Supabase", runs),
        init_of("Supabase", "init", runs, wanted, limit=INIT_MS["Supabase"]),
    )


@pytest.mark.usefixtures("firestore_server")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_firestore(bench: Bench, rounds: int, transport: str) -> None:
    """From the driver's import to its first answer is what counts as its init."""
    given = [new_project(), transport]
    runs = bench.call(runs_of, programs.FIRESTORE, programs.BARE_FIRESTORE, lambda _: given, rounds)
    store = f"Firestore, {transport}"
    wanted = ["import the driver in its thread, channel", "first answered request"]
    bench.report(
        *figures_of(store, runs),
        init_of(store, "init", runs, wanted, limit=INIT_MS["Firestore"]),
    )


@pytest.mark.parametrize("name", ["S3BlobStore", "ObstoreS3BlobStore"])
def test_s3(bench: Bench, rounds: int, s3_server: MiniStack, name: str) -> None:
    key = s3_server.key
    given = [f"s3://{s3_server.new_bucket()}/", s3_server.endpoint_url]
    given += [key.access_key_id, key.secret_access_key]
    ours = programs.S3.replace("@name@", name)
    runs = bench.call(runs_of, ours, programs.BARE_S3, lambda _: given, rounds)
    bench.report(*figures_of("S3" if name == "S3BlobStore" else "S3 by obstore", runs))


def test_gcs(bench: Bench, rounds: int) -> None:
    """And how long a first put holds up the loop, since it imports its driver."""
    with gcs_server() as port:
        url = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(
            f"{url}/storage/v1/b", json.dumps({"name": "bench"}).encode()
        ).close()
        given = ["gs://bench/cold/", url]

        def measure() -> tuple[Runs, list[float]]:
            runs = runs_of(programs.GCS, programs.BARE_GCS, lambda _: given, rounds)
            late_ms = [
                float(python("-c", programs.STALL_OF_A_FIRST_PUT, *given, str(turn)))
                for turn in range(rounds)
            ]
            return runs, late_ms

        runs, late_ms = bench.call(measure)
    bench.report(
        *figures_of("GCS", runs), spread("GCS", "longest loop stall in a first put", late_ms)
    )


def test_azure(bench: Bench, rounds: int, azure_server: Azurite) -> None:
    server = azure_server
    given = [f"az://{server.new_container()}/", server.endpoint_url]
    given += [server.account_name, server.account_key]
    runs = bench.call(runs_of, programs.AZURE, programs.BARE_AZURE, lambda _: given, rounds)
    bench.report(*figures_of("Azure", runs))


@pytest.mark.parametrize("imported", ["import duckdb, pytz", "pass"])
def test_engine(bench: Bench, rounds: int, imported: str) -> None:
    """With DuckDB imported before, as where it is imported in the init phase, and without."""
    ours = programs.ENGINE.replace("@before@", imported)
    runs = bench.call(runs_of, ours, programs.BARE_ENGINE, lambda _: (), rounds)
    title = "DuckDB's import before it" if imported != "pass" else "DuckDB's import in it"
    limit = None if imported == "pass" else INIT_MS["DuckDB"]
    bench.report(
        *figures_of("DuckDB", runs, title=title),
        init_of("DuckDB", f"init, {title}", runs, ["constructor", "open"], limit=limit),
    )


def test_a_warm_start(bench: Bench, open_arena: OpenArena) -> None:
    """Another backend of a process that has one open: its first call shares the connections."""
    key = keys(0, 1)[0]

    async def main() -> None:
        async with open_arena() as arena:
            await arena.ours.store_batch(entries([key], 0))
            spent_ms = []
            for _ in range(bench.pick(50, 3)):
                began = time.perf_counter()
                async with arena.again() as ltm:
                    assert (await ltm.retrieve(key)).raise_for_error().found
                    spent_ms.append((time.perf_counter() - began) * 1e3)
            what = "warm start: a new backend and its first retrieve"
            bench.report(spread(arena.store, what, spent_ms, limit=WARM_BUDGET_MS))

    bench.run(main)
