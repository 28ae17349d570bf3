"""Fixtures of the benchmarks: full size with ``--benchmark-enable``, else a quick smoke test."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import asyncpg
import pytest

from bench.workloads import Figure, settled_gc
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import SUPERUSER, Postgres

T = TypeVar("T")

DURABLE = ("fsync=on", "full_page_writes=on")
ROOMY = ("shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=1h")
"""So that neither reading from a disk nor a checkpoint comes between two sides of a race."""


class Bench:
    """A typed face of pytest-benchmark, which calls the whole measurement once.

    A measurement times its own rounds: pytest-benchmark runs one function for all of its
    rounds before the next, so that drift of the machine would look like a difference.
    """

    def __init__(self, benchmark: Any) -> None:
        self._benchmark = benchmark
        self.full: bool = benchmark.enabled

    def pick(self, full: int, smoke: int) -> int:
        return full if self.full else min(full, smoke)

    def call(self, measure: Callable[..., T], *args: Any) -> T:
        with settled_gc():
            result: T = self._benchmark.pedantic(measure, args=args, rounds=1, iterations=1)
        return result

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """*main* on a loop of its own, since the one of the tests is in debug mode."""
        return self.call(lambda: asyncio.run(main(), debug=False))

    def report(self, *figures: Figure) -> None:
        known = self._benchmark.extra_info.setdefault("figures", [])
        known.extend(dataclasses.asdict(figure) for figure in figures)


@pytest.fixture
def bench(benchmark: Any) -> Bench:
    return Bench(benchmark)


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ltm-bench-") as path:
        yield path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that loses nothing, as those in production."""
    with Postgres(*DURABLE, *ROOMY) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of a new database."""
    name = f"bench_{uuid.uuid4().hex}"
    _run(postgres, f"CREATE DATABASE {name}")
    yield name
    _run(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def dsn(postgres: Postgres, database: str) -> str:
    return url_of(postgres, database)


def url_of(server: Postgres | PgBouncer, database: str) -> str:
    return f"postgresql://{SUPERUSER}@127.0.0.1:{server.port}/{database}"


def _run(server: Postgres, statement: str) -> None:
    async def run() -> None:
        conn = await asyncpg.connect(server.dsn)
        await conn.execute(statement)
        await conn.close()

    asyncio.run(run())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(900))
