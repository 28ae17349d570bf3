"""Clients of a GCS in event loops, threads and forks: one each, shared, and none left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import ltm_async
from ltm_async import GCSBlobStore, LTMBackend, SQLiteCatalog

from .servers.gcs import GcsServer
from .servers.tcp_proxy import TcpProxy

LARGE = "x" * 5_000


@pytest.fixture
def proxy(gcs_server: GcsServer, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    """Counts connections."""
    return tcp_proxy(gcs_server.port)


@pytest.fixture
def blobs(gcs_server: GcsServer, proxy: TcpProxy) -> GCSBlobStore:
    """As a module makes it: outside any loop, and never closed."""
    return GCSBlobStore(
        f"gs://{gcs_server.new_bucket()}/", endpoint_url=f"http://127.0.0.1:{proxy.port}"
    )


@pytest.fixture
def ltm(blobs: GCSBlobStore) -> Iterator[LTMBackend]:
    catalog = SQLiteCatalog(":memory:")
    yield LTMBackend(catalog, blobs, on_unavailable="raise")
    asyncio.run(catalog.aclose())


async def count_up(ltm: LTMBackend) -> int:
    result = await ltm.update("counter", lambda value: [value[0] + 1, LARGE], default=[0, LARGE])
    assert result.stored
    value = (await ltm.retrieve("counter")).value
    assert isinstance(value, list)
    return int(value[0])


def settle(proxy: TcpProxy, count: int) -> None:
    """Wait until so many connections are open, which the proxy may see a little later than we."""
    give_up = time.monotonic() + 5
    while proxy.open_connections != count:
        assert time.monotonic() < give_up, f"{proxy.open_connections} connections, not {count}"
        time.sleep(0.01)


def test_one_backend_works_in_one_loop_after_another(
    ltm: LTMBackend, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in range(1, 201):
        assert asyncio.run(count_up(ltm)) == turn
    settle(proxy, 0)
    assert proxy.connections == 200
    assert caplog.records == []


@pytest.mark.filterwarnings("ignore:[uU]nclosed:ResourceWarning")
def test_a_loop_that_is_closed_without_its_end_leaves_nothing_either(
    ltm: LTMBackend, proxy: TcpProxy
) -> None:
    """Python warns of the connections that were not closed, and closes them."""
    for turn in range(1, 21):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(count_up(ltm)) == turn
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        del loop
    assert asyncio.run(count_up(ltm)) == 21
    gc.collect()
    settle(proxy, 0)


def test_two_threads_with_a_loop_each(ltm: LTMBackend, proxy: TcpProxy) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        async def many() -> None:
            for _ in range(30):
                await count_up(ltm)

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
    assert asyncio.run(count_up(ltm)) == 61
    settle(proxy, 0)


async def test_many_first_calls_make_one_client(blobs: GCSBlobStore, proxy: TcpProxy) -> None:
    clients = await asyncio.gather(*(blobs._client() for _ in range(20)))
    assert len(set(map(id, clients))) == 1
    for turn in range(10):
        await blobs.put(f"p{turn}", b"x")
    assert proxy.connections == 1
    await blobs.aclose()


def test_a_child_process_works_and_its_parent_goes_on(
    blobs: GCSBlobStore, gcs_server: GcsServer, proxy: TcpProxy
) -> None:
    bucket = blobs.uri("").removeprefix("gs://").removesuffix("/")

    async def parent() -> None:
        await blobs.put("p1", b"by the parent")
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                asyncio.run(blobs.put("p2", b"by the child"))
                code = 0
            os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        before = proxy.connections
        assert await blobs.get("p2", limit=100) == b"by the child"
        await blobs.put("p3", b"by the parent")
        assert proxy.connections == before  # the one it had

    asyncio.run(parent())
    assert gcs_server.names(bucket) == ["p1", "p2", "p3"]
    settle(proxy, 0)


def test_a_connection_that_ended_while_idle_costs_a_retry_at_most(
    ltm: LTMBackend, proxy: TcpProxy
) -> None:
    """As in a serverless function that was frozen past the server's patience."""

    async def many() -> None:
        for turn in range(1, 6):
            assert await count_up(ltm) == turn
            proxy.reset_all()
            time.sleep(0.02)  # noqa: ASYNC251  # the loop hears of nothing

    asyncio.run(many())


def test_a_loop_and_its_connections_stay_from_run_to_run(ltm: LTMBackend, proxy: TcpProxy) -> None:
    ltm_async.preload(ltm)
    assert [ltm_async.run(count_up(ltm)) for _ in range(20)] == list(range(1, 21))
    assert proxy.connections == 1
    ltm_async.run(ltm._runner.stores().blobs.aclose())
    settle(proxy, 0)


def test_the_end_of_the_process_closes_what_is_open_in_silence(
    gcs_server: GcsServer, proxy: TcpProxy
) -> None:
    script = """
        import logging, sys
        import ltm_async
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # a slow machine is no fault
        ltm = ltm_async.LTMBackend("memory:", sys.argv[1], on_unavailable="raise")
        ltm_async.preload(ltm)
        print(ltm_async.run(ltm.store("k", "x" * 5_000)).stored)
    """
    uri = f"gs://{gcs_server.new_bucket()}/?endpoint_url=http://127.0.0.1:{proxy.port}"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script), uri],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    settle(proxy, 0)


def test_the_sync_twin_uses_it_too(gcs_server: GcsServer, proxy: TcpProxy) -> None:
    uri = f"gs://{gcs_server.new_bucket()}/?endpoint_url=http://127.0.0.1:{proxy.port}"
    with ltm_async.SyncLTMBackend("memory:", uri, on_unavailable="raise") as ltm:
        assert ltm.store("k", LARGE)["stored"]
        assert ltm.retrieve("k")["value"] == LARGE
    settle(proxy, 0)
