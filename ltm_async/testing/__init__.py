"""What an author of a catalog or a blob store tests it with; ours run on the same.

Needs pytest and pytest-asyncio in ``asyncio_mode = "auto"``.
"""

from .blobs import BlobStoreContract
from .catalogs import CatalogContract
from .clock import ManualClock
from .faults import Faults, Mode, faulty_blob_store, faulty_catalog

__all__ = [
    "BlobStoreContract",
    "CatalogContract",
    "Faults",
    "ManualClock",
    "Mode",
    "faulty_blob_store",
    "faulty_catalog",
]
