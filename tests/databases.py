"""A catalog's schema in the PostgreSQL of the tests, looked at and set around the adapter."""

from __future__ import annotations

import asyncio
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import asyncpg
import pytest

from ltm_async.schema import postgres_script
from ltm_async.testing import ManualClock

from .servers.loop_thread import LoopThread
from .servers.postgres import Postgres

TABLES = (
    "ltm_entries",
    "ltm_texts",
    "ltm_vectors",
    "ltm_blobs",
    "ltm_deletions",
    "ltm_pruned",
    "ltm_snapshots",
)


class Console:
    """Plain SQL, on a connection and in a thread of its own: for tests with a loop and without."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._thread = LoopThread("ltm-test-console")
        self._conn = self._thread.run(asyncpg.connect(dsn))

    def run(self, script: str) -> None:
        self._thread.run(self._connection().execute(script))

    def rows(self, query: str, *arguments: Any) -> list[Any]:
        return list(self._thread.run(self._connection().fetch(query, *arguments)))

    def value(self, query: str, *arguments: Any) -> Any:
        return self._thread.run(self._connection().fetchval(query, *arguments))

    def close(self) -> None:
        self._thread.run(self._conn.close())
        self._thread.close()

    def _connection(self) -> asyncpg.Connection:
        if self._conn.is_closed():  # by the exit of a child that a test has forked
            self._conn = self._thread.run(asyncpg.connect(self._dsn))
        return self._conn


class DatabaseClock(ManualClock):
    """The database's clock, too: its ``ltm_now`` reads the file that this one writes."""

    def __init__(self, file: pathlib.Path, at_us: int | None = None) -> None:
        super().__init__()
        self._file = file
        self.advance(0 if at_us is None else (at_us - self()) / 1e6)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        aside = self._file.with_suffix(".part")
        aside.write_text(str(self()))
        os.chmod(aside, 0o644)
        aside.rename(self._file)


class DatabasePlace(NamedTuple):
    """Where a schema is, for a process that finds it installed."""

    dsn: str
    schema: str
    clock_file: str

    def clock_at(self, instant_us: int | None) -> DatabaseClock:
        return DatabaseClock(pathlib.Path(self.clock_file), instant_us)


class Database:
    """One schema with the catalog installed and a clock that moves when told."""

    def __init__(self, server: Postgres, console: Console) -> None:
        self.server = server
        self.console = console
        self.dsn = server.dsn
        self.schema = f"test_{uuid.uuid4().hex}"
        self._clock_file = server.folder / self.schema
        self.clock_at(None)
        self.install()

    def install(self) -> None:
        """Make the tables and functions, with a clock that reads the file."""
        self.console.run(postgres_script(self.schema))
        self.use_clock()

    def use_clock(self, options: str = "") -> None:
        self.run(
            f"CREATE OR REPLACE FUNCTION {{}}ltm_now() RETURNS bigint LANGUAGE sql VOLATILE "
            f"{options} AS $$ SELECT pg_read_file('{self._clock_file}')::bigint $$"
        )

    @property
    def place(self) -> DatabasePlace:
        return DatabasePlace(self.dsn, self.schema, str(self._clock_file))

    def clock_at(self, instant_us: int | None) -> DatabaseClock:
        return self.place.clock_at(instant_us)

    def rows(self, query: str, *arguments: Any) -> list[Any]:
        """The rows of *query*, in which ``{}`` stands for the schema and a dot."""
        return self.console.rows(query.replace("{}", f"{self.schema}."), *arguments)

    def run(self, script: str) -> None:
        self.console.run(script.replace("{}", f"{self.schema}."))

    def clear(self) -> None:
        """Delete every row."""
        self.run("; ".join(f"DELETE FROM {{}}{table}" for table in TABLES))

    def fill_from(self, other: Database) -> None:
        """Have the rows of *other*, and its last version."""
        copies = [
            f"DELETE FROM {{}}{table}; INSERT INTO {{}}{table} SELECT * FROM {other.schema}.{table}"
            for table in TABLES
        ]
        last = f"(SELECT last_value FROM {other.schema}.ltm_version)"
        self.run("; ".join([*copies, f"SELECT setval('{{}}ltm_version', {last})"]))

    def drop(self) -> None:
        self.console.run(f"DROP SCHEMA {self.schema} CASCADE")
        self._clock_file.unlink()


@pytest.fixture(scope="session")
def console(postgres_server: Postgres) -> Iterator[Console]:
    """SQL on the server, around every adapter."""
    console = Console(postgres_server.dsn)
    yield console
    console.close()


@pytest.fixture(scope="session")
def _database(postgres_server: Postgres, console: Console) -> Database:
    return Database(postgres_server, console)


@pytest.fixture
def database(_database: Database) -> Database:
    """A schema without rows."""
    _database.clear()
    return _database


async def wait_for(condition: Any, *, timeout_s: float = 10.0) -> None:
    """Until *condition*, a callable, gives true; fails when it does not in time."""
    give_up = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < give_up, "it did not come true"
        await asyncio.sleep(0.01)
