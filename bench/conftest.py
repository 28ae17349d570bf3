"""Fixtures of the benchmarks: full size with ``--benchmark-enable``, else a quick smoke test."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib.util
import tempfile
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from bench import arenas, bare_supabase
from bench.arenas import Arena, OpenArena
from bench.collecting import report_figure
from bench.emulators import Emulators
from bench.figures import Figure, ratio
from bench.racing import Race, settled_gc
from ltm_async.catalogs.firestore.options import TRANSPORTS
from ltm_async.schema import supabase_script
from tests.databases import Console
from tests.projects import RestPlace
from tests.servers.firestore import Firestore, grpc_engine
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import SUPERUSER, Postgres
from tests.servers.postgrest import DEFAULT_PRIVILEGES, SUPABASE, PostgREST, token_of

pytest_plugins = ["tests.servers.fixtures"]
collect_ignore = [] if importlib.util.find_spec("cashews") else ["test_peers.py"]

T = TypeVar("T")

DURABLE = ("fsync=on", "full_page_writes=on")
ROOMY = ("shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=1h")
"""So that neither reading from a disk nor a checkpoint comes between two sides of a race."""
CATALOGS = ["sqlite", "postgres", "supabase", *(f"firestore-{name}" for name in TRANSPORTS)]


class Bench:
    """A typed face of pytest-benchmark, which calls the whole measurement once.

    A measurement times its own rounds: pytest-benchmark runs one function for all of its
    rounds before the next, so that drift of the machine would look like a difference.
    """

    def __init__(self, benchmark: Any, node: pytest.Item) -> None:
        self._benchmark = benchmark
        self._node = node
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
        for figure in figures:
            report_figure(self._node, figure)

    def report_race(
        self, arena: Arena, what: str, run: Race, *, limit: float | None = None, size: int = 0
    ) -> None:
        """Ours over every other side; over the first rival in CPU time, too."""
        first = next(iter(arena.rivals))
        for over in [*run.wall_ms][1:]:
            within = limit if over in arena.rivals else None
            self.report(ratio(arena.store, what, run.wall_ms, over, limit=within, size=size))
        self.report(ratio(arena.store, f"{what}, CPU", run.cpu_ms, first, size=size))


@pytest.fixture
def bench(benchmark: Any, request: pytest.FixtureRequest) -> Bench:
    return Bench(benchmark, request.node)


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
def emulators() -> Iterator[Emulators]:
    with Emulators() as emulators, grpc_engine():
        yield emulators


@pytest.fixture
def firestore_server(emulators: Emulators, monkeypatch: pytest.MonkeyPatch) -> Firestore:
    server = emulators.with_room()
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", server.host)
    return server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    with PgBouncer(postgres) as server:
        yield server


@pytest.fixture(scope="session")
def console(postgres: Postgres) -> Iterator[Console]:
    console = Console(postgres.dsn)
    yield console
    console.close()


@pytest.fixture
def database(console: Console) -> Iterator[str]:
    """The name of a new database."""
    name = f"bench_{uuid.uuid4().hex}"
    console.run(f"CREATE DATABASE {name}")
    yield name
    console.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def dsn(postgres: Postgres, database: str) -> str:
    return url_of(postgres, database)


@pytest.fixture(scope="session")
def rest_place(postgres: Postgres, console: Console) -> Iterator[RestPlace]:
    """A schema behind PostgREST, with the bare rival's table in it; its user is ``a-user``."""
    schema = "bench"
    console.run(SUPABASE)
    console.run(f"CREATE SCHEMA {schema}; {DEFAULT_PRIVILEGES.format(schema=schema)}")
    console.run(supabase_script(schema) + bare_supabase.SCHEMA.format(schema=schema))
    with PostgREST(postgres) as api:
        api.expose(console.run, schema)
        yield RestPlace(postgres.dsn, schema, "", api.url, token_of("a-user"))


@pytest.fixture(params=CATALOGS)
def open_arena(request: pytest.FixtureRequest) -> OpenArena:
    """Each catalog's."""
    catalog, _, transport = request.param.partition("-")
    if catalog == "sqlite":
        return functools.partial(arenas.sqlite, request.getfixturevalue("folder"))
    if catalog == "postgres":
        return functools.partial(arenas.postgres, request.getfixturevalue("dsn"))
    if catalog == "supabase":
        return functools.partial(arenas.supabase, request.getfixturevalue("rest_place"))
    request.getfixturevalue("firestore_server")
    return functools.partial(arenas.firestore, transport)


def url_of(server: Postgres | PgBouncer, database: str) -> str:
    return f"postgresql://{SUPERUSER}@127.0.0.1:{server.port}/{database}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(900))
