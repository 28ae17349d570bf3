"""What an author of a catalog or a blob store tests it with; ours run on the same.

The contracts need pytest, and pytest-asyncio in ``asyncio_mode = "auto"``; the faults, the clock
and the histories need nothing, so the contracts are imported on first use. :mod:`.crashing` has the
parts of ``CrashPointContract``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checking import Violation, check_history, check_versions
from .clock import ManualClock
from .faults import Faults, Mode, faulty_blob_store, faulty_catalog
from .histories import RecordedClient, Recorder, Step, read_history

if TYPE_CHECKING:
    from .blobs import BlobStoreContract
    from .catalogs import CatalogContract
    from .changes import ChangesContract
    from .crashing.contract import CrashPointContract
    from .nearest import VectorContract
    from .searching import SearchContract

__all__ = [
    "BlobStoreContract",
    "CatalogContract",
    "ChangesContract",
    "CrashPointContract",
    "Faults",
    "ManualClock",
    "Mode",
    "RecordedClient",
    "Recorder",
    "SearchContract",
    "Step",
    "VectorContract",
    "Violation",
    "check_history",
    "check_versions",
    "faulty_blob_store",
    "faulty_catalog",
    "read_history",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {
        "BlobStoreContract": ".blobs",
        "CatalogContract": ".catalogs",
        "SearchContract": ".searching",
        "ChangesContract": ".changes",
        "CrashPointContract": ".crashing.contract",
        "VectorContract": ".nearest",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(homes[name], __name__), name)
