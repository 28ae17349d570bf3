"""The backend for code without an event loop: each call waits for its result."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from .backend import LTMBackend
from .portal import run_blocking
from .protocols import BlobStore, Catalog
from .results import ChangeInfo, Result
from .retry import RetryPolicy

if TYPE_CHECKING:
    from .encryption import Keyring
    from .vectors import Embed

P = ParamSpec("P")
T = TypeVar("T")


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

    All backends of this kind share one event loop, so that connections stay open from call to call.
    A thread that calls runs it while no other does, and a daemon thread what is left unfinished;
    in between it rests. The function given to :meth:`update` runs in it: it must not block, nor
    call a backend of this kind.

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
        index_text: bool = False,
        embed: Embed | None = None,
        encryption: Keyring | None = None,
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
            index_text=index_text,
            embed=embed,
            encryption=encryption,
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

    def release(self) -> None:
        """Close the stores that this backend made, until they are needed again."""
        self._run(self._ltm.release)

    store = _blocking(LTMBackend.store)
    retrieve = _blocking(LTMBackend.retrieve)
    delete = _blocking(LTMBackend.delete)
    touch = _blocking(LTMBackend.touch)
    update = _blocking(LTMBackend.update)
    store_batch = _blocking(LTMBackend.store_batch, reads="entries")
    retrieve_batch = _blocking(LTMBackend.retrieve_batch, reads="keys")
    delete_batch = _blocking(LTMBackend.delete_batch, reads="keys")
    list_entries = _blocking(LTMBackend.list_entries)
    search = _blocking(LTMBackend.search)
    retrieve_snippets = _blocking(LTMBackend.retrieve_snippets)
    create_snapshot = _blocking(LTMBackend.create_snapshot)
    delete_snapshot = _blocking(LTMBackend.delete_snapshot)
    get_changed_entries = _blocking(LTMBackend.get_changed_entries)
    cleanup_expired = _blocking(LTMBackend.cleanup_expired)
    collect_garbage = _blocking(LTMBackend.collect_garbage)
    verify = _blocking(LTMBackend.verify)
    stats = _blocking(LTMBackend.stats)

    def changes(
        self,
        since_snapshot_id: str | None = None,
        *,
        cursor: str | None = None,
        follow: bool = False,
        poll: float = 2.0,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Iterate over what has changed, each change as a plain dict; see `LTMBackend.changes`.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            WatermarkExpiredError: As :meth:`get_changed_entries` does.
            StoreError: The catalog failed; also in ``"degrade"``, unless it is followed.
        """
        found = self._ltm.changes(
            since_snapshot_id, cursor=cursor, follow=follow, poll=poll, timeout=timeout
        )

        async def next_one() -> ChangeInfo | None:
            return await anext(found, None)

        def each() -> Iterator[dict[str, Any]]:
            while (change := self._run(next_one)) is not None:
                yield change.to_dict()

        return each()

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return run_blocking(make, allow_blocking=self._allow_blocking)


def unblocked(ltm: SyncLTMBackend) -> tuple[LTMBackend, bool]:
    """The backend behind *ltm*, and whether blocking calls may stop a loop."""
    return ltm._ltm, ltm._allow_blocking
