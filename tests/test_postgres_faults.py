"""PostgreSQL refusing, restarting, silent or cut off: right outcomes, in time, and nothing told."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from ltm_async import (
    AccessDeniedError,
    ConflictError,
    DeadlineError,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    PostgresCatalog,
    RetryPolicy,
    StoreError,
    UnavailableError,
)
from ltm_async.catalogs.postgres import pool as pools
from ltm_async.dsn import Address
from ltm_async.protocols import Catalog
from ltm_async.schema import postgres_script
from ltm_async.testing.writes import new_write_id, small
from ltm_async.tls import default_context

from .backends import QUICK
from .databases import Console, Database, wait_for
from .servers.postgres import Postgres
from .servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpFaults, TcpProxy

CANARY = "c4n4ry"


@pytest.fixture
def proxy(database: Database, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(database.server.port)


@pytest.fixture
async def catalog(database: Database, proxy: TcpProxy) -> AsyncIterator[Catalog]:
    """Behind a proxy, its connection made and its statements prepared."""
    dsn = f"postgresql://postgres:{CANARY}@127.0.0.1:{proxy.port}/postgres"
    catalog = PostgresCatalog(dsn, schema=database.schema, max_size=4, pooler=False)
    yield catalog
    proxy.faults = NO_FAULTS
    await catalog.aclose()


def backend(catalog: Catalog, **options: Any) -> LTMBackend:
    options = {"on_unavailable": "raise", "retry": QUICK, **options}
    return LTMBackend(catalog, "memory:", **options)


# What an error means


@pytest.fixture
def role(database: Database, console: Console) -> Iterator[str]:
    """A role that may do everything with the catalog, and nothing else."""
    name = f"role_{uuid.uuid4().hex}"
    schema = database.schema
    console.run(
        f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {name};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {name};"
        f"GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {name};"
        f"GRANT pg_read_server_files TO {name}"
    )
    yield name
    console.run(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{name}';"
        f"DROP OWNED BY {name}; DROP ROLE {name}"
    )


async def failure_of(catalog: PostgresCatalog, call: str = "track") -> LTMError:
    """What a write, or another call, raises; without a secret, and in the store's name."""
    calls: dict[str, Callable[[], Any]] = {
        "track": lambda: catalog.track_entry(
            "", small(f"key {CANARY}", f'"{CANARY}"'), write_id=new_write_id()
        ),
        "get": lambda: catalog.get_entry("", "k"),
    }
    with pytest.raises(LTMError) as caught:
        await calls[call]()
    await catalog.aclose()
    text = "".join(traceback.format_exception(caught.value))
    assert CANARY not in text
    assert CANARY not in repr(catalog)
    assert getattr(caught.value, "store", "postgres") == "postgres"
    return caught.value


def dsn_of(database: Database, user: str = "postgres", name: str = "postgres") -> str:
    return f"postgresql://{user}:{CANARY}@127.0.0.1:{database.server.port}/{name}"


async def test_a_role_that_is_not_there_is_denied(database: Database) -> None:
    error = await failure_of(PostgresCatalog(dsn_of(database, user="nobody")))
    assert type(error) is AccessDeniedError


async def test_a_database_that_is_not_there_is_an_error_that_waiting_does_not_heal(
    database: Database,
) -> None:
    error = await failure_of(PostgresCatalog(dsn_of(database, name="nowhere")))
    assert type(error) is StoreError
    assert "3D000" in str(error)


async def test_nobody_listening_is_unavailable(unused_tcp_port: int) -> None:
    error = await failure_of(
        PostgresCatalog(f"postgresql://me:{CANARY}@127.0.0.1:{unused_tcp_port}/db")
    )
    assert type(error) is UnavailableError


async def test_a_host_that_has_no_address_is_unavailable() -> None:
    error = await failure_of(
        PostgresCatalog(f"postgresql://me:{CANARY}@no-such-host.invalid/db?sslmode=disable")
    )
    assert type(error) is UnavailableError


@pytest.mark.parametrize(
    ("setting", "call", "expected"),
    [
        ("default_transaction_read_only = on", "track", UnavailableError),  # a demoted replica
        ("statement_timeout = '20ms'", "track", UnavailableError),
        ("lock_timeout = '20ms'", "track", UnavailableError),
    ],
)
async def test_a_refusal_that_may_pass_is_unavailable(
    database: Database,
    console: Console,
    role: str,
    setting: str,
    call: str,
    expected: type[LTMError],
) -> None:
    console.run(f"ALTER ROLE {role} SET {setting}")
    database.run("BEGIN; LOCK TABLE {}ltm_entries IN SHARE MODE")
    try:
        catalog = PostgresCatalog(dsn_of(database, user=role), schema=database.schema)
        assert type(await failure_of(catalog, call)) is expected
    finally:
        database.run("ROLLBACK")


async def test_too_many_connections_are_unavailable(
    database: Database, console: Console, role: str
) -> None:
    console.run(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    error = await failure_of(PostgresCatalog(dsn_of(database, user=role), schema=database.schema))
    assert type(error) is UnavailableError


async def test_a_missing_permission_is_denied(
    database: Database, console: Console, role: str
) -> None:
    console.run(f"REVOKE ALL ON {database.schema}.ltm_entries FROM {role}")
    catalog = PostgresCatalog(dsn_of(database, user=role), schema=database.schema)
    assert type(await failure_of(catalog)) is AccessDeniedError


async def test_a_row_that_is_refused_is_not_quoted(database: Database, role: str) -> None:
    """The server's words hold the whole row."""
    database.run("ALTER TABLE {}ltm_entries ADD CONSTRAINT none CHECK (byte_size < 0) NOT VALID")
    try:
        catalog = PostgresCatalog(dsn_of(database), schema=database.schema)
        error = await failure_of(catalog)
    finally:
        database.run("ALTER TABLE {}ltm_entries DROP CONSTRAINT none")
    assert type(error) is StoreError
    assert str(error) == "postgres: refused with SQLSTATE 23514"


async def test_a_conflict_names_the_key_and_the_version_there_is(database: Database) -> None:
    catalog = PostgresCatalog(database.dsn, schema=database.schema)
    writes = [small(key, "1") for key in "cab"]
    written = await catalog.track_entries_batch("", writes, write_id=new_write_id())
    expected = {"a": written.version, "b": 99, "c": written.version}
    with pytest.raises(ConflictError) as caught:
        await catalog.track_entries_batch(
            "",
            [small(key, "2", if_version=expected[key]) for key in "cab"],
            write_id=new_write_id(),
        )
    assert (caught.value.key, caught.value.version) == ("b", written.version)
    with pytest.raises(ConflictError) as caught:
        await catalog.delete_entries_batch("", ["x", "b"], write_id=new_write_id(), if_version=7)
    assert (caught.value.key, caught.value.version) == ("b", written.version)
    await catalog.aclose()


async def test_a_commit_is_on_disk_also_where_the_server_would_not_wait(
    database: Database,
) -> None:
    conn = await asyncpg.connect(database.dsn)
    await conn.execute(f"SET synchronous_commit = off; SET search_path = {database.schema}")
    for call in (
        "ltm_commit('', 'w', '{k}', '{h}', '{1}', '{1}', '{null}', '{x}', "
        + "'{null}', " * 4
        + "'{null}')",
        "ltm_touch('', 'k', 'w', true, NULL, NULL, NULL)",
        "ltm_delete('', '{k}', 'w', NULL)",
        "ltm_expire('', 1, 'w')",
    ):
        async with conn.transaction():
            await conn.execute(f"SELECT * FROM {call}")
            assert await conn.fetchval("SHOW synchronous_commit") == "on", call
    await conn.close()


# TLS


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("postgresql://localhost/db", False),
        ("postgresql://127.0.0.1:5432/db", False),
        ("postgresql://[::1]:5432/db", False),
        ("postgresql:///db?host=/run/postgresql", False),
        ("postgresql:///db", False),
        ("postgresql://db.example/db", True),
        ("postgresql://localhost,db.example/db", True),
        ("postgresql://localhost/db?host=db.example", True),
        ("postgresql://127.0.0.1.example/db", True),
        ("postgresql://db.example/db?sslmode=require", None),
        ("postgresql://localhost/db?sslmode=verify-full", None),
    ],
)
async def test_tls_is_verified_but_on_this_machine_or_where_the_url_decides(
    url: str, tls: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    found = await pools._tls(Address.of(url))
    if tls:
        assert found is await default_context()
        assert found.check_hostname
    else:
        assert found is tls


async def test_a_host_from_the_environment_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    assert await pools._tls(Address.of("postgresql:///db")) is await default_context()


async def test_a_server_without_tls_is_not_spoken_to_as_if_it_were_far(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.dsn.is_loopback", lambda host: False)
    catalog = PostgresCatalog(dsn_of(database), schema=database.schema)
    assert "SSL" in str(await failure_of(catalog))


# Replies that are lost


async def warm(ltm: LTMBackend) -> None:
    """Prepare each statement, so that what follows is one message and one reply."""
    for value in (1, "x" * 5_000, 2):
        await ltm.store("warm", value)
    await ltm.touch("warm", ttl=60)
    await ltm.delete("warm")
    await ltm.collect_garbage()


async def test_a_small_store_whose_reply_is_lost_is_settled_by_its_row(
    catalog: Catalog, proxy: TcpProxy
) -> None:
    ltm = backend(catalog)
    await warm(ltm)
    proxy.faults = LOST_REPLY
    task = asyncio.create_task(ltm.store("k", "new"))
    await wait_for(lambda: proxy.connections > 1)  # it connects again, to ask
    proxy.faults = NO_FAULTS
    assert (await task).stored
    assert (await ltm.retrieve("k")).value == "new"


async def test_a_small_store_that_was_lost_on_its_way_is_unknown(
    catalog: Catalog, proxy: TcpProxy, database: Database
) -> None:
    ltm = backend(catalog)
    await warm(ltm)
    proxy.faults = TcpFaults(reset_up_after=0)
    task = asyncio.create_task(ltm.store("k", "new"))
    await wait_for(lambda: proxy.connections > 1)
    proxy.faults = NO_FAULTS
    with pytest.raises(OutcomeUnknownError):
        await task
    assert not (await ltm.retrieve("k")).found


@pytest.mark.parametrize(
    "lost", [LOST_REPLY, TcpFaults(reset_up_after=0)], ids=["reply", "request"]
)
async def test_a_large_store_ends_stored_whatever_of_its_commit_was_lost(
    catalog: Catalog, proxy: TcpProxy, database: Database, lost: TcpFaults
) -> None:
    """Its blob's reservation settles it for good, so it can be done again."""
    ltm = backend(catalog)
    await warm(ltm)
    blobs = ltm._runner.stores().blobs
    put = blobs.put

    async def put_then_cut(path: str, data: bytes) -> None:
        await put(path, data)
        proxy.faults = lost

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(blobs, "put", put_then_cut)
        task = asyncio.create_task(ltm.store("k", "x" * 5_000))
        before = proxy.connections
        await wait_for(lambda: proxy.connections > before)
        patched.setattr(blobs, "put", put)
        proxy.faults = NO_FAULTS
        assert (await task).stored
    assert (await ltm.retrieve("k")).value == "x" * 5_000
    states = Counter(state for (state,) in database.rows("SELECT state FROM {}ltm_blobs"))
    assert states["live"] == 1
    assert states["pending"] == 0


async def test_a_delete_whose_reply_is_lost_is_settled_by_its_mark(
    catalog: Catalog, proxy: TcpProxy
) -> None:
    ltm = backend(catalog)
    await warm(ltm)
    await ltm.store("k", 1)
    proxy.faults = LOST_REPLY
    task = asyncio.create_task(ltm.delete("k"))
    before = proxy.connections
    await wait_for(lambda: proxy.connections > before)
    proxy.faults = NO_FAULTS
    assert (await task).deleted


async def test_a_lost_reply_to_a_question_is_asked_for_again(
    catalog: Catalog, proxy: TcpProxy
) -> None:
    ltm = backend(catalog, retry=RetryPolicy(attempts=4, base_s=0.05))
    await ltm.store("k", 1)
    await ltm.retrieve("k")
    proxy.faults = LOST_REPLY
    task = asyncio.create_task(ltm.retrieve("k"))
    before = proxy.connections
    await wait_for(lambda: proxy.connections > before)
    proxy.faults = NO_FAULTS
    assert (await task).value == 1


# Silence


async def test_a_link_that_goes_silent_in_a_commit_ends_with_the_deadline(
    catalog: Catalog, proxy: TcpProxy, database: Database
) -> None:
    ltm = backend(catalog)
    await warm(ltm)
    loop = asyncio.get_running_loop()
    for fault in (BLACK_HOLE, TcpFaults(swallow_down=True)):
        for value in ("small", "x" * 5_000):
            proxy.faults = fault
            began = loop.time()
            with pytest.raises(DeadlineError):
                await ltm.store("k", value, timeout=0.3)
            assert loop.time() - began < 1.3
            proxy.faults = NO_FAULTS
            assert (await ltm.store("k", "after")).stored
            assert (await ltm.retrieve("k")).value == "after"
    await wait_for(lambda: proxy.open_connections <= 4)


async def test_closing_does_not_wait_for_a_server_that_says_nothing(
    catalog: Catalog, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "CLOSE_TIMEOUT_S", 0.2)
    ltm = backend(catalog)
    await warm(ltm)
    proxy.faults = BLACK_HOLE
    stuck = asyncio.create_task(ltm.store("k", 1))
    await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await catalog.aclose()
    assert loop.time() - began < 1.2
    with pytest.raises(LTMError):
        await stuck


# Cancelling


async def test_a_cancelled_commit_is_there_whole_or_not_at_all(
    catalog: Catalog, proxy: TcpProxy
) -> None:
    ltm = backend(catalog)
    await warm(ltm)
    for turn in range(30):
        keys = [f"{turn}a", f"{turn}b"]
        task = asyncio.create_task(ltm.store_batch([{"key": key, "value": 1} for key in keys]))
        await asyncio.sleep(turn * 0.0001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(5):
            while True:
                found = await ltm.retrieve_batch(keys)
                assert len(found.results) in {0, 2}
                break


# Restarts


async def test_restarts_under_load_lose_nothing_acknowledged() -> None:
    """Without a checkpoint, three times; all calls end in time, and work again soon after."""
    with Postgres() as server:
        await asyncio.to_thread(_install, server)
        ltm = LTMBackend(f"{server.dsn}?max_size=8", "memory:", on_unavailable="raise", timeout=3.0)
        loop = asyncio.get_running_loop()
        acknowledged = 0
        may_be: dict[str, set[int]] = {}
        """What a key was last known to hold, and what was tried since without an answer."""
        longest_s = 0.0
        recovered_s: list[float] = []
        going = True

        async def write(worker: int) -> None:
            nonlocal longest_s, acknowledged
            turn = 0
            while going:
                turn += 1
                began = loop.time()
                key = f"{worker}-{turn % 7}"
                value: Any = turn if turn % 3 else [turn, "x" * 3_000]
                try:
                    await ltm.store(key, value)
                    may_be[key] = {turn}
                    acknowledged += 1
                except StoreError:
                    if key in may_be:
                        may_be[key].add(turn)
                longest_s = max(longest_s, loop.time() - began)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(write(worker))
            for _ in range(3):
                enough = acknowledged + 100
                await wait_for(lambda enough=enough: acknowledged >= enough, timeout_s=30)
                await asyncio.to_thread(server.restart)
                back = loop.time()
                while True:
                    with contextlib.suppress(StoreError):
                        await ltm.store("probe", 1)
                        break
                recovered_s.append(loop.time() - back)
            going = False
        assert longest_s < 4.0
        assert max(recovered_s) < 5.0
        assert len(may_be) == 8 * 7
        for key, turns in may_be.items():
            value = (await ltm.retrieve(key)).value
            assert (value[0] if isinstance(value, list) else value) in turns, key
        assert (await ltm.verify()).sound
        await ltm.aclose()


def _install(server: Postgres) -> None:
    console = Console(server.dsn)
    console.run(postgres_script("public"))
    console.close()
