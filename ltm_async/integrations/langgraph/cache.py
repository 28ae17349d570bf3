"""LTMCache: LangGraph's cache of nodes and tasks on a backend."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from langgraph.cache.base import BaseCache, FullKey, Namespace, ValueT

from ltm_async.backend import LTMBackend
from ltm_async.errors import CorruptError
from ltm_async.integrations.clearing import delete_below
from ltm_async.integrations.waiting import wait_for

from .names import CACHE_ROOT, Name, entry_key, within
from .serde import KnownTypes

logger = logging.getLogger(__name__)


class LTMCache(BaseCache[ValueT]):
    """LangGraph's ``BaseCache`` on *ltm*, for ``compile(cache=…)``; it stays yours to close.

    Its async methods never block the loop; the others wait, in any thread that runs no event loop.
    Each call is one round trip, whatever the number of keys. Values are kept under
    ``langgraph/cache/``, up to 48 MiB each, encoded by LangGraph's serializer without pickle, and
    only known types are made from them: see *allowed_types*.

    The cache never fails a node: what cannot be read is a miss, and what a store does not take is
    not cached; the backend logs a warning.

    Args:
        ltm: Where the values are kept.
        allowed_types: Classes of your own that cached values may have, beside JSON's types, dates
            and the like, LangChain's messages and LangGraph's types.
    """

    def __init__(self, ltm: LTMBackend, *, allowed_types: Iterable[type] = ()) -> None:
        super().__init__()
        self._ltm = ltm
        self._known = KnownTypes(allowed_types)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """:meth:`aget`, waiting."""
        return wait_for(lambda: self.aget(keys))

    def set(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """:meth:`aset`, waiting."""
        wait_for(lambda: self.aset(pairs))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """:meth:`aclear`, waiting."""
        wait_for(lambda: self.aclear(namespaces))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, ValueT]:
        """The values that are cached under *keys*, without those that are not.

        Raises:
            InvalidEntryError: A key is too long; nothing was sent.
        """
        asked = {_entry_key(key): (tuple(key[0]), key[1]) for key in keys}
        if not asked:
            return {}
        values: dict[FullKey, ValueT] = {}
        for key, hit in (await self._ltm.retrieve_batch(asked)).results.items():
            try:
                values[asked[key]] = self._known.decode(hit.value)
            except CorruptError as exc:
                logger.warning("a node runs again: %s", exc)
        return values

    async def aset(self, pairs: Mapping[FullKey, tuple[ValueT, int | None]]) -> None:
        """Cache values, each with a TTL in seconds, or None for ever.

        Raises:
            InvalidEntryError: A key, value or TTL cannot be used; nothing was sent.
        """
        entries = [
            {"key": _entry_key(key), "value": self._known.encode(value), "ttl": ttl}
            for key, (value, ttl) in pairs.items()
        ]
        if entries:
            await self._ltm.store_batch(entries)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Delete what is cached in *namespaces*, each by itself, or everything.

        Raises:
            InvalidEntryError: A namespace is too long; nothing was sent.
            StoreError: A store failed; some may be deleted.
        """
        prefixes = (
            [CACHE_ROOT]
            if namespaces is None
            else [within(CACHE_ROOT, tuple(namespace)) for namespace in namespaces]
        )
        for prefix in prefixes:
            await delete_below(self._ltm, prefix)


def _entry_key(key: FullKey) -> str:
    namespace, name = key
    return entry_key(CACHE_ROOT, Name(tuple(namespace), name))
