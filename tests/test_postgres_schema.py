"""Installing and updating the catalog's schema, and which indexes its functions use."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from ltm_async import (
    AccessDeniedError,
    ConfigError,
    LTMBackend,
    PostgresCatalog,
    StoreError,
)
from ltm_async.filters import parse_filter
from ltm_async.jsonpath import as_arguments
from ltm_async.schema import VERSION, postgres_script
from ltm_async.sql_functions import to_nearest
from ltm_async.testing.writes import new_write_id, small
from ltm_async.text import parse_query
from ltm_async.tsearch import ask, to_tsvector
from ltm_async.vectors import to_unit

from .databases import TABLES, Console, Database
from .servers.postgres import Postgres


@pytest.fixture
def schema(console: Console) -> Iterator[str]:
    """The name of a schema that is not there."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    console.run(f"DROP SCHEMA IF EXISTS {name} CASCADE")


async def test_the_first_call_installs_and_many_first_calls_install_once(
    postgres_server: Postgres, schema: str, console: Console
) -> None:
    catalogs = [
        PostgresCatalog(postgres_server.dsn, schema=schema, max_size=size) for size in range(1, 9)
    ]  # no two of which share a pool
    await asyncio.gather(*(catalog.stats("") for catalog in catalogs))
    assert console.value(f"SELECT count(*) FROM {schema}.ltm_schema") == 1
    assert console.value(f"SELECT version FROM {schema}.ltm_schema") == VERSION
    await asyncio.gather(*(catalog.aclose() for catalog in catalogs))


async def test_installing_again_keeps_what_is_there(
    postgres_server: Postgres, schema: str, console: Console
) -> None:
    catalog = PostgresCatalog(postgres_server.dsn, schema=schema)
    await catalog.track_entry("", small("k", "1"), write_id=new_write_id())
    console.run(await asyncio.to_thread(postgres_script, schema))
    console.run(f"UPDATE {schema}.ltm_schema SET version = 0")
    await catalog.aclose()
    again = PostgresCatalog(postgres_server.dsn, schema=schema)
    row = await again.get_entry("", "k")
    assert row is not None and row.inlined_value == "1"
    assert console.value(f"SELECT version FROM {schema}.ltm_schema") == VERSION
    await again.aclose()


async def test_a_schema_from_the_future_is_refused_and_left_alone(
    postgres_server: Postgres, schema: str, console: Console
) -> None:
    console.run(await asyncio.to_thread(postgres_script, schema))
    console.run(f"UPDATE {schema}.ltm_schema SET version = {VERSION + 1}")
    catalog = PostgresCatalog(postgres_server.dsn, schema=schema)
    with pytest.raises(ConfigError, match="upgrade ltm-async"):
        await catalog.open()
    await catalog.aclose()
    with pytest.raises(asyncpg.PostgresError) as caught:
        console.run(await asyncio.to_thread(postgres_script, schema))
    assert caught.value.sqlstate == "LT003"
    assert console.value(f"SELECT version FROM {schema}.ltm_schema") == VERSION + 1


async def test_without_install_nothing_is_made_and_the_error_says_what_to_run(
    postgres_server: Postgres, schema: str, console: Console
) -> None:
    catalog = PostgresCatalog(postgres_server.dsn, schema=schema, install=False)
    with pytest.raises(StoreError, match="ltm schema postgres"):
        await catalog.stats("")
    assert console.value(f"SELECT to_regnamespace('{schema}')") is None
    await catalog.aclose()


async def test_a_role_that_may_only_use_the_functions_is_enough(
    postgres_server: Postgres, schema: str, console: Console
) -> None:
    """Installed by another role; nothing is made, so no permission to is needed."""
    role = f"role_{uuid.uuid4().hex}"
    console.run(await asyncio.to_thread(postgres_script, schema))
    console.run(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
    )
    dsn = f"postgresql://{role}@127.0.0.1:{postgres_server.port}/postgres"
    ltm = LTMBackend(PostgresCatalog(dsn, schema=schema), "memory:", on_unavailable="raise")
    await ltm.store("k", "x" * 5_000)
    await ltm.store("k", 1, ttl=60)
    assert (await ltm.retrieve("k")).value == 1
    await ltm.delete("k")
    await ltm.collect_garbage()
    console.run(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}")
    with pytest.raises(AccessDeniedError):
        await ltm.retrieve("k")
    stores = ltm._runner.stores()
    await stores.catalog.aclose()
    console.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_role_that_may_not_install_is_denied_and_nothing_is_half_made(
    postgres_server: Postgres, schema: str, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"role_{uuid.uuid4().hex}"
    console.run(f"CREATE ROLE {role} LOGIN")
    dsn = f"postgresql://{role}@127.0.0.1:{postgres_server.port}/postgres"
    catalog = PostgresCatalog(dsn, schema=schema)
    with pytest.raises(AccessDeniedError):
        await catalog.open()
    console.run(f"CREATE SCHEMA {schema}")
    with pytest.raises(AccessDeniedError):
        await catalog.open()
    await catalog.aclose()
    assert caplog.records == []
    assert console.value("SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema) == 0
    console.run(f"DROP ROLE {role}")


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "Upper", "1st", "a" * 64, "pg;drop", "é", None])
def test_a_schema_that_is_no_identifier_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^schema must be"):
        PostgresCatalog("postgresql://localhost/db", schema=name)  # type: ignore[arg-type]


# Plans


class Planned:
    """Runs a catalog's functions and keeps the plan of every statement in them."""

    def __init__(self, database: Database) -> None:
        self.plans: list[str] = []
        self._database = database

    async def __aenter__(self) -> asyncpg.Connection:
        self._conn = await asyncpg.connect(self._database.dsn)
        await self._conn.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0;"
            "SET auto_explain.log_nested_statements = on; SET client_min_messages = log;"
            f"SET search_path = {self._database.schema}"
        )
        self._conn.add_log_listener(lambda _, message: self.plans.append(str(message)))
        return self._conn

    async def __aexit__(self, *exc: object) -> None:
        await self._conn.close()


async def run_every_function(conn: asyncpg.Connection, count: int = 500) -> None:
    """Each as the adapter calls it, on *count* keys that are there."""
    keys = [f"k{number:07}" for number in range(count)]
    ids = [f"{number:016x}-{'0' * 20}" for number in range(count)]
    hashes, sizes, values, metadata, none = ([each] * count for each in ("h", 1, "1", "{}", None))
    texts = [to_tsvector("", f"tea w{number}") for number in range(count)]
    since = await conn.fetchval("SELECT key FROM ltm_changes('', NULL, NULL, NULL, '', 1)")
    for write_id in "w1", "w2":
        await conn.fetch(
            "SELECT * FROM ltm_commit('', $1, $2, $3, $4, $5, NULL, $6, NULL, NULL, NULL, $7, $8,"
            " $9, $10)",
            write_id, keys, hashes, sizes, values, metadata, texts, sizes, [0.6, 0.8] * count,
            [2] * count,
        )  # fmt: skip
    new = [f"new {key}" for key in keys]
    new_ids = [f"f{blob_id[1:]}" for blob_id in ids]
    await conn.fetch(
        "SELECT * FROM ltm_reserve('', $1, $2, $3, $4, 1000000000)", new_ids, new, hashes, sizes
    )
    await conn.fetch(
        "SELECT * FROM ltm_commit('', 'w3', $1, $2, $3, $4, $5, $6, NULL, NULL, $7, NULL, NULL)",
        new, hashes, sizes, none, new_ids, metadata, [0] * count,
    )  # fmt: skip
    await conn.fetch(  # renews them
        "SELECT * FROM ltm_commit('', 'w4', $1, $2, $3, $4, NULL, $5, NULL, NULL, NULL, NULL,"
        " NULL)",
        new, hashes, sizes, none, metadata,
    )  # fmt: skip
    await conn.fetch("SELECT * FROM ltm_get('', $1)", keys)
    await conn.fetch("SELECT * FROM ltm_get('', $1)", keys[:1])
    await conn.fetch("SELECT * FROM ltm_touch('', 'k0000600', 'w', true, 1, NULL, NULL)")
    await conn.fetch("SELECT * FROM ltm_list('', 'k0000', 'k0000500', 'k0001', 100)")
    wanted = as_arguments(parse_filter({"n": 1}))
    await conn.fetch("SELECT * FROM ltm_filter('', 'k', '', 'l', $1, $2, 10, 1000)", *wanted)
    await conn.fetch("SELECT * FROM ltm_filter('', 'k', 'k0000500', 'l', '$ == 1', '{}', 10, 99)")
    for text, chosen in ("tea w7", None), ("w7 w8*", parse_filter({"n": 1})):
        asked = ask("", parse_query(text), chosen, 200)
        await conn.fetch("SELECT * FROM ltm_search('', $1, $2, $3, $4, $5, $6, $7, $8, $9)", *asked)
    for chosen in (None, parse_filter({"n": 1})):
        sought = to_nearest(to_unit([1.0, 2.0], None), chosen, 200)
        await conn.fetch("SELECT * FROM ltm_nearest('', $1, $2, $3, $4, $5)", *sought)
    await conn.fetch("SELECT * FROM ltm_expire('', 500, 'w')")
    await conn.fetch("SELECT * FROM ltm_delete('', $1, 'w', NULL)", new)
    await conn.fetch("SELECT * FROM ltm_delete('', $1, 'w', NULL)", ["k0000700"])
    await conn.fetch("SELECT * FROM ltm_abandon('', $1, 0)", ids)
    await conn.fetch("SELECT * FROM ltm_resolve_write('', 'w', $1, $2, 0)", keys, ids)
    await conn.fetch("SELECT * FROM ltm_resolve_removal('', 'w', $1)", new)
    await conn.fetch("SELECT * FROM ltm_take_due('', 500, 1000, 1000)")
    await conn.fetch("SELECT * FROM ltm_due('', 500)")
    await conn.fetch("SELECT * FROM ltm_forget('', $1)", new_ids)
    await conn.fetch("SELECT * FROM ltm_ledger('', '', 500)")
    await conn.fetch("SELECT * FROM ltm_known('', $1)", ids)
    await conn.fetch("SELECT * FROM ltm_changes('', NULL, NULL, NULL, '', 500)")
    await conn.fetch("SELECT * FROM ltm_changes('', $1, NULL, NULL, '', 500)", since)
    await conn.fetch("SELECT * FROM ltm_changes('', $1, NULL, '5', 'k', 500)", since)
    await conn.fetch("SELECT * FROM ltm_snapshot('', 'id', 'name', 1000)")
    await conn.fetch("SELECT * FROM ltm_find_snapshot('', 'id')")
    await conn.fetch("SELECT * FROM ltm_delete_snapshot('', 'id')")


FILL = """
INSERT INTO {}ltm_entries SELECT '', 'k' || lpad(n::text, 7, '0'), 1, 'w', 'h', 1,
    CASE WHEN n % 10 > 0 THEN repeat('v', 20) END,
    CASE WHEN n % 10 = 0 THEN lpad(to_hex(n), 16, '0') || '-' || repeat('0', 20) END, '{}',
    CASE WHEN n % 1000 = 1 THEN 1 WHEN n % 10 = 2 THEN 8000000000000000 END, 1, 1
FROM generate_series(0, $N$ - 1) AS n;
INSERT INTO {}ltm_blobs SELECT '', lpad(to_hex(n), 16, '0') || '-' || repeat('0', 20),
    'k' || lpad(n::text, 7, '0'), CASE WHEN n % 1000 = 10 THEN 'dead' ELSE 'live' END, true, 1, 1
FROM generate_series(0, $N$ - 1, 10) AS n;
INSERT INTO {}ltm_texts SELECT '', 'k' || lpad(n::text, 7, '0'),
    ('''/e3b0c44298fc1c14'' ''tea'':1 ''w' || n % 1000 || ''':2')::tsvector, 2
FROM generate_series(0, $N$ - 1, 10) AS n;
INSERT INTO {}ltm_vectors SELECT '', 'k' || lpad(n::text, 7, '0'), '{1,0}'
FROM generate_series(0, $N$ - 1, 100) AS n;
INSERT INTO {}ltm_deletions SELECT '', 'gone' || n, 1, 'w', n FROM generate_series(0, 20000) AS n;
"""


@pytest.fixture
def filled(postgres_server: Postgres, console: Console) -> Iterator[Database]:
    """A database of its own, which nobody analyzes by himself."""
    database = Database(postgres_server, console)
    for table in TABLES:
        database.run(f"ALTER TABLE {{}}{table} SET (autovacuum_enabled = false)")
    yield database
    database.drop()


def fill(database: Database, entries: int) -> None:
    script = FILL.replace("$N$", str(entries)).replace("'{}'", "'{' || '}'")
    database.run(script)


@pytest.mark.parametrize(
    ("at_first", "count", "entries", "analyzed"),
    [
        pytest.param(0, 500, 20_000, False, id="new"),
        pytest.param(0, 500, 20_000, True, id="analyzed"),
        pytest.param(20, 3, 20_000, False, id="grown-from-few"),
        pytest.param(20, 500, 20_000, False, id="grown"),
        pytest.param(0, 500, 1_000_000, True, id="a-million", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(240)
async def test_every_statement_finds_its_rows_by_an_index(
    filled: Database, at_first: int, count: int, entries: int, analyzed: bool
) -> None:
    """Also in a table that grew since it was last analyzed, if ever it was."""
    planned = Planned(filled)
    async with planned as conn:
        if at_first:  # so few that it would be the cheapest to read them all
            await asyncio.to_thread(fill, filled, at_first)
            await conn.execute(f"VACUUM ANALYZE {', '.join(TABLES)}")
        for _ in range(7):  # plans are made, and kept, for tables as small as that
            await run_every_function(conn, count)
        await asyncio.to_thread(fill_the_rest, filled, entries)
        if analyzed:
            await conn.execute(f"ANALYZE {', '.join(TABLES)}")
        planned.plans.clear()
        for _ in range(7):  # the sixth plan of a statement is one for all parameters
            await run_every_function(conn)
    plans = [plan for plan in planned.plans if "ltm_" in plan]
    assert len(plans) > 100
    for plan in plans:
        assert not re.search(r"Seq Scan on ltm_", plan), plan
        for condition in re.findall(r"(?<!on ltm_pruned)  \(.*\n *Index Cond: (.*)", plan):
            # The namespace alone would read all of it; what is counted is so up to a limit, and
            # vectors are compared.
            found_by = r"key|\bid\b|blob_id|expires_at|due_at|\w+ed_at|_by|words"
            reads_all = re.search(r"LIMIT in_(counted|limit \+ 1)|compared AS", plan)
            assert re.search(found_by, condition) or reads_all, plan
        # By this index all of a namespace would be read for a key.
        for scan in re.findall(r"Scan using ltm_\w+_changed .*\n.*", plan):
            assert "changed_by" in scan, plan
        # What is switched off costs 10^10; a plan with that is compiled each time it runs.
        assert not re.search(r"cost=\d{10}", plan), plan
        # Sorting for the first rows of an order would read all that come after them.
        assert not re.search(
            r"Sort  \(.*\n *Sort Key: (?!gone|m\.rank|best\.|c\.cosine).*\.(key|\w+_id|\w+_at)\b",
            plan,
        ), plan
        if (
            "in_limit" not in plan and "compared AS" not in plan
        ):  # a plan for one namespace is one that was made for one call
            assert "namespace = ''" not in plan, plan


MANY = """
INSERT INTO {}ltm_entries SELECT '', 'k' || lpad(n::text, 7, '0'), 1, 'w', 'h', 2, '12', NULL,
    '{"n":' || n || '}', CASE WHEN n < 10 THEN 1 END, 1, 1
FROM generate_series(1, 120000) AS n
"""


async def test_what_one_call_looks_at_is_bounded_however_many_rows_there_are(
    filled: Database,
) -> None:
    await asyncio.to_thread(filled.run, MANY)
    planned = Planned(filled)
    async with planned as conn:
        await conn.execute("SET auto_explain.log_analyze = on")

        async def visited(query: str, *arguments: object) -> tuple[list[Any], int]:
            """What *query* gives, and how many rows of entries its statements have visited."""
            planned.plans.clear()
            rows = await conn.fetch(f"SELECT * FROM {query}", *arguments)
            scans = re.findall(
                r"ltm_entries.*actual time=.* rows=(\d+) loops=(\d+)", "\n".join(planned.plans)
            )
            removed = re.findall(r"Rows Removed by \w+: (\d+)", "\n".join(planned.plans))
            assert scans
            return rows, sum(int(n) * int(m) for n, m in scans) + sum(map(int, removed))

        for _ in range(7):  # the sixth plan of a statement is one for all parameters
            wanted = as_arguments(parse_filter({"n": {"$in": [5, 20_000, 119_999]}}))
            query = "ltm_filter('', 'k', $3, 'l', $1, $2, 10, 10000)"
            (last,), rows = await visited(query, *wanted, "")
            assert (last["key"], last["looked"], rows) == ("k0010000", 10_000, 10_000)
            (found, last), rows = await visited(query, *wanted, last["key"])
            assert (found["key"], last["key"], rows) == ("k0020000", "k0020000", 10_000)
            (made,), rows = await visited("ltm_snapshot('', gen_random_uuid()::text, 'n', 100000)")
            assert (made["entry_count"], made["total_bytes"], rows) == (None, None, 100_001)
        (made,), _ = await visited("ltm_snapshot('', 'id', 'n', 120000)")
        assert (made["entry_count"], made["total_bytes"]) == (119_991, 2 * 119_991)


def fill_the_rest(database: Database, entries: int) -> None:
    database.clear()
    fill(database, entries)


def test_every_function_says_how_its_plans_are_made(database: Database) -> None:
    """Which of these a planner would need to be told depends on sizes that no test has all of."""
    functions = database.rows(
        "SELECT proname, prosrc, proconfig FROM pg_proc JOIN pg_language AS l ON l.oid = prolang "
        f"WHERE pronamespace = '{database.schema}'::regnamespace AND lanname = 'plpgsql'"
    )
    assert len(functions) > 15
    for name, source, settings in functions:
        if "ltm_" not in source:
            continue
        first_rows = "LIMIT in_limit" in source
        expected = {
            "enable_seqscan=off",
            "enable_sort=off" if first_rows else "plan_cache_mode=force_generic_plan",
        }
        assert {*settings} - {"enable_sort=on"} == expected, name
