"""Vectors in a PostgreSQL with pgvector, which compares them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ltm_async import ConfigError, PostgresCatalog, sql_functions
from ltm_async.protocols import Catalog
from ltm_async.testing import VectorContract
from ltm_async.testing.nearest import EAST, SPACE, random_vectors
from ltm_async.testing.writes import new_write_id
from ltm_async.vectors import to_unit

from .databases import Console, Database
from .servers.postgres import Postgres

SCHEMA = "the vectors' extensions"
ON = f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"; CREATE EXTENSION vector SCHEMA "{SCHEMA}"'
OFF = "DROP EXTENSION vector"


@pytest.fixture(scope="module")
def _database(pgvector_server: Postgres) -> Iterator[Database]:
    console = Console(pgvector_server.dsn)
    console.run(ON)
    yield Database(pgvector_server, console)
    console.close()


@pytest.fixture
def database(_database: Database) -> Database:
    _database.clear()
    return _database


class TestPostgresCatalogWithPgvector(VectorContract):
    @pytest.fixture
    async def catalog(self, database: Database) -> AsyncIterator[Catalog]:
        self.database = database
        self.clock = database.clock_at(None)
        catalog = PostgresCatalog(database.dsn, schema=database.schema)
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        query = "SELECT key FROM {}ltm_vectors WHERE namespace = $1"
        return {key for (key,) in self.database.rows(query, namespace)}

    async def test_with_and_without_the_extension_the_nearest_are_the_same(
        self, catalog: Catalog, database: Database
    ) -> None:
        writes = [self._point(f"k{n}", made) for n, made in enumerate(random_vectors(200, seed=9))]
        await self._keep(catalog, *writes)
        (sought,) = random_vectors(1, seed=10)
        fast = await self._near(catalog, sought)
        database.console.run(OFF)
        try:
            plain = await self._near(catalog, sought)
        finally:
            database.console.run(ON)
        assert [near.row for near in fast] == [near.row for near in plain]
        assert [near.cosine for near in fast] == pytest.approx(
            [near.cosine for near in plain], abs=1e-6
        )

    async def test_only_without_the_extension_there_is_a_limit(
        self, catalog: Catalog, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql_functions, "MAX_COMPARED", 30)
        writes = [self._point(f"k{n}", EAST) for n in range(31)]
        await self._keep(catalog, *writes)
        assert len(await self._near(catalog, EAST)) == 31
        database.console.run(OFF)
        try:
            with pytest.raises(ConfigError, match=r"at most 30 vectors here.*pgvector"):
                await self._near(catalog, EAST)
            await catalog.delete_entries_batch(SPACE, ["k0"], write_id=new_write_id())
            assert len(await self._near(catalog, EAST)) == 30
        finally:
            database.console.run(ON)

    async def test_a_role_that_may_not_use_the_extension_does_without(
        self, catalog: Catalog, database: Database
    ) -> None:
        await self._keep(catalog, self._point("k", EAST))
        console, schema = database.console, database.schema
        console.run(
            f"CREATE ROLE reader; GRANT USAGE ON SCHEMA {schema} TO reader;"
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader;"
            "GRANT pg_read_server_files TO reader;"
            "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reader"
        )
        asked = sql_functions.to_nearest(to_unit(EAST, None), None, 5)
        console.run("SET ROLE reader")
        try:
            rows = console.rows(
                f"SELECT key, compared FROM {schema}.ltm_nearest($1, $2, $3, $4, $5, $6)",
                SPACE,
                *asked,
            )
        finally:
            console.run("RESET ROLE; DROP OWNED BY reader; DROP ROLE reader")
        assert [tuple(row) for row in rows] == [(None, 1), ("k", None)]
