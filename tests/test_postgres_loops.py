"""Pools in event loops, threads, forks and frozen processes: one each, shared, and none left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

import ltm_async
from ltm_async import LTMBackend, PostgresCatalog
from ltm_async.catalogs.postgres import lending

from .databases import Console, Database, wait_for
from .servers.postgres import Postgres


@pytest.fixture
def dsn(database: Database, console: Console) -> Iterator[str]:
    """A URL whose connections can be told from all others by their role."""
    role = f"role_{uuid.uuid4().hex}"
    console.run(f"CREATE ROLE {role} SUPERUSER LOGIN")
    yield f"postgresql://{role}@127.0.0.1:{database.server.port}/postgres"
    console.run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}';"
        f"DROP ROLE {role}"
    )


class Connections:
    """Those that a role has on the server."""

    def __init__(self, console: Console, dsn: str) -> None:
        self._console = console
        self._role = dsn.partition("//")[2].partition("@")[0]

    def pids(self) -> list[int]:
        rows = self._console.rows(
            "SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY pid", self._role
        )
        return [pid for (pid,) in rows]

    def end(self) -> None:
        """End them, and wait until they have."""
        for pid in self.pids():
            self._console.rows("SELECT pg_terminate_backend($1, 5000)", pid)

    def settle(self, count: int) -> None:
        """Wait until there are *count*, which the server may learn a little later than we."""
        give_up = time.monotonic() + 5
        while len(self.pids()) != count:
            assert time.monotonic() < give_up, f"{len(self.pids())} connections, not {count}"
            time.sleep(0.01)


@pytest.fixture
def connections(console: Console, dsn: str) -> Connections:
    return Connections(console, dsn)


@pytest.fixture
def ltm(database: Database, dsn: str) -> LTMBackend:
    """As a module makes it: outside any loop, and never closed."""
    return LTMBackend(
        PostgresCatalog(dsn, schema=database.schema), "memory:", on_unavailable="raise"
    )


async def count_up(ltm: LTMBackend) -> int:
    result = await ltm.update("counter", lambda value: value + 1, default=0)
    assert result.stored
    value = (await ltm.retrieve("counter")).value
    assert isinstance(value, int)
    return value


def test_one_backend_works_in_one_loop_after_another(
    ltm: LTMBackend, connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in range(1, 201):
        assert asyncio.run(count_up(ltm)) == turn
    connections.settle(0)
    assert caplog.records == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_loop_that_is_closed_without_its_end_leaves_nothing_either(
    ltm: LTMBackend, connections: Connections
) -> None:
    """Python warns of the connections that were not closed, and closes them."""
    for turn in range(1, 21):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(count_up(ltm)) == turn
        loop.close()
        del loop
    assert asyncio.run(count_up(ltm)) == 21
    gc.collect()
    connections.settle(0)


def test_two_threads_with_a_loop_each(ltm: LTMBackend, connections: Connections) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        async def many() -> None:
            for _ in range(50):
                await ltm.update("counter", lambda value: value + 1, default=0)

        try:
            asyncio.run(many())
        except BaseException as exc:  # noqa: BLE001  # shown by the test
            failed.append(exc)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert asyncio.run(ltm.retrieve("counter")).value == 100
    connections.settle(0)


async def test_many_first_calls_make_one_pool_which_catalogs_share(
    database: Database, dsn: str, connections: Connections
) -> None:
    catalogs = [
        PostgresCatalog(dsn, schema=database.schema, min_size=1, max_size=3) for _ in range(5)
    ]
    await asyncio.gather(*(catalog.open() for catalog in catalogs for _ in range(10)))
    assert len(connections.pids()) == 1
    await asyncio.gather(*(catalog.stats("") for catalog in catalogs for _ in range(20)))
    assert len(connections.pids()) == 3
    for catalog in catalogs[1:]:
        await catalog.aclose()
    assert (await catalogs[0].stats("")).entries == 0
    await catalogs[0].aclose()
    connections.settle(0)


async def test_other_credentials_are_another_pool(
    database: Database, dsn: str, connections: Connections, console: Console
) -> None:
    other = f"postgresql://postgres@127.0.0.1:{database.server.port}/postgres"
    mine, others = (PostgresCatalog(url, schema=database.schema) for url in (dsn, other))
    await mine.open()
    await others.open()
    assert len(connections.pids()) == 1
    await mine.aclose()
    assert (await others.stats("")).entries == 0
    await others.aclose()


async def test_a_pool_for_a_function_keeps_no_connection_it_did_not_need(
    database: Database, dsn: str, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "IDLE_LIFETIME_S", 0.05)
    catalog = PostgresCatalog(dsn, schema=database.schema, min_size=0, max_size=2, pooler=False)
    await asyncio.gather(*(catalog.stats("") for _ in range(10)))
    await wait_for(lambda: connections.pids() == [])
    assert (await catalog.stats("")).entries == 0
    await catalog.aclose()


def test_a_child_process_works_and_its_parent_goes_on(
    ltm: LTMBackend, connections: Connections
) -> None:
    async def parent() -> None:
        assert await count_up(ltm) == 1
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if asyncio.run(count_up(ltm)) == 2 else 2
            os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        assert await count_up(ltm) == 3
        assert len(connections.pids()) == 1

    asyncio.run(parent())
    connections.settle(0)


FORKING = """
import asyncio, os, sys
from ltm_async import LTMBackend
ltm = LTMBackend(sys.argv[1], "memory:", on_unavailable="raise")
async def main():
    await ltm.store("k", 1)
    pid = os.fork()
    if pid == 0:
        sys.exit(0)  # through the end of a loop that is its parent's
    # Not in a thread: the end of a copied loop takes the original's ear for its threads.
    assert os.waitpid(pid, 0) == (pid, 0)
    print((await ltm.retrieve("k", timeout=5)).value)
    print((await ltm.store("k", 2, timeout=5)).stored)
asyncio.run(main())
"""


def test_a_child_that_ends_in_its_parents_loop_says_nothing_for_it(
    database: Database, dsn: str, connections: Connections
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, f"{dsn}?schema={database.schema}&max_size=1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\nTrue\n", "", 0)
    connections.settle(0)


async def test_a_connection_that_ended_while_idle_is_not_used(
    ltm: LTMBackend, connections: Connections
) -> None:
    """A write on it would have an unknown outcome."""
    for turn in range(1, 4):
        assert await count_up(ltm) == turn
        connections.end()
        time.sleep(lending.LISTEN_AFTER_IDLE_S)  # noqa: ASYNC251  # the loop hears of nothing
    await ltm.aclose()


async def test_a_link_that_died_without_a_word_is_found_out_by_a_question(
    ltm: LTMBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await count_up(ltm) == 1
    asked: list[str] = []
    monkeypatch.setattr(lending, "CHECK_AFTER_IDLE_S", 0.05)

    async def hang(conn: object, query: str) -> None:
        asked.append(query)
        await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as dead:
        dead.setattr(lending.Connection, "execute", hang)
        dead.setattr(lending, "CHECK_TIMEOUT_S", 0.05)
        await asyncio.sleep(0.06)
        assert await count_up(ltm) == 2
    assert asked == ["SELECT 1"]
    await ltm.aclose()


FROZEN = """
import sys
import ltm_async
ltm = ltm_async.LTMBackend(sys.argv[1], "memory:", on_unavailable="raise")
for line in sys.stdin:
    result = ltm_async.run(ltm.update("counter", lambda value: value + 1, default=0))
    print(result.version is not None, flush=True)
"""


def test_a_process_frozen_past_the_servers_patience_goes_on_when_thawed(
    database: Database, dsn: str, connections: Connections, console: Console
) -> None:
    """As between two invocations of a serverless function: the loop stood still throughout."""
    role = dsn.partition("//")[2].partition("@")[0]
    console.run(f"ALTER ROLE {role} SET idle_session_timeout = '200ms'")
    child = subprocess.Popen(
        [sys.executable, "-c", FROZEN, f"{dsn}?schema={database.schema}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        for _ in range(3):
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "True\n"
            child.send_signal(signal.SIGSTOP)
            connections.settle(0)
            child.send_signal(signal.SIGCONT)
    finally:
        child.send_signal(signal.SIGCONT)
        child.communicate(timeout=20)
    assert child.returncode == 0
    ((value,),) = database.rows("SELECT inlined_value FROM {}ltm_entries")
    assert value == "3"


# One loop for all invocations


def test_a_loop_and_its_connections_stay_from_run_to_run(
    database: Database, dsn: str, connections: Connections
) -> None:
    ltm = LTMBackend(
        PostgresCatalog(dsn, schema=database.schema), "memory:", on_unavailable="raise"
    )

    @ltm_async.handler
    async def handle(event: dict[str, int], context: object = None) -> int:
        """Count up."""
        return await count_up(ltm) * event["times"]

    ltm_async.preload(ltm)
    pids = connections.pids()
    assert len(pids) == 1
    assert [handle({"times": 10}) for _ in range(20)] == list(range(10, 210, 10))
    assert connections.pids() == pids
    assert (handle.__name__, handle.__doc__) == ("handle", "Count up.")
    ltm_async.run(ltm._runner.stores().catalog.aclose())
    connections.settle(0)


async def test_run_does_not_stop_a_loop_that_runs() -> None:
    async def work() -> None:
        raise AssertionError("it must not begin")

    with pytest.raises(ltm_async.BlockingCallError, match="await instead"):
        ltm_async.run(work())


def test_each_thread_has_a_loop_of_its_own_to_run() -> None:
    async def here() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    found: list[asyncio.AbstractEventLoop] = []

    def work() -> None:
        found.extend(ltm_async.run(here()) for _ in range(2))
        found[0].close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert found[0] is found[1]
    assert found[0] is not ltm_async.run(here())


def test_an_interrupted_run_cancels_what_it_ran_and_the_next_one_works() -> None:
    cancelled: list[bool] = []

    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def fine() -> str:
        return "fine"

    with pytest.raises(KeyboardInterrupt):
        ltm_async.run(interrupted())
    assert cancelled == [True]
    assert ltm_async.run(fine()) == "fine"


def test_the_end_of_the_process_closes_what_is_open_in_silence(
    postgres_server: Postgres, database: Database, dsn: str, connections: Connections
) -> None:
    script = """
        import sys, warnings
        import ltm_async
        ltm = ltm_async.LTMBackend(sys.argv[1], "memory:", on_unavailable="raise")
        ltm_async.preload(ltm)
        print(ltm_async.run(ltm.store("k", 1)).stored)
    """
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            textwrap.dedent(script),
            f"{dsn}?schema={database.schema}",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    connections.settle(0)
