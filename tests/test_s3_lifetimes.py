"""One client for each loop: shared, made once, closed at its end, and none for a forked child."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest
from aiobotocore.session import AioSession

from ltm_async import LTMBackend, MemoryCatalog
from ltm_async.testing.blobs import new_path

from .s3_stores import store_on
from .servers.ministack import MiniStack
from .servers.tcp_proxy import TcpProxy


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.AbstractEventLoop]:
    """The loops of the clients that are made from now on."""
    made: list[asyncio.AbstractEventLoop] = []
    create = AioSession.create_client

    def counted(self: AioSession, *args: object, **kwargs: object) -> object:
        made.append(asyncio.get_running_loop())
        return create(self, *args, **kwargs)

    monkeypatch.setattr(AioSession, "create_client", counted)
    return made


async def test_many_first_calls_make_one_client(
    s3_server: MiniStack, clients: list[asyncio.AbstractEventLoop]
) -> None:
    bucket = s3_server.new_bucket()
    stores = [store_on(s3_server, bucket) for _ in range(5)]
    stores.append(store_on(s3_server, checksum=False, create_only=False))
    await asyncio.gather(*(store.put(new_path(), b"x") for store in stores for _ in range(10)))
    assert len(clients) == 1
    for store in stores:
        await store.aclose()


async def test_other_options_are_another_client(
    s3_server: MiniStack, clients: list[asyncio.AbstractEventLoop]
) -> None:
    bucket = s3_server.new_bucket()
    stores = [
        store_on(s3_server, bucket),
        store_on(s3_server, bucket, key=s3_server.new_key()),
        store_on(s3_server, bucket, region="eu-west-1"),
        store_on(s3_server, bucket, endpoint_url=f"http://localhost:{s3_server.port}"),
        store_on(s3_server, bucket, max_connections=2),
    ]
    for store in stores:
        await store.open()
    assert len(clients) == 5
    for store in stores:
        await store.aclose()


async def test_a_store_that_is_closed_leaves_the_client_to_the_others(
    s3_server: MiniStack, clients: list[asyncio.AbstractEventLoop]
) -> None:
    bucket = s3_server.new_bucket()
    one, two, path = store_on(s3_server, bucket), store_on(s3_server, bucket), new_path()
    await one.put(path, b"x")
    await two.open()
    await one.aclose()
    assert await two.get(path, limit=1) == b"x"
    assert len(clients) == 1
    await two.aclose()


async def test_one_that_could_not_be_made_is_made_later(
    s3_server: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_on(s3_server)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await store.put(new_path(), b"x")
    await store.aclose()


async def test_no_more_connections_than_allowed_are_open(
    s3_server: MiniStack, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    proxy = tcp_proxy(s3_server.port)
    store = store_on(s3_server, endpoint_url=f"http://127.0.0.1:{proxy.port}", max_connections=7)
    paths = [new_path() for _ in range(100)]
    await asyncio.gather(*(store.put(path, b"x" * 20_000) for path in paths))
    assert None not in await asyncio.gather(*(store.get(path, limit=20_001) for path in paths))
    assert proxy.connections == 7
    await store.aclose()


async def test_a_backends_transfers_each_find_a_connection(
    s3_server: MiniStack, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """As many as run at once by default, and they are kept for the next batch."""
    proxy = tcp_proxy(s3_server.port)
    store = store_on(s3_server, endpoint_url=f"http://127.0.0.1:{proxy.port}")
    async with LTMBackend(MemoryCatalog(), store) as ltm:
        for turn in range(2):
            entries = [{"key": f"k{n}", "value": [turn, "x" * 3_000]} for n in range(70)]
            assert (await ltm.store_batch(entries)).stored == 70
    assert 1 < proxy.connections <= 50
    await store.aclose()


def test_a_module_s_store_works_in_one_loop_after_the_other(
    s3_server: MiniStack, clients: list[asyncio.AbstractEventLoop]
) -> None:
    store, path = store_on(s3_server), new_path()
    asyncio.run(store.put(path, b"x"))
    for _ in range(3):
        assert asyncio.run(store.get(path, limit=1)) == b"x"
    assert len({id(loop) for loop in clients}) <= len(clients) == 4


@pytest.mark.parametrize("server", ["s3_server", "s3_tls_server"])
def test_two_threads_with_a_loop_each(
    server: str,
    request: pytest.FixtureRequest,
    clients: list[asyncio.AbstractEventLoop],
) -> None:
    s3: MiniStack = request.getfixturevalue(server)
    store, failures = store_on(s3), []
    start = threading.Barrier(2)

    async def work() -> None:
        for _ in range(5):
            paths = [new_path() for _ in range(20)]
            await asyncio.gather(*(store.put(path, path.encode()) for path in paths))
            found = await asyncio.gather(*(store.get(path, limit=200) for path in paths))
            assert found == [path.encode() for path in paths]

    def run() -> None:
        try:
            start.wait(10)
            asyncio.run(work())
        except BaseException as exc:
            failures.append(exc)
            raise

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(map(id, clients))) == 2


def test_a_store_closed_in_another_loop_closes_its_connections_there(
    s3_server: MiniStack,
) -> None:
    store = store_on(s3_server)

    async def use() -> None:
        await store.put(new_path(), b"x")
        await asyncio.to_thread(lambda: asyncio.run(store.aclose()))
        for _ in range(100):
            if sockets() == before + 2:  # those that wake the loop
                return
            await asyncio.sleep(0.05)
        pytest.fail("a connection is still open")

    before = sockets()
    asyncio.run(use())


def sockets() -> int:
    """Those that this process has open."""
    found = 0
    for link in pathlib.Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(link).startswith("socket:")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


@pytest.mark.parametrize(("server", "loops"), [("s3_server", 200), ("s3_tls_server", 30)])
def test_no_socket_is_left_by_many_loops(
    server: str, loops: int, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    s3: MiniStack = request.getfixturevalue(server)
    store, path = store_on(s3), new_path()
    asyncio.run(store.put(path, b"x"))
    before = sockets()

    async def use() -> None:
        await asyncio.gather(*(store.get(path, limit=1) for _ in range(2)))

    for _ in range(loops):
        asyncio.run(use(), debug=False)
    assert sockets() == before
    assert [record.getMessage() for record in caplog.records] == []


def test_a_forked_child_has_a_client_of_its_own(s3_server: MiniStack) -> None:
    """The parent's connections, forked in the middle of their use, stay the parent's."""
    code = """
        import asyncio, os, sys
        sys.path.insert(0, sys.argv[1])
        from ltm_async import S3BlobStore
        store = S3BlobStore(
            sys.argv[2], endpoint_url=sys.argv[3],
            access_key_id=sys.argv[4], secret_access_key=sys.argv[5],
        )

        async def work(letter):
            paths = [f"{letter}{number}" for number in range(30)]
            await asyncio.gather(*(store.put(path, path.encode()) for path in paths))
            found = await asyncio.gather(*(store.get(path, limit=99) for path in paths))
            assert found == [path.encode() for path in paths]

        async def parent():
            await work("a")
            reading = [asyncio.create_task(work("b"))]
            await asyncio.sleep(0.01)
            pid = os.fork()
            if not pid:  # and never back to the parent's loop, which would read its replies
                code = 1
                try:
                    asyncio.run(work("d"))
                    code = 0
                finally:
                    os._exit(code)
            await asyncio.gather(*reading)
            await work("c")
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            return status

        loop = asyncio.new_event_loop()
        result = loop.run_until_complete(parent())
        loop.run_until_complete(work("e"))
        loop.run_until_complete(store.aclose())
        print("status", result)
    """
    root = str(pathlib.Path(__file__).parents[1])
    key = s3_server.key
    arguments = [root, f"s3://{s3_server.new_bucket()}", s3_server.endpoint_url]
    arguments += [key.access_key_id, key.secret_access_key]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout == "status 0\n", done.stderr


def test_a_loop_that_was_never_ended_does_not_harm_the_next(s3_server: MiniStack) -> None:
    """As in a notebook, or a runtime that was frozen: its connections are dropped with it."""
    store, path = store_on(s3_server), new_path()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.put(path, b"x"))
    assert asyncio.run(store.get(path, limit=1)) == b"x"
    assert loop.run_until_complete(store.get(path, limit=1)) == b"x"
    loop.run_until_complete(store.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
