"""Calls of the driver, and what it still holds of them: no process may end before it lets go.

The driver answers a call from a thread of its own, which takes Python's lock to do so. A process
that goes on with the answer, and ends, finalizes the interpreter while that thread is still on its
way out of Python. When the thread wants the lock back, Python ends it in the middle of the driver's
code, and the process aborts: of obstore 0.12.1, one in five of those that end right after a put and
a get. A call that was cancelled takes the lock as well, some time after nobody waits for it.

Nothing says when the thread is done. But it keeps a copy of the context in which the driver was
called until it has left Python for the last time, and a copy keeps what is in the context: here, a
token. Once the token is gone, the thread is out.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from obstore._obstore import parse_scheme

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_S = 2.0
"""That the end of a loop or process waits. What is cancelled is let go of within a millisecond."""
LOOK_EVERY_S = 0.0005


class _Token:
    __slots__ = ("__weakref__",)


_token: contextvars.ContextVar[_Token] = contextvars.ContextVar("token")
_held: set[weakref.ref[_Token]] = set()
"""Of all loops and threads. A token that goes takes its reference out, which needs no lock."""


class Calls:
    """The calls of one client in one loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()
        self._held: set[weakref.ref[_Token]] = set()
        self.given_up = False

    async def run(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await *function*, one of the driver's.

        Raises:
            GivenUpError: The client was closed meanwhile.
        """
        context = contextvars.copy_context()
        token = _Token()
        context.run(_token.set, token)
        for held in (_held, self._held):
            held.add(weakref.ref(token, held.discard))
        del token
        future = asyncio.ensure_future(context.run(function, *args, **kwargs))
        del context
        self._running.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            if self.given_up and not _is_cancelled():
                raise GivenUpError from None
            raise
        finally:
            self._running.discard(future)

    async def give_up(self) -> None:
        """End what is running, and wait, in bounded time, until the driver has let go of it."""
        self.given_up = True
        for future in list(self._running):
            future.cancel()
        ends_at = time.monotonic() + LONGEST_S
        while _are_held(self._held) and time.monotonic() < ends_at:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(LOOK_EVERY_S)


class GivenUpError(Exception):
    """A call was ended by the closing of its client."""


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _are_held(tokens: set[weakref.ref[_Token]]) -> bool:
    if tokens:
        parse_scheme("s3://b")  # any call will do: what its threads dropped is freed by the next
    return bool(tokens)


def _wait_until_let_go() -> None:
    ends_at = time.monotonic() + LONGEST_S
    while _are_held(_held) and time.monotonic() < ends_at:
        time.sleep(LOOK_EVERY_S)


os.register_at_fork(after_in_child=_held.clear)  # the threads stay with the parent
# For loops that nobody closed.
atexit.register(_wait_until_let_go)
