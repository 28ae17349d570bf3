"""DuckDBQueryEngine: what a query sees, what it gives, and how it fails."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ltm_async import (
    ClosedError,
    ConfigError,
    CorruptError,
    DeadlineError,
    DuckDBQueryEngine,
    InvalidEntryError,
    LTMBackend,
    QueryError,
    UnavailableError,
)
from ltm_async.engine import connecting
from ltm_async.entry import hash_of
from ltm_async.testing import Faults, Mode

from .backends import Rig, make_rig

LARGE = "x" * 3000
LEAKED = r"(?s:(nanobind: leaked .*)?)"
"""DuckDB 2.0.0 says at the end of a process that connections were left open."""


@pytest.fixture
async def rig(tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig("sqlite+local", tmp_path)
    yield rig
    await rig.aclose()


@pytest.fixture
async def engine(rig: Rig, tmp_path: pathlib.Path) -> AsyncIterator[DuckDBQueryEngine]:
    engine = DuckDBQueryEngine(rig.ltm, threads=2, temp_directory=tmp_path)
    yield engine
    await engine.aclose()


async def fill(rig: Rig, count: int = 30) -> None:
    """Every tenth value is a blob."""
    await rig.ltm.store_batch(
        {
            "key": f"{'note' if n % 2 else 'page'}:{n:03}",
            "value": {"n": n, "text": LARGE if n % 10 == 0 else "short"},
            "metadata": {"kind": "odd" if n % 2 else "even", "n": n},
        }
        for n in range(count)
    )


async def test_a_query_sees_metadata_and_values_inlined_or_not(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    await fill(rig)
    found = await engine.query(
        "SELECT metadata->>'kind' AS kind, inlined, count(*) AS count,"
        " sum((value->>'n')::INT) AS n, max(length(value->>'text')) AS longest"
        " FROM entries GROUP BY ALL ORDER BY ALL"
    )
    assert found.columns == ("kind", "inlined", "count", "n", "longest")
    assert found.rows == [
        ("even", False, 3, 30, 3000),
        ("even", True, 12, 180, 5),
        ("odd", True, 15, 225, 5),
    ]
    assert (found.success, found.entries, found.truncated, found.errors) == (True, 30, False, {})
    assert next(found.to_dicts())["longest"] == 3000
    assert found.to_dict()["columns"] == found.columns


async def test_the_columns_are_as_documented(rig: Rig, engine: DuckDBQueryEngine) -> None:
    ends = datetime.now(UTC) + timedelta(days=1)
    stored = await rig.ltm.store("k", [1, None], metadata={"a": "é"}, expires_at=ends)
    found = await engine.query("FROM entries")
    assert dict(zip(found.columns, found.types, strict=True)) == {
        "key": "VARCHAR",
        "version": "BIGINT",
        "content_hash": "VARCHAR",
        "byte_size": "BIGINT",
        "inlined": "BOOLEAN",
        "metadata": "JSON",
        "expires_at": "TIMESTAMP WITH TIME ZONE",
        "created_at": "TIMESTAMP WITH TIME ZONE",
        "updated_at": "TIMESTAMP WITH TIME ZONE",
        "value": "JSON",
    }
    documented = (DuckDBQueryEngine.__doc__ or "").replace("\n", " ")
    assert all(f"``{name}" in documented or f" {name} " in documented for name in found.columns)
    (row,) = found.to_dicts()
    assert (row["key"], row["version"], row["value"]) == ("k", stored.version, "[1,null]")
    assert row["content_hash"] == stored.content_hash
    assert row["expires_at"] == ends
    assert row["created_at"].utcoffset() == timedelta(0)


async def test_each_query_sees_what_is_stored_by_then(rig: Rig, engine: DuckDBQueryEngine) -> None:
    counts = []
    for n in range(3):
        counts.append((await engine.query("SELECT count(*) FROM entries")).rows)
        await rig.ltm.store(f"k{n}", n)
    assert counts == [[(0,)], [(1,)], [(2,)]]


async def test_expired_entries_and_other_namespaces_are_not_seen(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    await rig.ltm.store("gone", 1, ttl=5)
    await rig.ltm.store("here", 1)
    async with LTMBackend(rig.catalog, rig.blobs, namespace="other") as other:
        await other.store("theirs", 1)
    rig.clock.advance(6)
    assert (await engine.query("SELECT key FROM entries")).rows == [("here",)]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"prefix": "note:"}, ["note:001", "note:003"]),
        ({"metadata_filter": {"n": {"$lt": 2}}}, ["note:001", "page:000"]),
        ({"prefix": "page:", "metadata_filter": {"n": {"$gt": 1}}}, ["page:002"]),
        ({"prefix": "no_e"}, []),
    ],
)
@pytest.mark.parametrize("values", [True, False])
async def test_prefix_and_filter_say_which_entries_there_are(
    rig: Rig, engine: DuckDBQueryEngine, options: Any, keys: list[str], values: bool
) -> None:
    await fill(rig, 4)
    found = await engine.query("SELECT key FROM entries ORDER BY key", values=values, **options)
    assert [key for (key,) in found.rows] == keys
    assert found.entries == len(keys)


async def test_the_filter_is_left_to_the_catalog(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await fill(rig, 4)
    await engine.query("SELECT key FROM entries", metadata_filter={"n": {"$lt": 2}})
    assert "catalog.list_entries" not in rig.faults.steps
    assert rig.faults.steps.count("catalog.filter_entries") == 1


async def test_only_the_blobs_that_are_asked_for_are_read(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    await fill(rig, 30)
    before = rig.faults.steps.count("blobs.get")
    await engine.query("SELECT sum(byte_size) FROM entries", values=False)
    assert rig.faults.steps.count("blobs.get") == before
    await engine.query("SELECT max(value) FROM entries", metadata_filter={"n": {"$lte": 10}})
    assert rig.faults.steps.count("blobs.get") == before + 2


async def test_without_values_there_is_no_column_of_them(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    with pytest.raises(QueryError, match='"value" not found'):
        await engine.query("SELECT value FROM entries", values=False)


async def test_more_than_a_page_is_read(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await rig.ltm.store_batch({"key": f"k{n:04}", "value": n} for n in range(1201))
    for values in (True, False):
        found = await engine.query("SELECT count(DISTINCT key) FROM entries", values=values)
        assert found.rows == [(1201,)]


@pytest.mark.parametrize("params", [[2, "page%"], (2, "page%"), {"n": 2, "like": "page%"}])
async def test_parameters_are_bound(rig: Rig, engine: DuckDBQueryEngine, params: Any) -> None:
    await fill(rig, 5)
    names = ("$n", "$like") if isinstance(params, dict) else ("?", "?")
    found = await engine.query(
        f"SELECT key FROM entries WHERE (metadata->>'n')::INT >= {names[0]} AND key LIKE {names[1]}"
        " ORDER BY key",
        params,
    )
    assert found.rows == [("page:002",), ("page:004",)]


async def test_a_limit_cuts_the_rows_and_says_so(engine: DuckDBQueryEngine) -> None:
    for limit, truncated in ((2499, True), (2500, False), (2501, False)):
        found = await engine.query("FROM range(2500)", limit=limit)
        assert (len(found.rows), found.truncated) == (min(limit, 2500), truncated)


async def test_a_stored_null_is_the_json_null(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await rig.ltm.store("null", None)
    found = await engine.query("SELECT value, value IS NULL, json_type(value) FROM entries")
    assert found.rows == [("null", False, "NULL")]
    assert found.errors == {}


async def test_values_that_json_readers_stumble_over_are_seen_or_named(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    values = {"nul": "a\0b", "huge": 10**400, "deep": deep, "text": "😀'\"\\\n", "lone": "\ud800"}
    await rig.ltm.store_batch({"key": key, "value": value} for key, value in values.items())
    found = await engine.query("SELECT key FROM entries WHERE value IS NOT NULL ORDER BY key")
    assert [key for (key,) in found.rows] == ["deep", "huge", "nul", "text"]
    assert found.success
    assert list(found.errors) == ["lone"]
    assert "does not read" in found.errors["lone"].error
    (text,) = (await engine.query("SELECT value->>'$' FROM entries WHERE key = 'text'")).rows
    assert text == ("😀'\"\\\n",)


async def test_a_damaged_blob_is_named_and_keeps_no_other_out(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    await fill(rig, 21)
    paths = sorted(await rig.objects())
    await rig.blobs.delete(paths[:1])
    found = await engine.query("SELECT count(*) FROM entries")
    assert found.rows == [(20,)]
    assert [error.error_type for error in found.errors.values()] == ["CorruptError"]
    assert not found.success
    assert not found.degraded
    with pytest.raises(CorruptError):
        found.raise_for_error()


def folders(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    return list(tmp_path.glob("ltm-duckdb-*"))


async def test_a_query_leaves_no_table_and_no_file_behind(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await fill(rig)
    for _ in range(3):
        await engine.query("SELECT count(*) FROM entries")
    found = await engine.query("SELECT count(*) FROM duckdb_tables WHERE table_name = 'entries'")
    assert found.rows == [(1,)]
    (folder,) = folders(tmp_path)
    assert list(folder.iterdir()) == []
    await engine.aclose()
    assert folders(tmp_path) == []


async def test_a_forged_value_keeps_no_other_out(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await fill(rig, 3)
    with closing(sqlite3.connect(tmp_path / "ltm.db")) as db, db:
        db.execute(
            "UPDATE ltm_entries SET inlined_value = ?, byte_size = 3, content_hash = ?"
            " WHERE key = 'note:001'",
            ('"é"', hash_of('"é"'.encode())),
        )
    found = await engine.query("SELECT key FROM entries WHERE inlined")
    assert found.rows == [("page:002",)]
    assert found.errors["note:001"].error_type == "CorruptError"


async def test_a_query_sees_no_entries_of_another(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await fill(rig, 4)
    async with await engine.load(prefix="note:"), await engine.load(prefix="page:") as pages:
        seen = await pages.query("SELECT count(*), min(key) FROM entries")
        assert seen.rows == [(2, "page:000")]
        for table in ("duckdb_tables", "information_schema.tables"):
            tables = await pages.query(f"SELECT count(*) FROM {table} WHERE table_name = 'entries'")
            assert tables.rows == [(1,)]


async def test_loaded_entries_stay_as_they_were(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await fill(rig, 4)
    began = datetime.now(UTC)
    async with await engine.load(prefix="page:") as pages:
        await rig.ltm.delete("page:000")
        both = await asyncio.gather(
            pages.query("SELECT count(*) FROM entries"),
            pages.query("SELECT max(key) FROM entries WHERE key < $1", ["page:002"]),
        )
        assert [found.rows for found in both] == [[(2,)], [("page:000",)]]
        assert (pages.entries, pages.errors) == (2, {})
        assert began <= pages.loaded_at <= datetime.now(UTC)
    with pytest.raises(ClosedError):
        await pages.query("SELECT 1")
    await pages.aclose()


async def test_many_queries_at_once(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await fill(rig, 20)
    found = await asyncio.gather(
        *(engine.query("SELECT count(*) + $1 FROM entries", [n]) for n in range(30))
    )
    assert [one.rows for one in found] == [[(20 + n,)] for n in range(30)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sql": 7}, "sql must be str"),
        ({"sql": "SELECT '" + "x" * 262144 + "'"}, "sql has 262153 bytes"),
        ({"params": "abc"}, "params must be a list"),
        ({"params": 7}, "params must be a list"),
        ({"limit": 0}, "limit must be an int from 1 to 1000000"),
        ({"limit": 1_000_001}, "limit must be an int from 1 to 1000000"),
        ({"limit": True}, "limit must be an int"),
        ({"prefix": 7}, "prefix must be str"),
        ({"metadata_filter": {"$nor": []}}, "metadata_filter"),
        ({"timeout": -1}, "timeout"),
    ],
)
async def test_bad_arguments_are_refused_before_any_i_o(
    rig: Rig, engine: DuckDBQueryEngine, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises((InvalidEntryError, ConfigError), match=said):
        await engine.query(arguments.pop("sql", "SELECT 1"), **arguments)
    assert rig.faults.steps.count("catalog.list_entries") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": 257}, "threads is 257"),
        ({"max_queries": 65}, "max_queries is 65"),
        ({"memory_limit": "lots"}, "memory_limit is 'lots'"),
        ({"memory_limit": 512}, "memory_limit is 512"),
        ({"max_temp_directory_size": "-1GB"}, "max_temp_directory_size"),
        ({"temp_directory": ""}, "temp_directory"),
        ({"temp_directory": 7}, "temp_directory"),
    ],
)
def test_a_bad_option_is_named_with_its_limit(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DuckDBQueryEngine(LTMBackend("memory:", "memory:"), **options)


def test_the_engine_is_for_a_backend() -> None:
    with pytest.raises(ConfigError, match="LTMBackend, not str"):
        DuckDBQueryEngine("sqlite:///memory.db")  # type: ignore[arg-type]


async def test_a_folder_that_is_not_there_is_a_config_error(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend("memory:", "memory:")
    engine = DuckDBQueryEngine(ltm, temp_directory=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="temp_directory cannot be written to"):
        await engine.query("SELECT 1")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", "the SQL has an error: syntax error"),
        ("SELECT nothing FROM entries", "Binder Error"),
        ("SELECT * FROM nothing", "Catalog Error"),
        ("SELECT nosuch(key) FROM entries", "nosuch"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("", "0 statements"),
        ("SELECT $1", "failed: InvalidInput"),
    ],
)
async def test_sql_that_is_wrong_is_a_query_error(
    rig: Rig, engine: DuckDBQueryEngine, sql: str, said: str
) -> None:
    with pytest.raises(QueryError, match=said):
        await engine.query(sql)


async def test_an_error_shows_no_stored_value(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await rig.ltm.store("key", "hunter2")
    with pytest.raises(QueryError) as caught:
        await engine.query("SELECT (value->>'$')::INT FROM entries")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" in str(caught.value.__cause__)


async def test_too_little_memory_is_a_query_error(rig: Rig, tmp_path: pathlib.Path) -> None:
    async with DuckDBQueryEngine(
        rig.ltm, memory_limit="32MB", max_temp_directory_size="32MB", threads=1
    ) as engine:
        with pytest.raises(QueryError, match="memory_limit"):
            await engine.query("SELECT list(range) FROM range(50000000)")
        assert (await engine.query("SELECT 1")).rows == [(1,)]


async def test_what_fails_inside_duckdb_starts_it_anew(
    engine: DuckDBQueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    def fail(*args: Any, **options: Any) -> Any:
        raise duckdb.FatalException("database has been invalidated")

    await engine.open()
    base = await engine._base()
    with monkeypatch.context() as patch:
        patch.setattr("ltm_async.engine.loading.run_sql", fail)
        with pytest.raises(UnavailableError, match="started anew"):
            await engine.query("SELECT 1")
    assert (await engine.query("SELECT 1")).rows == [(1,)]
    assert await engine._base() is not base


# Stores that fail


@pytest.mark.parametrize(
    ("ahead", "step"),
    [(0, "catalog.list_entries"), (1, "catalog.get_entries_batch"), (2, "blobs.get")],
)
async def test_a_store_that_is_down_raises_or_is_reported(
    tmp_path: pathlib.Path, ahead: int, step: str
) -> None:
    for on_unavailable in ("raise", "degrade"):
        faults = Faults(mode=Mode.DOWN)
        rig = make_rig("memory+memory", tmp_path, faults, on_unavailable=on_unavailable)
        await fill(rig, 11)
        async with DuckDBQueryEngine(rig.ltm) as engine:
            faults.at = len(faults.steps) + ahead
            if on_unavailable == "raise":
                with pytest.raises(UnavailableError, match=f"{step} was refused"):
                    await engine.query("SELECT count(*) FROM entries")
            else:
                found = await engine.query("SELECT count(*) FROM entries")
                assert (found.success, found.degraded, found.rows) == (False, True, [])
                with pytest.raises(UnavailableError):
                    await engine.load()
        await rig.aclose()


async def test_the_breaker_keeps_a_catalog_that_is_down_from_being_asked(
    tmp_path: pathlib.Path,
) -> None:
    faults = Faults(at=0, mode=Mode.DOWN)
    rig = make_rig("memory+memory", tmp_path, faults)
    async with DuckDBQueryEngine(rig.ltm) as engine:
        for _ in range(5):
            with pytest.raises(UnavailableError, match="was refused"):
                await engine.query("SELECT 1")
        asked = len(faults.steps)
        with pytest.raises(UnavailableError, match="was not asked"):
            await engine.query("SELECT 1")
        assert len(faults.steps) == asked
    await rig.aclose()


# Lifetime


async def test_a_closed_engine_says_so(engine: DuckDBQueryEngine) -> None:
    await engine.query("SELECT 1")
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(ClosedError, match="query engine is closed"):
        await engine.query("SELECT 1")


async def test_a_closed_backend_says_so(rig: Rig, engine: DuckDBQueryEngine) -> None:
    await rig.ltm.aclose()
    with pytest.raises(ClosedError, match="backend is closed"):
        await engine.query("SELECT 1")


def test_an_engine_serves_one_loop_after_another() -> None:
    engine = DuckDBQueryEngine(LTMBackend("memory:", "memory:"))

    async def ask() -> list[tuple[Any, ...]]:
        return (await engine.query("SELECT 1")).rows

    assert [asyncio.run(ask()) for _ in range(3)] == [[(1,)]] * 3
    asyncio.run(engine.aclose())


async def test_many_first_queries_make_one_connection(
    engine: DuckDBQueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    connect = connecting.connect

    def counting(options: Any) -> Any:
        made.append(options)
        return connect(options)

    monkeypatch.setattr(connecting, "connect", counting)
    await asyncio.gather(*(engine.query("SELECT 1") for _ in range(10)))
    assert len(made) == 1


def run(script: str, *args: str, says: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(says, done.stderr)
    return done.stdout.strip()


def test_making_an_engine_loads_no_driver() -> None:
    script = """
import sys
from ltm_async import DuckDBQueryEngine, LTMBackend
DuckDBQueryEngine(LTMBackend("memory:", "memory:"))
print("duckdb" in sys.modules, "sqlite3" in sys.modules)
"""
    assert run(script) == "False False"


@pytest.mark.parametrize("driver", ["duckdb", "pytz"])
def test_a_missing_driver_is_named_with_its_extra(driver: str) -> None:
    script = f"""
import asyncio, sys
sys.modules["{driver}"] = None
from ltm_async import *
try:
    asyncio.run(DuckDBQueryEngine(LTMBackend("memory:", "memory:")).query("SELECT 1"))
except MissingDriverError as exc:
    print(exc)
"""
    said = f"DuckDBQueryEngine needs {driver}: pip install 'ltm-async[duckdb]'"
    assert run(script) == said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_process_has_a_duckdb_of_its_own(tmp_path: pathlib.Path) -> None:
    script = """
import asyncio, glob, os, sys
from ltm_async import *

ltm = LTMBackend(f"sqlite:///{sys.argv[1]}/ltm.db", f"{sys.argv[1]}/blobs")
engine = DuckDBQueryEngine(ltm, temp_directory=sys.argv[1])

def folders():
    return len(glob.glob(sys.argv[1] + "/ltm-duckdb-*"))

async def parent():
    await ltm.store("k", 1)
    return await engine.load()

async def child(loaded):
    assert (await engine.query("SELECT count(*) FROM entries")).rows == [(1,)]
    try:
        await loaded.query("SELECT 1")
    except ClosedError:
        await engine.aclose()

async def again(loaded):
    print((await loaded.query("FROM entries")).entries, folders())
    await engine.aclose()

loaded = asyncio.run(parent())
before = folders()
if (pid := os.fork()) == 0:
    asyncio.run(child(loaded))
elif (left_open := os.fork()) == 0:
    asyncio.run(engine.query("SELECT 1"))
else:
    print(*(os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in (pid, left_open)), before)
    asyncio.run(again(loaded))
"""
    said = run(script, str(tmp_path), says=LEAKED)
    assert said == "0 0 1\n1 1"
    assert folders(tmp_path) == []


def test_the_folder_is_gone_after_an_engine_that_nobody_closed(tmp_path: pathlib.Path) -> None:
    script = """
import asyncio, os, sys
from ltm_async import *
engine = DuckDBQueryEngine(LTMBackend("memory:", "memory:"), temp_directory=sys.argv[1])
asyncio.run(engine.query("SELECT 1"))
print(len(os.listdir(sys.argv[1])))
"""
    assert run(script, str(tmp_path), says=LEAKED) == "1"
    assert list(tmp_path.iterdir()) == []


ENDS = {
    "while it opens": """
opening = asyncio.create_task(engine.open())
while not os.listdir(sys.argv[1]):
    await asyncio.sleep(0)
opening.cancel()
""",
    "after a query": 'await engine.query("SELECT 1")',
    # One call of a function over a page of its values takes a quarter of a second.
    "in the midst of one": """
await engine.open()
query = asyncio.create_task(
    engine.query("SELECT max(md5(repeat(range::VARCHAR, 5000))) FROM range(1000000)")
)
while not any(thread.name == "ltm-duckdb-0" for thread in threading.enumerate()):
    await asyncio.sleep(0)
await asyncio.sleep(0.1)
query.cancel()
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_may_end_at_any_moment_of_an_engine_that_nobody_closed(
    tmp_path: pathlib.Path, end: str
) -> None:
    script = f"""
import asyncio, os, sys, threading
from ltm_async import *
async def main():
    ltm = LTMBackend("memory:", "memory:")
    engine = DuckDBQueryEngine(ltm, temp_directory=sys.argv[1])
{textwrap.indent(ENDS[end], "    ")}
asyncio.run(main())
"""
    for _ in range(3):
        run(script, str(tmp_path), says=LEAKED)
        assert list(tmp_path.iterdir()) == []


async def test_a_deadline_ends_loading(
    rig: Rig, engine: DuckDBQueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*args: Any, **options: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    await engine.open()
    monkeypatch.setattr(rig.catalog, "list_entries", hang)
    with pytest.raises(DeadlineError):
        await engine.query("SELECT 1", timeout=0.2)
    monkeypatch.undo()
    assert (await engine.query("SELECT 1")).rows == [(1,)]
