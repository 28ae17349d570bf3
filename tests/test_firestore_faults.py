"""Firestore refusing, silent or cut off, and gRPC in loops, threads and forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    DeadlineError,
    FirestoreCatalog,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)
from ltm_async.testing.writes import new_write_id, small

from .backends import QUICK
from .databases import wait_for
from .servers.firestore import Firestore, new_project
from .servers.grpc_proxy import Answer, GrpcProxy
from .servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpFaults, TcpProxy

CANARY = "c4n4ry"


@pytest.fixture
def answers(firestore_server: Firestore, monkeypatch: pytest.MonkeyPatch) -> Iterator[GrpcProxy]:
    """Between the catalog and Firestore."""
    with GrpcProxy(firestore_server.port) as proxy:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
        yield proxy


@pytest.fixture
def link(
    firestore_server: Firestore,
    tcp_proxy: Callable[[int], TcpProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> TcpProxy:
    """The same, below gRPC."""
    proxy = tcp_proxy(firestore_server.port)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{proxy.port}")
    return proxy


@contextlib.asynccontextmanager
async def backend(transport: str) -> AsyncIterator[LTMBackend]:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    yield LTMBackend(catalog, "memory:", on_unavailable="raise", retry=QUICK)
    await catalog.aclose()


def once(method: str, answer: Answer, *, skip: int = 0) -> Callable[[str], Answer | None]:
    """*answer* to one call of *method*, after *skip* others of it."""
    left = [skip]

    def choose(name: str) -> Answer | None:
        if name != method:
            return None
        left[0] -= 1
        return answer if left[0] == -1 else None

    return choose


# What a status means

MEANINGS: dict[str, type[LTMError]] = {
    "UNAVAILABLE": OutcomeUnknownError,
    "DEADLINE_EXCEEDED": OutcomeUnknownError,
    "INTERNAL": OutcomeUnknownError,
    "UNKNOWN": OutcomeUnknownError,
    "CANCELLED": OutcomeUnknownError,
    "ABORTED": UnavailableError,
    "RESOURCE_EXHAUSTED": RateLimitedError,
    "PERMISSION_DENIED": AccessDeniedError,
    "UNAUTHENTICATED": AccessDeniedError,
    "INVALID_ARGUMENT": StoreError,
    "UNIMPLEMENTED": StoreError,
}


@pytest.mark.parametrize("status", MEANINGS)
@pytest.mark.parametrize("method", ["BatchGetDocuments", "Commit"])
async def test_a_status_is_one_kind_of_error_and_quotes_nothing(
    transport: str, answers: GrpcProxy, method: str, status: str
) -> None:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    answers.choose = once(method, Answer(status=status, after=False))
    with pytest.raises(LTMError) as caught:
        await catalog.track_entry("", small(CANARY, f'"{CANARY}"'), write_id=new_write_id())
    assert type(caught.value) is MEANINGS[status]
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert answers.calls.count(method) == 1, "the driver tried again by itself"
    await catalog.aclose()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED"]
)
@pytest.mark.parametrize("value", ["small", "x" * 5_000], ids=["small", "large"])
async def test_a_store_whose_commit_is_answered_with_a_status_is_told_the_truth(
    transport: str, answers: GrpcProxy, value: str, status: str, after: bool
) -> None:
    """*Aborted* and *exhausted* after the effect would be lies, which Firestore does not tell."""
    if after and status in {"ABORTED", "RESOURCE_EXHAUSTED"}:
        status = "INTERNAL"
    async with backend(transport) as ltm:
        await ltm.store("k", "old")
        answers.choose = once(
            "Commit", Answer(status=status, after=after), skip=int(len(value) > 1_000)
        )
        told: object
        try:
            told = (await ltm.store("k", value)).stored
        except OutcomeUnknownError:
            told = "unknown"
        found = (await ltm.retrieve("k")).value
        if told is True:
            assert found == value
        else:
            assert (len(value), after) == (5, False), "only what nothing was reserved for"
            assert found == "old"
        assert (await ltm.verify()).sound


@pytest.mark.parametrize("method", ["BatchGetDocuments", "RunQuery"])
@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
async def test_a_question_is_asked_again(
    transport: str, answers: GrpcProxy, method: str, status: str
) -> None:
    async with backend(transport) as ltm:
        await ltm.store("k", 1)
        answers.choose = once(method, Answer(status=status, after=True))
        assert (await ltm.retrieve("k")).value == 1
        assert [entry.key for entry in (await ltm.list_entries()).entries] == ["k"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_delete_whose_commit_is_answered_with_a_status(
    transport: str, answers: GrpcProxy, after: bool
) -> None:
    async with backend(transport) as ltm:
        await ltm.store("k", "x" * 5_000)
        answers.choose = once("Commit", Answer(status="UNAVAILABLE", after=after))
        if after:
            assert (await ltm.delete("k")).deleted
        else:
            with pytest.raises(OutcomeUnknownError):
                await ltm.delete("k")
        assert (await ltm.retrieve("k")).found is not after
        assert (await ltm.verify()).sound


# The link


@pytest.mark.parametrize(
    "fault", [LOST_REPLY, TcpFaults(reset_up_after=0)], ids=["reply", "request"]
)
@pytest.mark.parametrize("value", ["small", "x" * 5_000], ids=["small", "large"])
async def test_a_link_that_breaks_leaves_old_or_new_and_works_again(
    transport: str, link: TcpProxy, fault: TcpFaults, value: str
) -> None:
    async with backend(transport) as ltm:
        await ltm.store("k", "old")
        link.faults = fault
        before = link.connections
        task = asyncio.create_task(ltm.store("k", value))
        await wait_for(lambda: link.connections > before)
        link.faults = NO_FAULTS
        stored: bool | None = None
        with contextlib.suppress(OutcomeUnknownError, UnavailableError):
            stored = (await task).stored
        if stored is None:
            await _healthy(ltm, "probe", 5)
        found = (await ltm.retrieve("k")).value
        assert found in {"old", value}
        if stored is not None:
            assert found == value
        assert (await ltm.store("k", "after")).stored
        assert (await ltm.verify()).sound


async def test_silence_ends_with_the_deadline(transport: str, link: TcpProxy) -> None:
    async with backend(transport) as ltm:
        await ltm.store("k", 1)
        loop = asyncio.get_running_loop()
        link.faults = BLACK_HOLE
        for call in (
            lambda: ltm.store("k", 2, timeout=0.3),
            lambda: ltm.retrieve("k", timeout=0.3),
        ):
            began = loop.time()
            with pytest.raises(DeadlineError):
                await call()
            assert loop.time() - began < 1.3
        link.faults = NO_FAULTS
        link.reset_all()
        await _healthy(ltm, "k", 5)


async def test_after_an_outage_it_works_within_five_seconds(transport: str, link: TcpProxy) -> None:
    """However long it was: gRPC by itself waits longer and longer before it connects again."""
    async with backend(transport) as ltm:
        await ltm.store("k", 1)
        link.faults = TcpFaults(refuse=True)
        link.reset_all()
        ends = asyncio.get_running_loop().time() + 6
        failed = 0
        while asyncio.get_running_loop().time() < ends:
            with contextlib.suppress(StoreError):
                await ltm.retrieve("k", timeout=1)
                failed -= 1
            failed += 1
            await asyncio.sleep(0.1)
        assert failed > 10
        link.faults = NO_FAULTS
        await _healthy(ltm, "k", 5)


async def test_nobody_listening_is_an_error_in_time(
    transport: str, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{unused_tcp_port}")
    async with backend(transport) as ltm:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises((OutcomeUnknownError, UnavailableError)):
            await ltm.store("k", 1, timeout=2)
        assert loop.time() - began < 3


async def _healthy(ltm: LTMBackend, key: str, within_s: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        with contextlib.suppress(StoreError):
            await ltm.store(key, "after", timeout=1)
            break
        await asyncio.sleep(0.05)
    assert loop.time() - began < within_s


# Loops, threads, forks


async def count_up(ltm: LTMBackend) -> int:
    await ltm.update("counter", lambda value: value + 1, default=0)
    value = (await ltm.retrieve("counter")).value
    assert isinstance(value, int)
    return value


def test_one_backend_works_in_one_loop_after_another(
    transport: str, link: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    ltm = LTMBackend(
        FirestoreCatalog(new_project(), transport=transport), "memory:", on_unavailable="raise"
    )
    for turn in range(1, 31):
        assert asyncio.run(count_up(ltm)) == turn
    assert caplog.records == []
    _settle(link)


def _settle(link: TcpProxy) -> None:
    async def settled() -> None:
        await wait_for(lambda: link.open_connections == 0)

    asyncio.run(settled())


def test_two_threads_with_a_loop_each(transport: str, link: TcpProxy) -> None:
    ltm = LTMBackend(
        FirestoreCatalog(new_project(), transport=transport), "memory:", on_unavailable="raise"
    )
    failed: list[BaseException] = []

    def work() -> None:
        async def many() -> None:
            for _ in range(10):
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
    assert asyncio.run(ltm.retrieve("counter")).value == 20
    _settle(link)


async def test_many_first_calls_make_one_client_which_catalogs_share(
    transport: str, link: TcpProxy
) -> None:
    project = new_project()
    catalogs = [FirestoreCatalog(project, transport=transport) for _ in range(5)]
    calls: list[Awaitable[Any]] = [catalog.stats("") for catalog in catalogs for _ in range(4)]
    await asyncio.gather(*calls)
    clients = [await catalog._share.get() for catalog in catalogs]
    assert len({id(client) for client in clients}) == 1
    assert link.connections == 1
    for catalog in catalogs[1:]:
        await catalog.aclose()
    assert (await catalogs[0].stats("")).entries == 0
    await catalogs[0].aclose()
    await wait_for(lambda: link.open_connections == 0)
    del clients  # closed, not collected


FORKING = """
import asyncio, os, sys
from ltm_async import LTMBackend, StoreError
ltm = LTMBackend(sys.argv[1], "memory:", on_unavailable="raise")
async def first():
    await ltm.store("k", 1)
    if sys.argv[2] == "open":
        fork(lambda: expect_refusal())
        assert (await ltm.retrieve("k", timeout=5)).value == 1
async def expect_refusal():
    try:
        await ltm.retrieve("k", timeout=5)
    except StoreError as exc:
        assert "fork" in str(exc), exc
        return
    raise AssertionError("it was not refused")
async def expect_value():
    assert (await ltm.retrieve("k", timeout=10)).value == 1
def fork(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0) == (pid, 0)
asyncio.run(first())
if sys.argv[2] == "closed":
    fork(lambda: expect_value())
print("fine")
"""


@pytest.mark.parametrize("parents", ["open", "closed"])
def test_a_child_of_a_process_that_is_connected_is_told_so_and_any_other_works(
    transport: str, firestore_server: Firestore, parents: str
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            FORKING,
            f"firestore://{new_project()}?transport={transport}",
            parents,
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
