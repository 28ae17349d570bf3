"""Which indexes Firestore need not keep: all that it makes by itself but five."""

from __future__ import annotations

import json

LOOKED_UP = {
    "ltm_entries": ("place", "ends", "tokens"),
    "ltm_blobs": ("place", "due"),
    "ltm_deletions": ("age",),
}
NOT_LOOKED_UP = {
    "ltm_entries": (
        "namespace", "key", "write_id", "content_hash", "byte_size", "inlined_value", "blob_id",
        "metadata", "expires_at", "created_at", "updated_at", "text",
    ),
    "ltm_blobs": ("namespace", "blob_id", "key", "byte_size", "committed", "state", "due_at"),
    "ltm_deletions": ("key", "write_id"),
}  # fmt: skip


def indexes(collection_prefix: str = "") -> str:
    """A ``firestore.indexes.json`` for ``firebase deploy --only firestore:indexes``.

    The catalog works without it; with it a write costs less time and storage, and values are in no
    index (https://firebase.google.com/docs/reference/firestore/indexes).
    """
    overrides = [
        {"collectionGroup": collection_prefix + collection, "fieldPath": field, "indexes": []}
        for collection, fields in NOT_LOOKED_UP.items()
        for field in fields
    ]
    return json.dumps({"indexes": [], "fieldOverrides": overrides}, indent=2)
