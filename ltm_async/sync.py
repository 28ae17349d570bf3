"""The backend for code without an event loop: each call waits for its result.

One daemon thread in each process runs one event loop for all of them, so that connections stay
open from call to call.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, cast

from .backend import LTMBackend
from .errors import BlockingCallError
from .protocols import BlobStore, Catalog
from .results import Result
from .retry import RetryPolicy
from .worker import PerProcess

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_TIMEOUT_S = 2.0
"""How long an interrupted call may take to put its affairs in order."""
HEAR_SIGNALS_EVERY_S = 0.2


class _Call(Generic[T]):
    """A coroutine on the loop, and the thread that waits for it.

    What is not about waiting and its outcome runs on the loop's thread.
    """

    __slots__ = ("_done", "_ended", "_error", "_make", "_result", "_task")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._make = make
        self._task: asyncio.Task[Any] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._done = threading.Lock()  # released at the end; a Future costs several times as much
        self._done.acquire()

    async def work(self) -> None:
        if self._ended:
            return
        self._task = asyncio.current_task()
        try:
            self._result = await self._make()
        except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this loop
            self._error = exc
        self._end()

    def cancel(self) -> None:
        if self._task is None:
            self._end()  # a task cancelled before its first step would tell nobody
        else:
            self._task.cancel()

    def wait(self) -> None:
        # A signal that comes just before the lock blocks would not be heard until it is released.
        while not (self._ended or self._done.acquire(timeout=HEAR_SIGNALS_EVERY_S)):
            pass

    def wait_at_most(self, timeout_s: float) -> None:
        if not self._ended:
            self._done.acquire(timeout=timeout_s)

    def outcome(self) -> T:
        error, self._error = self._error, None
        if error is None:
            return cast("T", self._result)
        try:
            raise error
        finally:
            del error  # it refers to this frame by its traceback

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._done.release()


class LoopThread:
    """A daemon thread with an event loop, started by the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ident: int | None = None
        # One that is held by its waiter alone would be collected at exit, with a complaint.
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = threading.Lock()

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], *, allow_blocking: bool = False) -> T:
        """The result of the coroutine that *make* gives, in a copy of the caller's context.

        What interrupts the waiting cancels the coroutine.

        Raises:
            BlockingCallError: The thread runs an event loop, and not *allow_blocking*, or it is
                this one.
        """
        if threading.get_ident() == self._ident:
            raise BlockingCallError(
                "a blocking call on the thread that serves all blocking calls, such as in the "
                "function given to update(), would wait for itself"
            )
        if not allow_blocking and asyncio._get_running_loop() is not None:
            raise BlockingCallError(
                "SyncLTMBackend would stop the event loop that runs in this thread: use LTMBackend "
                "and await it, or pass allow_blocking=True"
            )
        loop = self._loop or self._start()
        call = _Call(make)
        try:
            loop.call_soon_threadsafe(self._begin, call, context=contextvars.copy_context())
            call.wait()
        except BaseException:
            loop.call_soon_threadsafe(call.cancel)
            call.wait_at_most(CANCEL_TIMEOUT_S)
            raise
        return call.outcome()

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._serve, args=(loop,), name="ltm-sync", daemon=True
                )
                thread.start()
                self._ident = thread.ident
                self._loop = loop
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                continue  # asyncio lets these through after the task, which has them already

    def _begin(self, call: _Call[Any]) -> None:
        task = asyncio.get_running_loop().create_task(call.work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_loop_threads = PerProcess(LoopThread)


def _blocking(
    method: Callable[Concatenate[LTMBackend, P], Coroutine[Any, Any, Result]],
    *,
    reads: str = "",
) -> Callable[Concatenate[SyncLTMBackend, P], dict[str, Any]]:
    """*method* with the same parameters; it waits, and gives the result as a plain dict.

    The first parameter, where *reads* names it, is an iterable that is read in the caller's thread.
    """
    name = method.__name__

    @functools.wraps(method)
    def blocking(self: SyncLTMBackend, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        positional: tuple[Any, ...] = args
        named: dict[str, Any] = kwargs
        if reads in named:
            named[reads] = _read_out(named[reads])
        elif reads and positional:
            positional = (_read_out(positional[0]), *positional[1:])
        # By name, so that a subclass of LTMBackend is heard.
        call = functools.partial(getattr(self._ltm, name), *positional, **named)
        result: Result = self._run(call)
        return result.to_dict()

    signature = inspect.signature(method).replace(return_annotation="dict[str, Any]")
    blocking.__module__ = __name__
    blocking.__qualname__ = f"SyncLTMBackend.{name}"
    blocking.__doc__ = f"{inspect.getdoc(method)}\n\nWaits, and gives the result as a plain dict."
    blocking.__annotations__ = {**method.__annotations__, "return": "dict[str, Any]"}
    blocking.__dict__["__signature__"] = signature
    return blocking


def _read_out(items: Any) -> Any:
    """A cursor or a generator belongs to the thread that made it, and may block."""
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        return items  # for the method to refuse, or to take as it is
    return list(items)


class SyncLTMBackend:
    """The blocking face of :class:`LTMBackend`, for code that runs no event loop.

    Its methods have the same names, parameters and errors; they wait, and give each result as the
    plain dict of its ``to_dict()``. A call that is interrupted, as by Ctrl-C, is cancelled. Usable
    from any number of threads, and after a fork.

    All backends of this kind share one event loop in a thread of its own. The function given to
    :meth:`update` runs there: it must not block, nor call a backend of this kind.

    Args:
        allow_blocking: Permit calls in a thread that runs an event loop, such as a notebook's.
            The loop stands still meanwhile.

    The other arguments are those of :class:`LTMBackend`.

    Raises:
        ConfigError: An argument cannot be used.
        BlockingCallError: From every method, where a call would stop or deadlock an event loop.
    """

    def __init__(
        self,
        catalog: Catalog | str | Mapping[str, Any],
        storage_uri: BlobStore | str | os.PathLike[str] | Mapping[str, Any],
        *,
        namespace: str = "",
        inline_threshold: int = 1024,
        batch_size: int = 500,
        max_concurrency: int = 50,
        max_inflight_bytes: int = 64 * 1024 * 1024,
        on_unavailable: Literal["degrade", "raise"] = "degrade",
        fallback_size: int = 1000,
        timeout: float | None = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  # frozen
        allow_blocking: bool = False,
    ) -> None:
        self._ltm = LTMBackend(
            catalog,
            storage_uri,
            namespace=namespace,
            inline_threshold=inline_threshold,
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            max_inflight_bytes=max_inflight_bytes,
            on_unavailable=on_unavailable,
            fallback_size=fallback_size,
            timeout=timeout,
            retry=retry,
        )
        self._allow_blocking = allow_blocking

    @classmethod
    def from_backend(cls, ltm: LTMBackend, *, allow_blocking: bool = False) -> Self:
        """The blocking face of *ltm*, which can be used beside it; closing either closes both."""
        made = cls.__new__(cls)
        made._ltm = ltm
        made._allow_blocking = allow_blocking
        return made

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, allow_blocking: bool = False) -> Self:
        """A backend from the mapping of a configuration file; see `LTMBackend.from_config`.

        Raises:
            ConfigError: A key is unknown, with the nearest that exists, or a value is wrong.
        """
        return cls.from_backend(LTMBackend.from_config(config), allow_blocking=allow_blocking)

    def __repr__(self) -> str:
        return f"SyncLTMBackend({self._ltm!r})"

    def __enter__(self) -> Self:
        self._run(self._ltm.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connect to both stores now; else the first call does.

        Raises:
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        self._run(self._ltm.open)

    def close(self) -> None:
        """Close the stores that this backend made, within 10 seconds. Twice is fine."""
        self._run(self._ltm.aclose)

    store = _blocking(LTMBackend.store)
    retrieve = _blocking(LTMBackend.retrieve)
    delete = _blocking(LTMBackend.delete)
    touch = _blocking(LTMBackend.touch)
    update = _blocking(LTMBackend.update)
    store_batch = _blocking(LTMBackend.store_batch, reads="entries")
    retrieve_batch = _blocking(LTMBackend.retrieve_batch, reads="keys")
    delete_batch = _blocking(LTMBackend.delete_batch, reads="keys")
    list_entries = _blocking(LTMBackend.list_entries)
    cleanup_expired = _blocking(LTMBackend.cleanup_expired)
    collect_garbage = _blocking(LTMBackend.collect_garbage)
    verify = _blocking(LTMBackend.verify)
    stats = _blocking(LTMBackend.stats)

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return _loop_threads.get().run(make, allow_blocking=self._allow_blocking)
