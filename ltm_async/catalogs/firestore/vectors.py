"""Vectors: a field of each entry, and the nearest of them by Firestore itself.

An index is of one length: what has another is not in it, and so is not found.
"""

from __future__ import annotations

from typing import Any

from ...filters import Filter, may_match
from ...protocols import Near
from . import layout
from .documents import Documents
from .layout import ENTRIES
from .server_time import ServerTime

MAX_NEAR = 1000
"""What one query gives at most (https://firebase.google.com/docs/firestore/vector-search)."""
NO_VECTOR: dict[str, Any] = {"vector": layout.GONE}
_DISTANCE = "distance"
_FIELDS = (*layout.HEAD_FIELDS, _DISTANCE)


async def nearest(
    documents: Documents,
    time: ServerTime,
    namespace: str,
    vector: bytes,
    wanted: Filter | None,
    limit: int,
) -> list[Near]:
    """Of the nearest, as many as are asked for or, with a filter, 1,000, those that are wanted."""
    asked = limit if wanted is None else MAX_NEAR
    while True:
        found = await documents.query_nearest(
            ENTRIES,
            "vector",
            vector,
            namespace=namespace,
            limit=asked,
            fields=_FIELDS,
            distance=_DISTANCE,
        )
        now_us = time.of(found.now_us)
        near = [
            Near(
                layout.to_row(str(document.data.get("key")), document),
                1.0 - float(document.data[_DISTANCE]),
            )
            for document in found.documents.values()
            if layout.is_live(document, now_us)
            and may_match(wanted, str(document.data.get("metadata")))
        ]
        # Expired ones may have taken the places of others.
        if len(near) >= limit or len(found.documents) < asked or asked == MAX_NEAR:
            return near[:limit]
        asked = MAX_NEAR
