"""Results of actions, kept in a long-term memory and made once."""

from __future__ import annotations

from .blocking import SyncCache
from .caching import Cache
from .entries import CacheEntry, InvalidateResult
from .keys import KeyStrategy
from .policy import Defer, PolicyOptions, Work

__all__ = [
    "Cache",
    "CacheEntry",
    "Defer",
    "InvalidateResult",
    "KeyStrategy",
    "PolicyOptions",
    "SyncCache",
    "Work",
]
