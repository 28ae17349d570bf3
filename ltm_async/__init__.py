"""Long-term memory for asyncio agents.

Everything is imported on first use: ``import ltm_async`` loads neither a driver nor asyncio.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for True; typing itself costs 8 ms to import
if TYPE_CHECKING:
    from typing import Any

    from .actions import register_actions
    from .backend import LTMBackend
    from .blobs.gcs import GCSBlobStore
    from .blobs.local import LocalBlobStore
    from .blobs.memory import MemoryBlobStore
    from .blobs.obstore import AzureBlobStore, ObstoreGCSBlobStore, ObstoreS3BlobStore
    from .blobs.s3 import S3BlobStore
    from .cache import Cache, SyncCache
    from .catalogs.firestore import FirestoreCatalog
    from .catalogs.memory import MemoryCatalog
    from .catalogs.postgres import PostgresCatalog
    from .catalogs.sqlite import SQLiteCatalog
    from .catalogs.supabase import SupabaseCatalog
    from .encryption import Keyring
    from .engine import DuckDBQueryEngine
    from .entry import compute_content_hash
    from .errors import (
        AccessDeniedError,
        BlockingCallError,
        CachedFailureError,
        ClosedError,
        ConfigError,
        ConflictError,
        CorruptError,
        DeadlineError,
        FencedError,
        InvalidEntryError,
        LTMError,
        MissingDriverError,
        OutcomeUnknownError,
        QueryError,
        RateLimitedError,
        StoreError,
        UnavailableError,
        WatermarkExpiredError,
    )
    from .factories import create_catalog_backend, create_ltm_backend
    from .protocols import BlobStore, Catalog
    from .retry import RetryPolicy
    from .serverless import handler, preload, run
    from .sync import SyncLTMBackend

__version__ = "0.1.0"

_HOMES = {
    "actions": ("register_actions",),
    "backend": ("LTMBackend",),
    "blobs.gcs": ("GCSBlobStore",),
    "blobs.local": ("LocalBlobStore",),
    "blobs.memory": ("MemoryBlobStore",),
    "blobs.obstore": ("AzureBlobStore", "ObstoreGCSBlobStore", "ObstoreS3BlobStore"),
    "blobs.s3": ("S3BlobStore",),
    "cache": ("Cache", "SyncCache"),
    "catalogs.firestore": ("FirestoreCatalog",),
    "catalogs.memory": ("MemoryCatalog",),
    "catalogs.postgres": ("PostgresCatalog",),
    "catalogs.sqlite": ("SQLiteCatalog",),
    "catalogs.supabase": ("SupabaseCatalog",),
    "encryption": ("Keyring",),
    "engine": ("DuckDBQueryEngine",),
    "entry": ("compute_content_hash",),
    "errors": (
        "AccessDeniedError",
        "BlockingCallError",
        "CachedFailureError",
        "ClosedError",
        "ConfigError",
        "ConflictError",
        "CorruptError",
        "DeadlineError",
        "FencedError",
        "InvalidEntryError",
        "LTMError",
        "MissingDriverError",
        "OutcomeUnknownError",
        "QueryError",
        "RateLimitedError",
        "StoreError",
        "UnavailableError",
        "WatermarkExpiredError",
    ),
    "factories": ("create_catalog_backend", "create_ltm_backend"),
    "protocols": ("BlobStore", "Catalog"),
    "retry": ("RetryPolicy",),
    "serverless": ("handler", "preload", "run"),
    "sync": ("SyncLTMBackend",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDeniedError",
    "AzureBlobStore",
    "BlobStore",
    "BlockingCallError",
    "Cache",
    "CachedFailureError",
    "Catalog",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "CorruptError",
    "DeadlineError",
    "DuckDBQueryEngine",
    "FencedError",
    "FirestoreCatalog",
    "GCSBlobStore",
    "InvalidEntryError",
    "Keyring",
    "LTMBackend",
    "LTMError",
    "LocalBlobStore",
    "MemoryBlobStore",
    "MemoryCatalog",
    "MissingDriverError",
    "ObstoreGCSBlobStore",
    "ObstoreS3BlobStore",
    "OutcomeUnknownError",
    "PostgresCatalog",
    "QueryError",
    "RateLimitedError",
    "RetryPolicy",
    "S3BlobStore",
    "SQLiteCatalog",
    "StoreError",
    "SupabaseCatalog",
    "SyncCache",
    "SyncLTMBackend",
    "UnavailableError",
    "WatermarkExpiredError",
    "__version__",
    "compute_content_hash",
    "create_catalog_backend",
    "create_ltm_backend",
    "handler",
    "preload",
    "register_actions",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
