"""One loop for all invocations of a serverless function, so that its connections stay open."""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from .backend import LTMBackend
from .errors import BlockingCallError
from .worker import PerProcess

P = ParamSpec("P")
T = TypeVar("T")


class _Kept(threading.local):
    """The runner of each thread."""

    runner: asyncio.Runner | None = None


_kept: PerProcess[_Kept] = PerProcess(_Kept)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* as ``asyncio.run`` does, on a loop that the next call in this thread finds open.

    So a pool of connections serves every invocation of a function whose process is kept warm, and
    what a frozen process lost meanwhile is noticed before it is used. Tasks that *main* leaves
    behind go on in the next call. The loop ends with the process; Ctrl-C cancels *main*.

    Raises:
        BlockingCallError: The thread runs an event loop already: await *main* there.
    """
    if asyncio._get_running_loop() is not None:
        main.close()
        raise BlockingCallError("run() would stop the event loop of this thread: await instead")
    kept = _kept.get()
    if kept.runner is None:
        kept.runner = asyncio.Runner()
    return kept.runner.run(main)


def handler(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """An async function as the blocking one that AWS Lambda and its like call, by :func:`run`."""

    @functools.wraps(function)
    def handle(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(function(*args, **kwargs))

    return handle


def preload(*backends: LTMBackend) -> None:
    """Import what *backends* need and connect, on the loop of :func:`run`: for the init phase.

    Raises:
        StoreError: A store failed, and its backend's ``on_unavailable`` is ``"raise"``.
    """

    async def connect() -> None:
        for backend in backends:
            await backend.open()

    run(connect())


def _close() -> None:
    """At exit, close what the loop of this thread still has open."""
    kept = _kept.get()
    if kept.runner is not None:
        kept.runner.close()
        kept.runner = None


atexit.register(_close)
