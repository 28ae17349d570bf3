"""PostgresCatalog on a real server: its contract, its plans, its round trips and its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from ltm_async import LTMBackend, PostgresCatalog
from ltm_async.catalogs.postgres.columns import _COLUMNS
from ltm_async.errors import CorruptError
from ltm_async.filters import parse_filter
from ltm_async.protocols import Catalog
from ltm_async.sql_functions import Commit
from ltm_async.testing import CatalogContract, ChangesContract, SearchContract, VectorContract
from ltm_async.testing.writes import new_write_id, small

from .databases import Database
from .servers.pgbouncer import PgBouncer
from .servers.tcp_proxy import TcpProxy


class TestPostgresCatalog(CatalogContract, ChangesContract, SearchContract, VectorContract):
    @pytest.fixture
    async def catalog(self, database: Database) -> AsyncIterator[Catalog]:
        self.database = database
        self.clock = database.clock_at(None)
        catalog = PostgresCatalog(database.dsn, schema=database.schema)
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return self._select("SELECT key, inlined_value FROM {}ltm_entries", namespace)

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return self._select("SELECT blob_id, state FROM {}ltm_blobs", namespace)

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        return {*self._select("SELECT key, 1 FROM {}ltm_vectors", namespace)}

    def _select(self, query: str, namespace: str) -> dict[str, Any]:
        return dict(self.database.rows(f"{query} WHERE namespace = $1", namespace))


class TestThroughPgBouncer(TestPostgresCatalog):
    """A pooler in transaction mode, which the catalog finds out by itself."""

    @pytest.fixture
    async def catalog(
        self, database: Database, pgbouncer_server: PgBouncer
    ) -> AsyncIterator[Catalog]:
        self.database = database
        self.clock = database.clock_at(None)
        catalog = PostgresCatalog(pgbouncer_server.dsn, schema=database.schema)
        yield catalog
        await catalog.aclose()


@pytest.fixture
def proxy(database: Database, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(database.server.port)


def through(proxy: TcpProxy, database: Database, **options: Any) -> PostgresCatalog:
    dsn = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
    return PostgresCatalog(dsn, schema=database.schema, **options)


# Round trips


SMALL: list[dict[str, Any]] = [{"key": f"k{number:03}", "value": number} for number in range(500)]
LARGE: list[dict[str, Any]] = [
    {"key": f"l{number:02}", "value": "x" * 2_000} for number in range(20)
]


async def store_one(ltm: LTMBackend) -> None:
    assert (await ltm.store("k", "small", ttl=60)).stored


async def store_many(ltm: LTMBackend) -> None:
    assert (await ltm.store_batch(SMALL)).success


async def store_large(ltm: LTMBackend) -> None:
    assert (await ltm.store_batch(LARGE)).uploaded == len(LARGE)


async def store_large_again(ltm: LTMBackend) -> None:
    assert (await ltm.store_batch(LARGE)).deduplicated == len(LARGE)


async def retrieve_one(ltm: LTMBackend) -> None:
    assert (await ltm.retrieve("k000")).found


async def retrieve_many(ltm: LTMBackend) -> None:
    assert len((await ltm.retrieve_batch([entry["key"] for entry in SMALL])).results) == 500


async def touch(ltm: LTMBackend) -> None:
    assert (await ltm.touch("k000", ttl=60)).touched


async def delete(ltm: LTMBackend) -> None:
    assert (await ltm.delete("k001")).deleted


async def delete_many(ltm: LTMBackend) -> None:
    assert (await ltm.delete_batch([entry["key"] for entry in SMALL])).deleted > 400


async def list_page(ltm: LTMBackend) -> None:
    assert len((await ltm.list_entries(limit=100)).entries) == 100


async def list_wanted(ltm: LTMBackend) -> None:
    page = await ltm.list_entries(metadata_filter={"$not": {"n": {"$exists": False}}})
    assert (page.entries, page.cursor) == ([], None)


async def stats(ltm: LTMBackend) -> None:
    assert (await ltm.stats()).entries >= 500


async def test_each_operation_takes_as_few_round_trips_as_it_can(
    database: Database, proxy: TcpProxy
) -> None:
    async with LTMBackend(
        through(proxy, database, max_size=1), "memory:", on_unavailable="raise"
    ) as ltm:
        catalog = ltm._runner.stores().catalog
        turns: list[Callable[[LTMBackend], Awaitable[None]]] = [
            store_one, store_many, store_large, store_large_again, retrieve_one, retrieve_many,
            touch, list_page, list_wanted, stats, delete, delete_many,
        ]  # fmt: skip
        counted: dict[str, int] = {}
        for _ in range(2):  # the first has to prepare each statement
            await ltm.delete_batch([entry["key"] for entry in LARGE])
            await ltm.store_batch(SMALL)
            for turn in turns:
                before = proxy.round_trips
                await turn(ltm)
                counted[turn.__name__] = proxy.round_trips - before
        assert counted == {
            "store_one": 1,
            "store_many": 1,
            "store_large": 2,  # reserve, commit
            "store_large_again": 2,
            "retrieve_one": 1,
            "retrieve_many": 1,
            "touch": 1,
            "list_page": 1,
            "list_wanted": 1,
            "stats": 1,
            "delete": 1,
            "delete_many": 1,
        }
        assert proxy.connections == 1
        await catalog.aclose()


async def test_a_cold_start_takes_one_connection_and_two_round_trips_more(
    database: Database, proxy: TcpProxy
) -> None:
    """What asks for the schema's version finds out about a pooler as well."""
    bare = await asyncpg.connect(
        f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", ssl=False
    )
    to_connect = proxy.round_trips
    catalog = through(proxy, database)
    await catalog.open()
    assert proxy.round_trips == 2 * to_connect + 2
    assert proxy.connections == 2
    await catalog.aclose()
    await bare.close()


async def test_a_filter_goes_on_behind_a_row_whose_key_is_none(database: Database) -> None:
    """From the last key that can be one, so that a user may be given it as a cursor."""
    catalog = PostgresCatalog(database.dsn, schema=database.schema)
    for key in "a", "k" * 1_025, "z":
        database.console.run(
            f"INSERT INTO {database.schema}.ltm_entries"
            f" VALUES ('', '{key}', 1, 'w', 'h', 1, '1', NULL, '{{}}', NULL, 1, 1)"
        )
    nothing = parse_filter({"n": 1})
    page = await catalog.filter_entries("", nothing, limit=10, most=2)
    assert page == ([], "a", 2)
    page = await catalog.filter_entries("", nothing, after="a", limit=10, most=3)
    assert page == ([], None, 2)
    with pytest.raises(CorruptError, match="no key that can be one"):
        await catalog.filter_entries("", nothing, after="a", limit=10, most=1)
    await catalog.aclose()


async def test_keys_are_told_apart_whatever_is_in_them(database: Database) -> None:
    """They are sent as one text, with something between them."""
    keys = ["a\nb", "a", "b", "\n", "\n\n", "\\N", "NULL", "''", "b\n"]
    catalog = PostgresCatalog(database.dsn, schema=database.schema)
    writes = [small(key, f'"{number}"') for number, key in enumerate(keys)]
    for batch in writes, writes[:1]:
        await catalog.track_entries_batch("", batch, write_id=new_write_id())
        wanted = {write.key: write.inlined_value for write in batch}
        found = await catalog.get_entries_batch("", [write.key for write in batch])
        assert {row.key: row.inlined_value for row in found} == wanted
        gone = await catalog.delete_entries_batch("", [*wanted], write_id=new_write_id())
        assert {removed.key for removed in gone} == {*wanted}
    await catalog.aclose()


def test_of_a_batch_only_vectors_are_sent_as_arrays(database: Database) -> None:
    """The driver looks at each item of an array by itself."""
    vectors = {"commit": {2 + Commit._fields.index("in_vectors"): "real"}}
    for function, columns in _COLUMNS.items():
        ((types,),) = database.rows(
            "SELECT proargtypes::regtype[]::text[] FROM pg_proc"
            f" WHERE oid = '{{}}ltm_{function}'::regproc"
        )
        arrays = {place: kind for place, kind in enumerate(types) if kind.endswith("[]")}
        known = {**columns, **vectors.get(function, {})}
        assert arrays == {place: f"{kind}[]" for place, kind in known.items()}, function


async def test_a_batch_in_any_order_writes_each_value_under_its_key(database: Database) -> None:
    """Its rows are locked in another order than they are written in."""
    keys = ["b", "é", "a", "Z", "c"]
    for turn in range(2):
        values = [f'"{key} {turn}"' for key in keys]
        database.rows(
            "SELECT FROM {}ltm_commit('', $1, $2, $3, $4, $3, NULL, $5, NULL, NULL, NULL, NULL,"
            " NULL)",
            f"w{turn}", keys, values, [turn] * 5, ["{}"] * 5,
        )  # fmt: skip
        assert dict(database.rows("SELECT key, inlined_value FROM {}ltm_entries")) == dict(
            zip(keys, values, strict=True)
        )
