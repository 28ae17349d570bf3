"""What an author of a catalog or a blob store tests it with; ours run on the same.

The contracts need pytest, and pytest-asyncio in ``asyncio_mode = "auto"``; the faults and
the clock need nothing, so the contracts are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import ManualClock
from .faults import Faults, Mode, faulty_blob_store, faulty_catalog

if TYPE_CHECKING:
    from .blobs import BlobStoreContract
    from .catalogs import CatalogContract
    from .changes import ChangesContract
    from .nearest import VectorContract
    from .searching import SearchContract

__all__ = [
    "BlobStoreContract",
    "CatalogContract",
    "ChangesContract",
    "Faults",
    "ManualClock",
    "Mode",
    "SearchContract",
    "VectorContract",
    "faulty_blob_store",
    "faulty_catalog",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {
        "BlobStoreContract": ".blobs",
        "CatalogContract": ".catalogs",
        "SearchContract": ".searching",
        "ChangesContract": ".changes",
        "VectorContract": ".nearest",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name], __name__), name)
