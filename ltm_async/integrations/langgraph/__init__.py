"""LangGraph's long-term memory and node cache on a backend."""

from __future__ import annotations

from ltm_async.errors import MissingDriverError

try:
    from .cache import LTMCache
    from .memory import LTMMemory
    from .store import LTMStore
except ModuleNotFoundError as exc:
    raise MissingDriverError.of(
        exc, needed_by="ltm_async.integrations.langgraph", extra="langgraph"
    ) from exc

__all__ = ["LTMCache", "LTMMemory", "LTMStore"]
