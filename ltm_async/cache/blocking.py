"""The cache for code without an event loop: each call waits for its answer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, Unpack

from ..errors import ConfigError
from ..portal import run_blocking
from ..results import Result
from ..sync import SyncLTMBackend, unblocked
from .caching import Cache
from .policy import PolicyOptions

P = ParamSpec("P")


def _blocking(
    method: Callable[Concatenate[Cache, P], Coroutine[Any, Any, Result | dict[str, Any]]],
) -> Callable[Concatenate[SyncCache, P], dict[str, Any]]:
    """*method* with the same parameters; it waits, and gives a plain dict."""

    @functools.wraps(method)
    def blocking(self: SyncCache, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        call = functools.partial(method, self._cache, *args, **kwargs)
        answer = run_blocking(call, allow_blocking=self._allow_blocking)
        return answer.to_dict() if isinstance(answer, Result) else answer

    signature = inspect.signature(method).replace(return_annotation="dict[str, Any]")
    blocking.__module__ = __name__
    blocking.__qualname__ = f"SyncCache.{method.__name__}"
    blocking.__doc__ = f"{inspect.getdoc(method)}\n\nWaits, and gives a plain dict."
    blocking.__annotations__ = {**method.__annotations__, "return": "dict[str, Any]"}
    blocking.__dict__["__signature__"] = signature
    return blocking


class SyncCache:
    """The blocking face of :class:`Cache`, over a :class:`SyncLTMBackend`.

    The same arguments, but for *defer*: there is no place behind the answer, so refreshes and
    cleanups are awaited before it. Actions, plain or async, run as those of :meth:`Cache.wrap`
    do: a plain one in a thread of its own, in which it may call this cache again.

    Raises:
        ConfigError: An argument cannot be used.
        BlockingCallError: From every method, where a call would stop or deadlock an event loop.
    """

    def __init__(
        self,
        ltm: SyncLTMBackend,
        *,
        prefix: str = "cache:",
        storage: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        if not isinstance(ltm, SyncLTMBackend):
            raise ConfigError(f"ltm must be a SyncLTMBackend, not {type(ltm).__name__}")
        if options.get("defer") is not None:
            raise ConfigError("a blocking cache has no place for what defer would take")
        backend, self._allow_blocking = unblocked(ltm)
        self._cache = Cache(backend, prefix=prefix, storage=storage, **options)
        self._cache._allow_blocking = self._allow_blocking
        self.cached = self._cache.cached

    def __repr__(self) -> str:
        return f"Sync{self._cache!r}"

    wrap = _blocking(Cache.wrap)
    get = _blocking(Cache.get)
    invalidate = _blocking(Cache.invalidate)
