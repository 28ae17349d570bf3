"""The ledger of blobs, and what has to be read for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import StoreError
from ...protocols import CatalogStats, LedgerBlob, Reservation
from . import layout
from .changes import Changes
from .documents import Documents
from .layout import BLOBS, ENTRIES, Document, Range
from .server_time import ServerTime
from .statuses import NAME


async def retire(
    documents: Documents,
    changes: Changes,
    space: str,
    blobs: Mapping[str, str],
    now_us: int,
) -> dict[str, str]:
    """Have *blobs* die that the ledger, too, says to be live and of their keys."""
    if not blobs:
        return {}
    named = {layout.blob_name(space, blob_id): blob_id for blob_id in blobs}
    found = await documents.read({BLOBS: named}, fields=layout.LEDGER_FIELDS)
    dead: dict[str, str] = {}
    for name, document in found.documents.items():
        key = blobs[named[name]]
        if document.data.get("state") == "live" and document.data.get("key") == key:
            changes.replace(BLOBS, document, layout.state_data(space, "dead", now_us))
            dead[key] = named[name]
    return dead


async def find(documents: Documents, namespace: str, blob_ids: Iterable[str]) -> list[Document]:
    """Those that the ledger has."""
    space = layout.space_of(namespace)
    names = [layout.blob_name(space, blob_id) for blob_id in blob_ids]
    if not names:
        return []
    found = await documents.read({BLOBS: names})
    return list(found.documents.values())


async def check_reserved(
    documents: Documents,
    space: str,
    blobs: Iterable[Reservation],
    held: Mapping[str, str],
) -> None:
    """Raise if a reservation is not there: its name belongs to another."""
    names = [layout.blob_name(space, blob.blob_id) for blob in blobs if blob.key not in held]
    found = await documents.read({BLOBS: names}, fields=("state",))
    if len(found.documents) != len(names):
        raise StoreError(f"{NAME}: some names were reserved before", store=NAME)


async def page(documents: Documents, namespace: str, after: str, limit: int) -> list[LedgerBlob]:
    """Part of the ledger, each blob with whether an entry has it."""
    space = layout.space_of(namespace)
    low = space + (after + "\0" if after else "")
    blobs = await documents.query(BLOBS, Range("place", low, layout.after_all(space)), limit=limit)
    if not blobs.documents:
        return []
    found = list(blobs.documents.values())
    entries = {layout.entry_name(namespace, str(blob.data["key"])): None for blob in found}
    named = await documents.read({ENTRIES: entries}, fields=("blob_id",))
    held = {document.data.get("blob_id") for document in named.documents.values()}
    return [
        LedgerBlob(
            blob.data["blob_id"],
            blob.data["key"],
            blob.data["state"],
            blob.data["byte_size"],
            blob.data["blob_id"] in held,
        )
        for blob in found
    ]


async def count(documents: Documents, namespace: str, time: ServerTime) -> CatalogStats:
    """Read the sizes of everything in a namespace."""
    space = layout.space_of(namespace)
    everything = Range("place", space, layout.after_all(space))
    entries = await documents.query(
        ENTRIES, everything, limit=None, fields=("expires_at", "blob_id", "byte_size", "place")
    )
    blobs = await documents.query(
        BLOBS, everything, limit=None, fields=("state", "byte_size", "place")
    )
    now_us = time.of(entries.now_us)
    live = [entry for entry in entries.documents.values() if layout.is_live(entry, now_us)]
    inlined = [entry.data["byte_size"] for entry in live if entry.data["blob_id"] is None]
    states = [blob.data["state"] for blob in blobs.documents.values()]
    return CatalogStats(
        entries=len(live),
        expired=len(entries.documents) - len(live),
        inlined=len(inlined),
        inlined_bytes=sum(inlined),
        blobs=states.count("live"),
        blob_bytes=sum(
            blob.data["byte_size"]
            for blob in blobs.documents.values()
            if blob.data["state"] == "live"
        ),
        pending_blobs=states.count("pending"),
        dead_blobs=states.count("dead"),
    )
