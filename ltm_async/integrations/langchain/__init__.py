"""LangChain's key-value store and model cache on a backend."""

from __future__ import annotations

from ltm_async.errors import MissingDriverError

try:
    from .byte_store import LTMByteStore
    from .model_cache import LTMModelCache
except ModuleNotFoundError as exc:
    raise MissingDriverError.of(
        exc, needed_by="ltm_async.integrations.langchain", extra="langchain"
    ) from exc

__all__ = ["LTMByteStore", "LTMModelCache"]
