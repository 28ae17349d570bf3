"""The thread that serves calls, alone and below the stores that use it."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import queue
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ltm_async import ClosedError, LocalBlobStore
from ltm_async.catalogs.sqlite.lane import Lane, one_by_one
from ltm_async.worker import Call, PerProcess, Worker

Job = Callable[[], object]


def serve(calls: list[Call[Job]]) -> None:
    for call in calls:
        try:
            call.answer(call.payload())
        except BaseException as exc:  # noqa: BLE001  # belongs to the caller, as in the stores
            call.fail(exc)


@pytest.fixture
async def worker() -> AsyncIterator[Worker[Job]]:
    worker: Worker[Job] = Worker("test-worker", serve)
    yield worker
    await worker.stop(timeout_s=5)


class Blocker:
    """A job that holds a thread up until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, *_: object) -> str:
        self.began.set()
        assert self.go.wait(30)
        return "blocked"

    async def until_it_began(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 30)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# The worker


async def test_calls_are_served_in_order_on_one_thread(worker: Worker[Job]) -> None:
    served: list[int] = []
    threads: set[str] = set()

    def job(number: int) -> Job:
        def note() -> int:
            served.append(number)
            threads.add(threading.current_thread().name)
            return number

        return note

    answers = await asyncio.gather(*(worker.run(job(number)) for number in range(500)))
    assert answers == served == list(range(500))
    assert threads == {"test-worker"}


async def test_what_has_come_up_is_served_together() -> None:
    sizes: list[int] = []
    blocker = Blocker()

    def serve_together(calls: list[Call[Job]]) -> None:
        sizes.append(len(calls))
        serve(calls)

    worker: Worker[Job] = Worker("test-worker", serve_together)
    first = asyncio.create_task(worker.run(blocker))
    await blocker.until_it_began()
    others = [asyncio.create_task(worker.run(lambda: None)) for _ in range(7)]
    await settle()
    blocker.go.set()
    await asyncio.gather(first, *others)
    await worker.stop(timeout_s=5)
    assert [size for size in sizes if size] == [1, 7]


@pytest.mark.parametrize("error", [LookupError("x"), KeyboardInterrupt(), SystemExit(3)])
async def test_what_a_job_raises_is_raised_to_its_caller_alone(
    worker: Worker[Job], error: BaseException
) -> None:
    def fail() -> None:
        raise error

    async def caught() -> BaseException | None:
        try:
            await worker.run(fail)
        except BaseException as exc:  # noqa: BLE001  # what is tested
            return exc
        return None

    raised, answer = await asyncio.gather(caught(), worker.run(lambda: "fine"))
    assert (raised, answer) == (error, "fine")
    assert await worker.run(lambda: "still there") == "still there"


async def test_no_thread_before_the_first_call() -> None:
    before = threading.active_count()
    worker: Worker[Job] = Worker("test-worker", serve)
    await worker.stop(timeout_s=5)
    assert threading.active_count() == before


async def test_stopping_serves_what_was_asked_and_finishes_last() -> None:
    events: list[object] = []
    blocker = Blocker()
    worker: Worker[Job] = Worker(
        "test-worker", serve, lambda: events.append(threading.current_thread().name)
    )
    first = asyncio.create_task(worker.run(blocker))
    await blocker.until_it_began()
    others = [
        asyncio.create_task(worker.run(lambda number=number: events.append(number)))  # type: ignore[misc]
        for number in range(5)
    ]
    await settle()
    stopping = asyncio.create_task(worker.stop(timeout_s=30))
    await settle()
    with pytest.raises(ClosedError, match=r"^test-worker is closed$"):
        await worker.run(lambda: events.append("late"))
    assert events == []
    blocker.go.set()
    await stopping
    assert await asyncio.gather(first, *others) == ["blocked", *[None] * 5]
    assert events == [0, 1, 2, 3, 4, "test-worker"]


async def test_stopping_waits_no_longer_than_it_may() -> None:
    blocker = Blocker()
    worker: Worker[Job] = Worker("test-worker", serve)
    held = asyncio.create_task(worker.run(blocker))
    await blocker.until_it_began()
    began = asyncio.get_running_loop().time()
    await worker.stop(timeout_s=0.05)
    assert asyncio.get_running_loop().time() - began < 5
    assert not held.done()
    blocker.go.set()
    assert await held == "blocked"


async def test_stopping_ends_the_thread_and_may_be_done_twice(worker: Worker[Job]) -> None:
    thread = await worker.run(threading.current_thread)
    assert isinstance(thread, threading.Thread)
    assert thread.daemon
    await worker.stop(timeout_s=5)
    await worker.stop(timeout_s=5)
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    with pytest.raises(ClosedError):
        await worker.run(lambda: None)


@pytest.mark.parametrize("error", [None, LookupError("unheard")])
async def test_a_call_that_has_begun_ends_though_its_caller_is_cancelled(
    worker: Worker[Job], error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes of it reaches nobody, and is no error of the loop either."""
    blocker, done = Blocker(), threading.Event()

    def job() -> None:
        blocker()
        done.set()
        if error is not None:
            raise error

    task = asyncio.create_task(worker.run(job))
    await blocker.until_it_began()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    blocker.go.set()
    assert await asyncio.to_thread(done.wait, 30)
    assert await worker.run(lambda: "next") == "next"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_loop_closed_in_the_middle_of_a_call_does_not_kill_the_thread() -> None:
    blocker = Blocker()
    worker: Worker[Job] = Worker("test-worker", serve)
    loop = asyncio.new_event_loop()
    task = loop.create_task(worker.run(blocker))
    loop.run_until_complete(blocker.until_it_began())
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    blocker.go.set()

    async def again() -> object:
        async with asyncio.timeout(30):
            answer = await worker.run(threading.current_thread)
        await worker.stop(timeout_s=5)
        return answer

    thread = asyncio.run(again())
    assert isinstance(thread, threading.Thread) and thread.name == "test-worker"


def test_one_worker_serves_the_loops_of_several_threads() -> None:
    worker: Worker[Job] = Worker("test-worker", serve)
    answers: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    async def ask(first: int) -> None:
        async def one(number: int) -> object:
            return await worker.run(lambda: number)

        answers.put(await asyncio.gather(*map(one, range(first, first + 100))))

    threads = [
        threading.Thread(target=lambda first=first: asyncio.run(ask(first)))
        for first in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    got = sorted(answers.get(timeout=1) for _ in threads)
    assert got == [list(range(first, first + 100)) for first in (0, 100, 200)]
    asyncio.run(worker.stop(timeout_s=5))


# Withdrawn calls never begin


async def test_a_transaction_that_is_cancelled_before_its_turn_never_begins() -> None:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(":memory:", check_same_thread=False)

    lane = Lane("test-lane", connect, one_by_one)
    blocker, ran = Blocker(), threading.Event()
    first = asyncio.create_task(lane.run(blocker))
    await blocker.until_it_began()
    withdrawn = asyncio.create_task(lane.run(lambda _conn: ran.set()))
    await settle()
    withdrawn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await withdrawn
    blocker.go.set()
    assert await first == "blocked"
    assert await lane.run(lambda conn: conn.execute("SELECT 7").fetchone()) == (7,)
    await lane.aclose()
    assert not ran.is_set()


async def test_a_file_whose_put_is_cancelled_before_its_turn_is_never_written(
    tmp_path: pathlib.Path,
) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    writer, _ = store._workers.get()
    blocker = Blocker()
    first = asyncio.create_task(writer.run(blocker))
    await blocker.until_it_began()
    withdrawn = asyncio.create_task(store.put("a/withdrawn", b"x"))
    kept = asyncio.create_task(store.put("a/kept", b"x"))
    await settle()
    withdrawn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await withdrawn
    blocker.go.set()
    await asyncio.gather(first, kept)
    assert [info.path async for info in store.scan("a/")] == ["a/kept"]
    await store.aclose()


# A thread for one call


@pytest.mark.parametrize(("takes_s", "done"), [(0.3, True), (600, False)])
def test_a_process_waits_at_its_end_for_what_is_done_aside_but_not_for_long(
    tmp_path: pathlib.Path, takes_s: float, done: bool
) -> None:
    """Python would end the thread in the midst of a driver's code, and the process would abort."""
    script = f"""
import asyncio, pathlib, time
from ltm_async.worker import aside
async def main():
    def work():
        time.sleep({takes_s})
        pathlib.Path({str(tmp_path / "done")!r}).touch()
    task = asyncio.create_task(aside(work))
    await asyncio.sleep(0.01)
    task.cancel()
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)
    assert (tmp_path / "done").exists() == done


# PerProcess


def test_a_process_keeps_its_value() -> None:
    per_process = PerProcess(object)
    assert not per_process.inherited
    assert per_process.get() is per_process.get()
    assert not per_process.inherited


def test_a_forked_process_makes_its_own_value_and_keeps_its_parent_s() -> None:
    script = """
import os
from ltm_async.worker import PerProcess
per_process = PerProcess(object)
parent = per_process.get()
pid = os.fork()
if pid == 0:
    before = per_process.inherited
    sound = before and per_process.get() is not parent and not per_process.inherited
    kept = parent in per_process.made.values()
    os._exit(0 if sound and kept else 1)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), per_process.get() is parent)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "0 True"
