"""LTMMemory: everything that a graph remembers, on one backend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langgraph.store.base import TTLConfig

from ltm_async.backend import LTMBackend

from .cache import LTMCache
from .store import LTMStore


class LTMMemory:
    """One object for ``compile(store=memory.store, cache=memory.cache)``.

    The two are apart because LangGraph gives their methods the same names. Both keep to their own
    keys, so that *ltm* may be used for more.

    Args:
        ltm: Where all is kept; it stays yours to close.
        ttl: As :class:`LTMStore` takes it.
        allowed_types: As :class:`LTMCache` takes it.
    """

    def __init__(
        self, ltm: LTMBackend, *, ttl: TTLConfig | None = None, allowed_types: Iterable[type] = ()
    ) -> None:
        self.store = LTMStore(ltm, ttl=ttl)
        self.cache: LTMCache[Any] = LTMCache(ltm, allowed_types=allowed_types)
