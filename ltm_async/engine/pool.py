"""A few threads for DuckDB's calls, each of which can be interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from ..errors import ClosedError
from ..worker import LONGEST_S, aside

T = TypeVar("T")

PATIENCE_S = 0.05
"""How long a cancelled call waits for its work to end: an interrupt takes a few milliseconds,
but not inside one function over one large value."""
EVERY_S = 0.005


class _Job:
    """One piece of work, and the way back to the task that waits for it."""

    def __init__(self, work: Callable[[], object], interrupt: Callable[[], None]) -> None:
        self.work = work
        self.interrupt = interrupt
        self.begun = False
        self.withdrawn = False
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> None:
        """Do the work, unless nobody waits for it any more."""
        result, failure = None, None
        self.begun = True
        if not self.withdrawn:
            try:
                result = self.work()
            except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
                failure = exc
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._settle, result, failure)

    def _settle(self, result: object, failure: BaseException | None) -> None:
        if failure is None or self.withdrawn:
            self.done.set_result(result)
        else:
            self.done.set_exception(failure)

    async def withdraw(self) -> None:
        """Interrupt the work until it ends; past PATIENCE_S that goes on beside the caller.

        An interrupt that comes before a statement begins is lost, so one is not enough.
        """
        self.withdrawn = True
        if not self.begun:  # which it sets before it looks whether it was withdrawn
            return
        give_up_at = self._loop.time() + PATIENCE_S
        while not self.done.done() and self._loop.time() < give_up_at:
            self.interrupt()
            with contextlib.suppress(asyncio.CancelledError):  # it is being cancelled already
                await asyncio.wait([self.done], timeout=EVERY_S)
        if self.done.done():
            self.done.exception()  # looked at, or asyncio would complain that nobody did
        self._insist()

    def _insist(self) -> None:
        if not self.done.done():
            self.interrupt()
            self._loop.call_later(EVERY_S, self._insist)


class Pool:
    """Up to *size* daemon threads, started when they are needed. Belongs to no event loop."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._free = 0
        """Threads that wait, less the jobs that wait for them."""
        self._running: set[_Job] = set()
        self._stopped = False
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """What *work* gives, on one of the threads; cancelling interrupts it.

        A call that is cancelled before its turn never begins.
        """
        job = _Job(work, interrupt)

        def run_job() -> None:
            self._running.add(job)
            job.run()
            self._running.discard(job)

        if not self._put(run_job):
            raise ClosedError(f"{self._name} is closed")
        try:
            await asyncio.wait([job.done])  # unlike awaiting it, leaves it alone when cancelled
        except asyncio.CancelledError:
            await job.withdraw()
            raise
        return cast("T", job.done.result())

    def later(self, work: Callable[[], None]) -> None:
        """Have *work*, which must not raise, done by one of the threads, and do not wait."""
        if not self._put(work):
            work()

    def end(self) -> None:
        """Take no more work; the threads end once theirs is done."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                for _ in self._threads:
                    self._jobs.put(None)

    async def stop(self, *, timeout_s: float) -> None:
        """End the threads once their work is done; after *timeout_s* it is interrupted."""
        self.end()
        await aside(partial(self._join, timeout_s, PATIENCE_S), f"{self._name}-stop")

    def leave(self) -> None:
        """End the threads by interrupting their work, within LONGEST_S. Blocks."""
        self.end()
        self._join(0, LONGEST_S)

    def _join(self, timeout_s: float, patience_s: float) -> None:
        interrupt_at = time.monotonic() + timeout_s
        leave_at = interrupt_at + patience_s
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < leave_at:
            if time.monotonic() >= interrupt_at:
                for job in list(self._running):
                    job.interrupt()
            for thread in self._threads:
                thread.join(EVERY_S)

    def _put(self, work: Callable[[], None]) -> bool:
        with self._lock:
            if self._stopped:
                return False
            self._free -= 1
            self._jobs.put(work)
            if self._free < 0 and len(self._threads) < self._size:
                self._start()
        return True

    def _start(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = _Thread(self, name)
        self._threads.append(thread)
        self._free += 1
        thread.start()

    def work(self) -> None:
        """What each thread does."""
        while self._work_once():
            with self._lock:
                self._free += 1

    def _work_once(self) -> bool:
        """Do what comes up next. Its own frame, so that waiting keeps no result alive."""
        work = self._jobs.get()
        if work is not None:
            work()
        return work is not None


class _Thread(threading.Thread):
    def __init__(self, pool: Pool, name: str) -> None:
        super().__init__(target=pool.work, name=name, daemon=True)
        self.pool = pool


def leave_pools() -> None:
    """At the end of the process: have no thread inside DuckDB, whoever still holds its pool."""
    for thread in threading.enumerate():
        if isinstance(thread, _Thread):
            thread.pool.leave()
