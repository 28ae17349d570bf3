"""Named actions for agents that are written as YAML: the memory and the cache in a registry."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from typing import Any, TypeAlias, Unpack

from .backend import LTMBackend
from .cache import Cache, PolicyOptions
from .cache.content import hash_content
from .errors import ConfigError, LTMError
from .portal import run_blocking
from .sync import SyncLTMBackend, unblocked

Action: TypeAlias = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def register_actions(
    registry: MutableMapping[str, Callable[..., Any]],
    backend: LTMBackend | SyncLTMBackend,
    *,
    prefix: str = "cache:",
    storage: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Unpack[PolicyOptions],
) -> None:
    """Put the actions of the memory into *registry*, a mapping from names to callables.

    ``cache.wrap``, ``cache.get``, ``cache.invalidate``, ``storage.hash``, ``ltm.store``,
    ``ltm.retrieve``, ``ltm.delete`` and ``ltm.search``, each a second time as
    ``actions.cache_wrap`` and so on.
    Each takes the agent's ``state`` first, which it leaves alone, then arguments by name, and gives
    a dict. They are async over an :class:`LTMBackend` and plain over a :class:`SyncLTMBackend`.

    - ``cache.wrap(state, action, args, …)``: :meth:`Cache.wrap` of the action that *registry* has
      under that name, by then; it is called with the state and *args*, of which only *args* count
      for the key. What it raises is raised.
    - ``cache.get(state, key)`` and ``cache.invalidate(state, key | pattern | metadata_filter)``.
    - ``storage.hash(state, path)``: ``hash`` (``sha256:…``) and ``byte_size`` of a file or object.
    - ``ltm.store(state, key, value, metadata, ttl)``, ``ltm.retrieve(state, key, default)``,
      ``ltm.delete(state, key)`` and ``ltm.search(state, query, metadata_filter, limit)``: the
      backend's own methods.

    All but ``cache.wrap`` report an error of this library as ``success``, ``error`` and
    ``error_type``.

    Args:
        prefix, storage, options: Those of :class:`Cache`.

    Raises:
        ConfigError: An argument cannot be used.
    """
    adapted: Callable[[Action], Callable[..., Any]] = _as_it_is
    if isinstance(backend, SyncLTMBackend):
        if options.get("defer") is not None:
            raise ConfigError("blocking actions have no place for what defer would take")
        ltm, allow_blocking = unblocked(backend)
        adapted = functools.partial(_blocking, allow_blocking=allow_blocking)
    else:
        ltm = backend
    cache = Cache(ltm, prefix=prefix, storage=storage, **options)
    actions = {
        "cache.wrap": _cache_wrap(registry, cache),
        "cache.get": _reporting(_cache_get(cache)),
        "cache.invalidate": _reporting(_cache_invalidate(cache)),
        "storage.hash": _reporting(_storage_hash(storage or {})),
        "ltm.store": _reporting(_ltm_store(ltm)),
        "ltm.retrieve": _reporting(_ltm_retrieve(ltm)),
        "ltm.delete": _reporting(_ltm_delete(ltm)),
        "ltm.search": _reporting(_ltm_search(ltm)),
    }
    for name, action in actions.items():
        registry[name] = registry["actions." + name.replace(".", "_")] = adapted(action)


def _cache_wrap(registry: Mapping[str, Callable[..., Any]], cache: Cache) -> Action:
    async def cache_wrap(
        state: Any, action: str, args: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        if action not in registry:
            near = difflib.get_close_matches(str(action), registry, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"there is no action {str(action)[:60]!r}{hint}")
        run = functools.partial(registry[action], state)
        return await cache.wrap(run, args, **{"name": action, **options})

    return cache_wrap


def _cache_get(cache: Cache) -> Action:
    async def cache_get(state: Any, key: str) -> dict[str, Any]:  # noqa: ARG001
        return (await cache.get(key)).to_dict()

    return cache_get


def _cache_invalidate(cache: Cache) -> Action:
    async def cache_invalidate(
        state: Any,  # noqa: ARG001
        key: str | None = None,
        pattern: str | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        done = await cache.invalidate(key, pattern=pattern, metadata_filter=metadata_filter)
        return done.to_dict()

    return cache_invalidate


def _storage_hash(storage: Mapping[str, Mapping[str, Any]]) -> Action:
    async def storage_hash(state: Any, path: str) -> dict[str, Any]:  # noqa: ARG001
        content = await hash_content(path, storage=storage)
        return {
            "success": True,
            "path": str(path),
            "hash": content.content_hash,
            "byte_size": content.byte_size,
        }

    return storage_hash


def _ltm_store(ltm: LTMBackend) -> Action:
    async def ltm_store(
        state: Any,  # noqa: ARG001
        key: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
    ) -> dict[str, Any]:
        return (await ltm.store(key, value, metadata=metadata, ttl=ttl)).to_dict()

    return ltm_store


def _ltm_retrieve(ltm: LTMBackend) -> Action:
    async def ltm_retrieve(state: Any, key: str, default: Any = None) -> dict[str, Any]:  # noqa: ARG001
        hit = (await ltm.retrieve(key)).to_dict()
        return hit if hit["found"] else {**hit, "value": default}

    return ltm_retrieve


def _ltm_delete(ltm: LTMBackend) -> Action:
    async def ltm_delete(state: Any, key: str) -> dict[str, Any]:  # noqa: ARG001
        return (await ltm.delete(key)).to_dict()

    return ltm_delete


def _ltm_search(ltm: LTMBackend) -> Action:
    async def ltm_search(
        state: Any,  # noqa: ARG001
        query: str,
        metadata_filter: Mapping[str, Any] | None = None,
        limit: int = 10,
    ) -> dict[str, Any]:
        found = await ltm.search(query, metadata_filter=metadata_filter, limit=limit)
        return found.to_dict()

    return ltm_search


def _reporting(action: Action) -> Action:
    @functools.wraps(action)
    async def reporting(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await action(*args, **kwargs)
        except LTMError as exc:
            return {"success": False, "error": str(exc), "error_type": type(exc).__name__}

    return reporting


def _as_it_is(action: Action) -> Action:
    return action


def _blocking(action: Action, *, allow_blocking: bool) -> Callable[..., dict[str, Any]]:
    @functools.wraps(action)
    def blocking(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return run_blocking(
            functools.partial(action, *args, **kwargs), allow_blocking=allow_blocking
        )

    return blocking
