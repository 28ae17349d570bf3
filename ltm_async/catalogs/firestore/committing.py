"""One commit of a batch of entries."""

from __future__ import annotations

from collections.abc import Sequence

from ...entry import NEVER
from ...errors import ConflictError, FencedError
from ...protocols import Write, Written
from . import layout, ledger, texts, vectors
from .changes import Changes
from .documents import Documents
from .layout import BLOBS, ENTRIES, Document
from .server_time import ServerTime
from .statuses import NAME

FIELDS = (*layout.HEAD_FIELDS, "state", "committed", "due_at")


class Batch:
    """What is to be committed, as often as it takes."""

    def __init__(self, namespace: str, writes: Sequence[Write], write_id: str) -> None:
        self._namespace = namespace
        self._write_id = write_id
        self._space = space = layout.space_of(namespace)
        self._named = {layout.entry_name(namespace, write.key): write for write in writes}
        self._fresh = {
            layout.blob_name(space, write.blob_id): write
            for write in writes
            if write.blob_id is not None
        }

    async def commit(self, documents: Documents, time: ServerTime) -> Written:
        """Read what is there, and commit on condition that it stays so.

        Raises:
            StaleError: It did not; nothing was written.
        """
        space, named, fresh = self._space, self._named, self._fresh
        found = await documents.read({ENTRIES: named, BLOBS: fresh}, fields=FIELDS)
        now_us = time.of(found.now_us)
        present = found.documents
        ended = sum(_state(present.get(name)) != "pending" for name in fresh)
        if ended:
            raise FencedError(
                f"{NAME}: {ended} of {len(fresh)} reservations have ended", store=NAME
            )
        changes = Changes()
        unchanged: list[str] = []
        ends: dict[str, int] = {}
        replaced: dict[str, str] = {}
        stamped = layout.changed_field(space)
        for name, write in named.items():
            seen = present.get(name)
            live = seen if seen is not None and layout.is_live(seen, now_us) else None
            check_version(write.key, write.if_version, live)
            blob_id = write.blob_id
            if blob_id is None and write.inlined_value is None:
                blob_id = _renewed(write, seen)
            if live is not None and live.data.get("content_hash") == write.content_hash:
                unchanged.append(write.key)
            ends_at = None if write.expiry is NEVER else write.expiry.resolve(now_us)
            if ends_at is not None:
                ends[write.key] = ends_at
            data = layout.entry_data(
                self._namespace,
                write,
                write_id=self._write_id,
                now_us=now_us,
                created_at=_created_at(live, now_us),
                blob_id=blob_id,
                ends_at=ends_at,
            )
            text = texts.text_data(self._namespace, write.words) if write.words else {}
            vector = {"vector": write.vector} if write.vector else {}
            if seen is None:
                changes.create(ENTRIES, name, data | text | vector, stamped=stamped)
                continue
            data |= (text or texts.NO_TEXT) | (vector or vectors.NO_VECTOR)
            changes.replace(ENTRIES, seen, data, stamped=stamped)
            held = layout.blob_of(seen)
            if held is not None and held != blob_id:
                replaced[held] = write.key
        for name in fresh:
            live_now = {**layout.state_data(space, "live", None), "committed": True}
            changes.replace(BLOBS, present[name], live_now)
        await ledger.retire(documents, changes, space, replaced, now_us)
        version = await documents.commit(changes)
        return Written(version, unchanged, ends)


def _state(document: Document | None) -> object:
    return None if document is None else document.data.get("state")


def check_version(key: str, expected: int | None, live: Document | None) -> None:
    found = None if live is None else live.version
    if expected is not None and expected != (found or 0):
        raise ConflictError.between(key, expected, found)


def _renewed(write: Write, seen: Document | None) -> str:
    """The blob that stays under a key whose metadata and expiry are renewed."""
    blob_id = None if seen is None else layout.blob_of(seen)
    if blob_id is None or seen is None or seen.data.get("content_hash") != write.content_hash:
        raise FencedError(f"{NAME}: the value to renew changed", store=NAME)
    return blob_id


def _created_at(live: Document | None, now_us: int) -> int:
    made_at = None if live is None else live.data.get("created_at")
    return made_at if isinstance(made_at, int) and 0 <= made_at <= now_us else now_us
