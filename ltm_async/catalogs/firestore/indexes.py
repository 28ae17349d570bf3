"""Which indexes Firestore need not keep: all that it makes by itself but a few."""

from __future__ import annotations

import json

LOOKED_UP = {
    "ltm_entries": ("place", "ends", "changed", "tokens"),
    "ltm_blobs": ("place", "due"),
    "ltm_deletions": ("age", "changed"),
}
NOT_LOOKED_UP = {
    "ltm_entries": (
        "namespace", "key", "write_id", "content_hash", "byte_size", "inlined_value", "blob_id",
        "metadata", "expires_at", "created_at", "updated_at", "text", "vector",
    ),
    "ltm_blobs": ("namespace", "blob_id", "key", "byte_size", "committed", "state", "due_at"),
    "ltm_deletions": ("key", "write_id", "expired"),
}  # fmt: skip


def indexes(collection_prefix: str = "", *, dimensions: int | None = None) -> str:
    """A ``firestore.indexes.json`` for ``firebase deploy --only firestore:indexes``.

    With *dimensions* it has the index without which vectors of this length cannot be searched. For
    the rest the catalog works without it; with it a write costs less time and storage, and values
    are in no index (https://firebase.google.com/docs/reference/firestore/indexes).
    """
    overrides = [
        {"collectionGroup": collection_prefix + collection, "fieldPath": field, "indexes": []}
        for collection, fields in NOT_LOOKED_UP.items()
        for field in fields
    ]
    nearest = {
        "collectionGroup": f"{collection_prefix}ltm_entries",
        "queryScope": "COLLECTION",
        "fields": [
            {"fieldPath": "namespace", "order": "ASCENDING"},
            {"fieldPath": "vector", "vectorConfig": {"dimension": dimensions, "flat": {}}},
        ],
    }
    made = [] if dimensions is None else [nearest]
    return json.dumps({"indexes": made, "fieldOverrides": overrides}, indent=2)
