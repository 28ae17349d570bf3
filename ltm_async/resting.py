"""An event loop that nobody has to run while it has nothing to finish."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

from .signals import Postponed

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HEAR_SIGNALS_EVERY_S = 0.2
"""A signal that comes just before a thread blocks does not wake it."""


class _Selector(selectors.DefaultSelector):
    asked_at = 0.0
    knocked = False
    """A callback was scheduled that the loop may not have seen: it looks after each of these."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        longest = HEAR_SIGNALS_EVERY_S
        found = super().select(longest if timeout is None else min(timeout, longest))
        self.knocked = False
        self.asked_at = time.monotonic()
        return found


class RestingLoop(asyncio.SelectorEventLoop):
    """Run by one thread at a time, now by this one and now by that, and at rest between.

    At rest it is not closed: connections stay open, and what they receive, like the timers that
    come due, waits for the next run.

    Args:
        on_knock: Called by the thread that has called ``call_soon_threadsafe``, after each time.
    """

    def __init__(self, on_knock: Callable[[RestingLoop], None]) -> None:
        self._watched = _Selector()
        self._on_knock = on_knock
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._awaited: asyncio.Task[Any] | None = None
        super().__init__(self._watched)

    def create_task(self, coro: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:  # type: ignore[override]
        task = super().create_task(coro, **options)
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        return task

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        self._watched.knocked = True
        self._on_knock(self)
        return handle

    def may_rest(self) -> bool:
        """No task is unfinished, and no other thread has scheduled anything."""
        return not (self._unfinished or self._watched.knocked)

    @property
    def rested_s(self) -> float:
        """How long nobody has asked what came from outside."""
        return time.monotonic() - self._watched.asked_at

    def run_for(self, task: asyncio.Task[Any], signals: Postponed) -> None:
        """Run until *task* is done, or a signal was noted."""
        self._awaited = task
        try:
            while not (task.done() or signals.noted):
                self._run()
        finally:
            self._awaited = None

    def run_out(self) -> None:
        """Run until no task is unfinished."""
        self.call_soon(self._stop_if_finished)
        self._run()

    def _run(self) -> None:
        # Asyncio lets these two through after the task, which has them already.
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            self.run_forever()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        if self._awaited is None:
            self._stop_if_finished()
        elif task is self._awaited:
            self.stop()

    def _stop_if_finished(self) -> None:
        if not self._unfinished:
            self.stop()
