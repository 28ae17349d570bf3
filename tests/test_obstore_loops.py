"""obstore in event loops, threads, forks, and processes that end: nothing is left, none aborts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import ltm_async
from ltm_async import (
    AzureBlobStore,
    LTMBackend,
    OutcomeUnknownError,
    SQLiteCatalog,
    UnavailableError,
)
from ltm_async.blobs.obstore import calls

from .azure_stores import store_on
from .databases import wait_for
from .servers.azurite import Azurite
from .servers.http_proxy import Answer, HttpProxy
from .servers.tcp_proxy import TcpProxy

LARGE = "x" * 5_000

ENDS = {
    "after a put and a get": """
        asyncio.run(put_and_get())
    """,
    "in the middle of calls": """
        async def main():
            await put_and_get()
            for number in range(10):
                asyncio.ensure_future(blobs.put(f"q{number}", b"x" * 100_000))
            await asyncio.sleep(0.001)
        asyncio.run(main())
    """,
    "without closing its loop": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(put_and_get())
        loop.close()
    """,
    "on a loop that is kept": """
        ltm_async.run(put_and_get())
    """,
}
"""How a short process ends."""
SHORT = """
    import asyncio, os, sys
    import ltm_async
    blobs = ltm_async.AzureBlobStore(
        sys.argv[1], account_name=sys.argv[2], account_key=sys.argv[3], endpoint_url=sys.argv[4]
    )
    async def put_and_get():
        path = os.urandom(8).hex()
        await blobs.put(path, b"data")
        assert await blobs.get(path, limit=9) == b"data"
"""


def run_short(server: Azurite, container: str, end: str) -> tuple[int, str]:
    """Exit code and stderr of a process of its own."""
    code = textwrap.dedent(SHORT) + textwrap.dedent(end)
    given = f"az://{container}/", server.account_name, server.account_key, server.endpoint_url
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *given],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_of_a_hundred_short_processes_none_is_aborted(azure_server: Azurite, end: str) -> None:
    """25 of each kind. Without waiting for the driver some 15 of the hundred are."""
    container = azure_server.new_container()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        ended = threads.map(lambda _: run_short(azure_server, container, ENDS[end]), range(25))
    assert Counter(ended) == {(0, ""): 25}


# What the driver holds


@pytest.fixture
def copies() -> list[contextvars.Context]:
    """Copies of contexts, as a driver keeps them that is not done."""
    return []


async def test_a_call_is_held_until_the_driver_drops_its_context(
    copies: list[contextvars.Context],
) -> None:
    def driver_call(outcome: str) -> Coroutine[Any, Any, str]:
        copies.append(contextvars.copy_context())
        return work(outcome)

    async def work(outcome: str) -> str:
        if outcome == "raises":
            raise RuntimeError
        if outcome == "hangs":
            await asyncio.get_running_loop().create_future()
        return outcome

    ours = calls.Calls()
    assert await ours.run(driver_call, "answers") == "answers"
    with pytest.raises(RuntimeError):
        await ours.run(driver_call, "raises")
    hanging = asyncio.create_task(ours.run(driver_call, "hangs"))
    await wait_for(lambda: len(copies) == 3)
    hanging.cancel()
    await asyncio.wait([hanging])
    del hanging
    for left in (3, 2, 1):
        gc.collect()
        assert len(ours._held) == left
        copies.pop()
    await ours.give_up()
    assert not ours._held


async def test_closing_waits_for_what_is_held_but_not_without_end(
    copies: list[contextvars.Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    def driver_call() -> Coroutine[Any, Any, None]:
        copies.append(contextvars.copy_context())
        return asyncio.sleep(0)

    ours = calls.Calls()
    await ours.run(driver_call)
    closing = asyncio.create_task(ours.give_up())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    copies.clear()
    await closing
    await ours.run(driver_call)
    monkeypatch.setattr(calls, "LONGEST_S", 0.01)
    await ours.give_up()
    assert ours._held
    await asyncio.to_thread(calls._wait_until_let_go)  # as at the end of the process
    copies.clear()


async def test_cancelled_calls_are_let_go_of(azure_server: Azurite) -> None:
    blobs = store_on(azure_server)
    await blobs.open()
    requests = await blobs._objects._here()
    for turn in range(20):
        puts = [asyncio.create_task(blobs.put(f"{turn}-{n}", b"x" * 50_000)) for n in range(20)]
        await asyncio.sleep(turn / 10_000)
        for put in puts:
            put.cancel()
        await asyncio.wait(puts)
    assert await blobs.get("none", limit=1) is None  # it works as before
    del puts, put
    await wait_for(lambda: not calls._are_held(requests._calls._held))
    await blobs.aclose()


async def test_closing_does_not_wait_for_a_server_that_says_nothing(
    azure_server: Azurite, http_proxy: Callable[[int], HttpProxy]
) -> None:
    proxy = http_proxy(azure_server.port)
    proxy.plan = lambda number, asked: Answer(hangs=True)
    blobs = store_on(azure_server, endpoint_url=azure_server.endpoint_behind(proxy.port))
    stuck = [
        asyncio.create_task(call)
        for call in (blobs.put("p", b"x"), blobs.get("p", limit=9), blobs.delete(["p"]))
    ]
    await wait_for(lambda: len(proxy.asked) == 3)
    await blobs.aclose()
    put, get, deleted = await asyncio.gather(*stuck, return_exceptions=True)
    assert isinstance(deleted, dict)
    ended = [put, get, deleted["p"]]
    assert [type(end) for end in ended] == [
        OutcomeUnknownError,
        UnavailableError,
        OutcomeUnknownError,
    ]
    assert {str(end) for end in ended} == {"azure: the store was closed"}


# Loops and threads


@pytest.fixture
def proxy(azure_server: Azurite, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    """Counts connections."""
    return tcp_proxy(azure_server.port)


@pytest.fixture
def blobs(azure_server: Azurite, proxy: TcpProxy) -> AzureBlobStore:
    """As a module makes it: outside any loop, and never closed."""
    return store_on(azure_server, endpoint_url=azure_server.endpoint_behind(proxy.port))


@pytest.fixture
def ltm(blobs: AzureBlobStore) -> Iterator[LTMBackend]:
    catalog = SQLiteCatalog(":memory:")
    yield LTMBackend(catalog, blobs, on_unavailable="raise")
    asyncio.run(catalog.aclose())


async def count_up(ltm: LTMBackend) -> int:
    result = await ltm.update("counter", lambda value: [value[0] + 1, LARGE], default=[0, LARGE])
    assert result.stored
    value = (await ltm.retrieve("counter")).value
    assert isinstance(value, list)
    return int(value[0])


def test_one_backend_works_in_one_loop_after_another_on_the_same_connection(
    ltm: LTMBackend, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in range(1, 101):
        assert asyncio.run(count_up(ltm)) == turn
    assert proxy.connections == 1
    assert caplog.records == []


def test_a_loop_that_is_closed_without_its_end_leaves_nothing_either(ltm: LTMBackend) -> None:
    for turn in range(1, 11):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(count_up(ltm)) == turn
        loop.close()
    assert asyncio.run(count_up(ltm)) == 11


def test_two_threads_with_a_loop_each(ltm: LTMBackend) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        async def many() -> None:
            for _ in range(20):
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
    assert asyncio.run(count_up(ltm)) == 41


async def test_stores_with_the_same_options_share_their_connections_until_the_last_is_closed(
    azure_server: Azurite, proxy: TcpProxy
) -> None:
    url, container = azure_server.endpoint_behind(proxy.port), azure_server.new_container()
    one = store_on(azure_server, container, endpoint_url=url)
    same = store_on(azure_server, container, endpoint_url=url, prefix="other/")
    for blobs in (one, same):
        await blobs.put("p", b"x")
    assert proxy.connections == 1
    await one.aclose()
    assert await same.get("p", limit=1) == b"x"
    assert proxy.connections == 1
    store = weakref.ref((await same._objects._here()).store)
    await same.aclose()
    gc.collect()
    assert store() is None
    await wait_for(lambda: proxy.open_connections == 0)


def test_a_child_of_a_process_that_has_used_it_is_refused_at_once(blobs: AzureBlobStore) -> None:
    async def parent() -> None:
        await blobs.put("p1", b"by the parent")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(blobs.put("p2", b"by the child"))
            except BaseException as exc:  # noqa: BLE001  # the parent's to see
                os.write(write, f"{type(exc).__name__}: {exc}".encode())
            os._exit(0)
        os.close(write)
        await asyncio.to_thread(os.waitpid, pid, 0)
        said = os.read(read, 1_000)
        os.close(read)
        assert said.startswith(b"StoreError: azure: obstore does not work in a child")
        assert await blobs.get("p1", limit=100) == b"by the parent"
        assert await blobs.get("p2", limit=100) is None

    asyncio.run(parent())


def test_a_child_of_a_process_that_has_not_used_it_works(azure_server: Azurite) -> None:
    code = textwrap.dedent(SHORT) + textwrap.dedent(
        """
        import ltm_async.blobs.obstore.driver
        pid = os.fork()
        asyncio.run(put_and_get())
        if pid:
            sys.exit(os.waitpid(pid, 0)[1])
        """
    )
    container = azure_server.new_container()
    assert run_short(azure_server, container, code) == (0, "")
    assert len(azure_server.names(container)) == 2


def test_a_loop_and_its_connections_stay_from_run_to_run(ltm: LTMBackend, proxy: TcpProxy) -> None:
    ltm_async.preload(ltm)
    assert [ltm_async.run(count_up(ltm)) for _ in range(20)] == list(range(1, 21))
    assert proxy.connections == 1
    ltm_async.run(ltm._runner.stores().blobs.aclose())


def test_the_sync_twin_uses_it_too(blobs: AzureBlobStore) -> None:
    with ltm_async.SyncLTMBackend("memory:", blobs, on_unavailable="raise") as ltm:
        assert ltm.store("k", LARGE)["stored"]
        assert ltm.retrieve("k")["value"] == LARGE


# The driver


def test_the_driver_is_imported_in_a_thread_at_the_first_call() -> None:
    code = """
import asyncio, sys, threading
from ltm_async import AzureBlobStore, LTMBackend
blobs = AzureBlobStore("az://box/", account_name="acc", endpoint_url="http://127.0.0.1:1")
LTMBackend("memory:", "s3://bucket/prefix/?driver=obstore")
LTMBackend("memory:", "gs://bucket/prefix/?driver=obstore")
print("obstore" in sys.modules)
importers = set()
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "obstore":
            importers.add(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Finder())
async def main():
    await blobs.open()
    await blobs.aclose()
asyncio.run(main())
print("obstore" in sys.modules, importers, "aiohttp" in sys.modules, "azure" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\nTrue {False} False False\n"


@pytest.mark.parametrize(
    ("made", "extra"),
    [
        ("AzureBlobStore('az://box/', account_name='acc')", "azure"),
        ("ObstoreS3BlobStore('s3://bucket/')", "obstore"),
        ("ObstoreGCSBlobStore('gs://bucket/')", "obstore"),
    ],
)
def test_a_missing_driver_is_named_with_its_extra(made: str, extra: str) -> None:
    code = f"""
import asyncio, sys
sys.modules["obstore"] = None
from ltm_async import *
try:
    asyncio.run({made}.put("p", b""))
except MissingDriverError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    name = made.partition("(")[0]
    assert done.stdout == f"{name} needs obstore.exceptions: pip install 'ltm-async[{extra}]'\n"
