"""The way from blocking code into an event loop, and back with the result."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from .errors import BlockingCallError
from .resting import HEAR_SIGNALS_EVERY_S, RestingLoop
from .signals import Postponed
from .worker import PerProcess

T = TypeVar("T")

CANCEL_TIMEOUT_S = 2.0
"""How long an interrupted call may take to put its affairs in order."""
REST_S = 0.01
TURNS_AFTER_REST = 3
"""Of the loop, before a call begins: a connection that ended while the loop was at rest takes one
for its last data, one for its end and one to be dropped."""


class _Call(Generic[T]):
    """A coroutine on the loop, and the thread that waits for it.

    What is not about waiting and its outcome is for the thread that runs the loop.
    """

    __slots__ = ("_done", "_ended", "_error", "_make", "_result", "_task", "_turns_first")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], turns_first: int) -> None:
        self._make = make
        self._turns_first = turns_first
        self._task: asyncio.Task[Any] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._done = threading.Lock()  # released at the end; a Future costs several times as much
        self._done.acquire()

    def begin(self, loop: RestingLoop) -> asyncio.Task[None]:
        return loop.create_task(self._work())

    def cancel(self) -> None:
        if self._task is None:
            self._end()  # a task cancelled before its first step would tell nobody
        else:
            self._task.cancel()

    def wait(self) -> None:
        """Until it has ended; what a signal's handler raises comes out of here."""
        while not (self._ended or self._done.acquire(timeout=HEAR_SIGNALS_EVERY_S)):
            if sys.is_finalizing():
                raise BlockingCallError("the interpreter is ending, and its other threads are gone")

    def wait_at_most(self, timeout_s: float) -> None:
        if not (self._ended or sys.is_finalizing()):
            self._done.acquire(timeout=timeout_s)

    def outcome(self) -> T:
        error, self._error = self._error, None
        if error is None:
            return cast("T", self._result)
        try:
            raise error
        finally:
            del error  # it refers to this frame by its traceback

    async def _work(self) -> None:
        if self._ended:
            return
        self._task = asyncio.current_task()
        try:
            for _ in range(self._turns_first):
                await asyncio.sleep(0)
            self._result = await self._make()
        except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this loop
            self._error = exc
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._done.release()


class Portal:
    """One loop for all blocking calls, run by a thread that calls, or by a daemon thread.

    A thread that finds the loop at rest runs it for its own call, which spares it two changes of
    thread. Others that call meanwhile have theirs run there too. What is unfinished when that
    thread leaves, the daemon thread takes over.
    """

    def __init__(self) -> None:
        self._loop: RestingLoop | None = None
        self._turn = threading.Lock()
        """Held by the thread that runs the loop."""
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Wakes the daemon thread; a signal's handler may put too."""
        self._starting = threading.Lock()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], *, allow_blocking: bool = False) -> T:
        """The result of the coroutine that *make* gives, in a copy of the caller's context.

        What interrupts the waiting cancels the coroutine.

        Raises:
            BlockingCallError: The thread runs an event loop, and not *allow_blocking*, or it is
                this one.
        """
        running = asyncio._get_running_loop()
        if running is not None:
            if running is self._loop:
                raise BlockingCallError(
                    "a blocking call inside another one, such as in the function given to "
                    "update(), would wait for itself"
                )
            if not allow_blocking:
                raise BlockingCallError(
                    "SyncLTMBackend would stop the event loop that runs in this thread: use "
                    "LTMBackend and await it, or pass allow_blocking=True"
                )
        loop = self._loop or self._start()
        call = _Call(make, TURNS_AFTER_REST if loop.rested_s > REST_S else 0)
        try:
            if running is not None or not self._run_here(loop, call):
                loop.call_soon_threadsafe(call.begin, loop)
            call.wait()
        except BaseException:
            loop.call_soon_threadsafe(call.cancel)
            call.wait_at_most(CANCEL_TIMEOUT_S)
            raise
        return call.outcome()

    def _run_here(self, loop: RestingLoop, call: _Call[Any]) -> bool:
        """Run *loop* until the call has ended or a signal came, unless another thread runs it."""
        if self._turn.locked():
            return False
        with Postponed(loop) as signals:  # first, so that nothing can keep the turn from release
            if not self._turn.acquire(blocking=False):
                return False
            try:
                loop.run_for(call.begin(loop), signals)
            finally:
                self._turn.release()
                self._look_after(loop)
        return True

    def _look_after(self, loop: RestingLoop) -> None:
        """Call the daemon thread if nobody runs the loop and it has something to do.

        To be asked after the turn was given back and after a callback was scheduled, so that one
        of the two sees the other.
        """
        if not (self._turn.locked() or loop.may_rest()):
            self._wanted.put(None)

    def _start(self) -> RestingLoop:
        with self._starting:
            if self._loop is None:
                loop = RestingLoop(on_knock=self._look_after)
                # Now, since Python 3.12 starts no thread any more once the main one has ended.
                threading.Thread(
                    target=self._serve, args=(loop,), name="ltm-sync", daemon=True
                ).start()
                self._loop = loop
            return self._loop

    def _serve(self, loop: RestingLoop) -> None:
        while True:
            self._wanted.get()
            while not loop.may_rest() and self._turn.acquire(blocking=False):
                try:
                    loop.run_out()
                finally:
                    self._turn.release()


_portals = PerProcess(Portal)


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]], *, allow_blocking: bool = False) -> T:
    """:meth:`Portal.run` of the one that all blocking calls of this process share."""
    return _portals.get().run(make, allow_blocking=allow_blocking)
