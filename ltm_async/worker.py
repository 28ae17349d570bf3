"""Threads for what would block a loop: one that serves calls in turn, and one for a single call."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from .errors import ClosedError

P = TypeVar("P")
T = TypeVar("T")

LONGEST_S = 2.0
"""That the end of a process waits for threads which nobody waits for any more."""


class Call(Generic[P]):
    """One request to a worker, and the way back to the task that waits for it."""

    __slots__ = ("_future", "_loop", "payload")

    def __init__(self, payload: P) -> None:
        self.payload = payload
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[object] = self._loop.create_future()

    @property
    def withdrawn(self) -> bool:
        """Nobody waits any more; a call that has had no effect yet should have none."""
        return self._future.cancelled()

    def answer(self, result: object) -> None:
        self._deliver(self._set_result, result)

    def fail(self, exc: BaseException) -> None:
        self._deliver(self._set_exception, exc)

    async def wait(self) -> object:
        return await self._future

    def _deliver(self, settle: Callable[..., None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to be told
            self._loop.call_soon_threadsafe(settle, value)

    def _set_result(self, result: object) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def _set_exception(self, exc: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(exc)


async def aside(work: Callable[[], T], name: str = "ltm-aside") -> T:
    """What *work* gives, on a daemon thread of its own.

    For what is done once and would block. Asyncio's executor keeps its threads, for which a child
    process that was forked beside them would wait for ever. The end of the process waits for the
    thread, or Python would end it in the midst of a driver's code, which aborts.
    """
    call = Call(work)

    def run() -> None:
        try:
            call.answer(work())
        except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
            call.fail(exc)

    _Aside(target=run, name=name, daemon=True).start()
    return cast("T", await call.wait())


class _Aside(threading.Thread):
    """What *aside* started."""


def wait_for_asides() -> None:
    """Until what *aside* started has ended, LONGEST_S at most. Blocks."""
    ends_at = time.monotonic() + LONGEST_S
    for thread in threading.enumerate():
        if isinstance(thread, _Aside):
            thread.join(max(0.0, ends_at - time.monotonic()))


atexit.register(wait_for_asides)


class Worker(Generic[P]):
    """Runs *serve* on one daemon thread with whatever calls have come up since.

    *serve* answers or fails each call; *finish* runs last, on the same thread. The thread
    starts with the first call and belongs to no event loop.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[list[Call[P]]], None],
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._serve = serve
        self._finish = finish
        self._calls: queue.SimpleQueue[Call[P] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: Call[None] | None = None
        # Holds for "not ended, so put": a call behind the end would never be answered.
        self._lock = threading.Lock()

    async def run(self, payload: P) -> object:
        """Have *payload* served. A cancelled call that has not begun never begins."""
        call = Call(payload)
        with self._lock:
            if self._ended is not None:
                raise ClosedError(f"{self._name} is closed")
            self._calls.put(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        return await call.wait()

    async def stop(self, *, timeout_s: float) -> None:
        """Serve what has been asked and end the thread, waiting at most *timeout_s*."""
        with self._lock:
            if self._ended is not None:
                return
            ended = self._ended = Call(None)
            self._calls.put(None)
            if self._thread is None:
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await ended.wait()

    def _work(self) -> None:
        while self._serve_next():
            pass
        self._finish()
        if self._ended is not None:
            self._ended.answer(None)

    def _serve_next(self) -> bool:
        """Serve what has come up. Its own frame, so that waiting keeps no value alive."""
        calls = []
        while (call := self._calls.get()) is not None:
            calls.append(call)
            if self._calls.empty():
                break
        self._serve(calls)
        return call is not None


class PerProcess(Generic[T]):
    """A value made again in each process: threads and file handles do not survive a fork.

    What the parent made is kept, untouched: closing it here could harm the parent's.
    *make* may run once too often when threads race, so it must be cheap and hold nothing.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.made: dict[int, T] = {}
        """What each process made, up to this one; for all but this one's, only to be looked at."""

    def get(self) -> T:
        pid = os.getpid()
        made = self.made.get(pid)
        return self.made.setdefault(pid, self._make()) if made is None else made

    @property
    def inherited(self) -> bool:
        """Made in a parent process and not yet in this one."""
        return bool(self.made) and os.getpid() not in self.made
