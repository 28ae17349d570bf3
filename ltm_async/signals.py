"""Signal handlers that wait until it is safe to run them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as signal, without its slow enums
import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

_ALL = tuple(map(int, signal.valid_signals()))


class Postponed:
    """While entered, signals are noted and stop *loop*; on leaving, their handlers run.

    A handler that raises in the middle of a loop's own work would lose what the loop was about to
    do for others. Only the main thread runs handlers, so in any other this does nothing.

    A signal that comes again while a task keeps the loop from stopping is not postponed: what its
    handler raises ends that task.
    """

    __slots__ = ("_handlers", "_loop", "_pid", "noted")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.noted: list[int] = []
        self._loop = loop
        self._pid = os.getpid()
        self._handlers: dict[int, _Handler] = {}

    def __enter__(self) -> Self:
        if threading.get_ident() != threading.main_thread().ident:
            return self
        note = self._note
        try:
            for signum in _ALL:
                handler = _signal.getsignal(signum)
                if callable(handler):
                    self._handlers[signum] = handler
                    _signal.signal(signum, note)
        except ValueError:  # a subinterpreter has no signals
            self._handlers.clear()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handlers:
            self._restore()
            if self.noted:
                self._act()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        handler = self._handlers[signum]
        if os.getpid() != self._pid:  # another thread forked meanwhile, and this is the child
            _signal.signal(signum, handler)
            handler(signum, frame)
        elif signum in self.noted and self._is_in_a_task():
            handler(signum, frame)
        else:
            self.noted.append(signum)
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _is_in_a_task(self) -> bool:
        """Here, in this thread."""
        return asyncio._get_running_loop() is self._loop and asyncio.current_task() is not None

    def _restore(self) -> None:
        """Put the handlers back, all of them even if one that is back already raises."""
        note = self._note
        try:
            for signum, handler in self._handlers.items():
                found = _signal.signal(signum, handler)
                if found != note:  # a coroutine has set another, or it was put back already
                    _signal.signal(signum, found)
        except BaseException:
            self._restore()
            raise

    def _act(self) -> None:
        """Run the handlers of what was noted, all of them even if one raises."""
        try:
            while self.noted:
                signum = self.noted.pop(0)
                self._handlers[signum](signum, inspect.currentframe())
        finally:
            if self.noted:
                self._act()
