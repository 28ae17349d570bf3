"""What the documents look like: their names, their fields, and the texts that are looked up.

Every query is a range of one field, a text that begins with the namespace, so that the indexes that
Firestore makes by itself are enough.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...entry import FIRST_US, is_blob_id
from ...protocols import Row, Write

ENTRIES = "ltm_entries"
BLOBS = "ltm_blobs"
DELETIONS = "ltm_deletions"
PRUNED = "ltm_pruned"
SNAPSHOTS = "ltm_snapshots"

Data = Mapping[str, Any]

GONE = object()
"""In the data of a document: the field is to be there no longer."""

_ENTRY_NAME = re.compile(r"[0-9a-f]{64}")


class Document(NamedTuple):
    """One that was read."""

    name: str
    data: Data
    updated: Any
    """When it was changed last, as the driver gives it and takes it back."""
    version: int
    """The same in microseconds: no two commits of a document have one."""


class Range(NamedTuple):
    """Texts of one field, from *low* up to but not *high*."""

    field: str
    low: str
    high: str


class Since(NamedTuple):
    """Instants of one field of our collections, from *low_us* to *high_us*."""

    field: str
    low_us: int
    high_us: int
    after_ns: int = 0
    """Go on behind this instant and document."""
    after_name: str = ""


def space_of(namespace: str) -> str:
    """The beginning of every text that belongs to *namespace*, all of one length."""
    return hashlib.sha256(namespace.encode()).hexdigest()[:32] + "/"


def entry_name(namespace: str, key: str) -> str:
    return hashlib.sha256(f"{namespace}\0{key}".encode()).hexdigest()


def is_entry_name(name: str) -> bool:
    return _ENTRY_NAME.fullmatch(name) is not None


def blob_name(space: str, blob_id: str) -> str:
    return f"{space[:-1]}-{blob_id}"


def instant(space: str, instant_us: int) -> str:
    """A text that sorts as instants do, from the year 1 to 9999."""
    return f"{space}{instant_us - FIRST_US:018d}"


def changed_field(space: str) -> str:
    """Where a document has the instant of its last change.

    An index of its own for each namespace: each member of a map is indexed by itself, while a field
    that all had in common would need an index together with the namespace.
    """
    return f"changed.{changed_in(space)}"


def changed_in(space: str) -> str:
    return f"n{space[:-1]}"


def first_of(space: str) -> str:
    """Below every instant's text."""
    return space


def after_all(space: str) -> str:
    """Above every text of *space*."""
    return space[:-1] + chr(ord("/") + 1)


def entry_data(
    namespace: str,
    write: Write,
    *,
    write_id: str,
    now_us: int,
    created_at: int,
    blob_id: str | None,
    ends_at: int | None,
) -> dict[str, Any]:
    space = space_of(namespace)
    return {
        "namespace": namespace,
        "key": write.key,
        "place": space + write.key,
        "write_id": write_id,
        "content_hash": write.content_hash,
        "byte_size": write.byte_size,
        "inlined_value": write.inlined_value,
        "blob_id": blob_id,
        "metadata": write.metadata,
        **end_data(space, ends_at),
        "created_at": created_at,
        "updated_at": now_us,
    }


def end_data(space: str, ends_at: int | None) -> dict[str, Any]:
    ends = None if ends_at is None else instant(space, ends_at)
    return {"expires_at": ends_at, "ends": ends}


HEAD_FIELDS = (
    "key", "content_hash", "byte_size", "blob_id", "metadata", "expires_at", "created_at",
    "updated_at",
)  # fmt: skip
"""All of a row but its value."""
ROW_FIELDS = (*HEAD_FIELDS, "inlined_value")
COMPARED_FIELDS = ("content_hash", "blob_id", "expires_at", "created_at")
"""What a store looks at in the entry that it replaces."""
REMOVED_FIELDS = ("key", "blob_id", "expires_at")
LEDGER_FIELDS = ("key", "state", "committed", "byte_size", "due_at", "blob_id")


def to_row(key: str, document: Document) -> Row:
    """A document that we could not have written gives a row that no reader takes for a value."""
    data = document.data
    row = Row(
        key,
        document.version,
        data.get("content_hash", ""),
        data.get("byte_size", -1),
        data.get("inlined_value"),
        data.get("blob_id"),
        data.get("metadata", ""),
        data.get("expires_at"),
        data.get("created_at", 0),
        data.get("updated_at", 0),
    )
    if all(map(isinstance, row, _KINDS)):
        return row
    return Row(key, document.version, "", -1, "", None, "", None, 0, 0)


_TEXT_OR_NONE = (str, type(None))
_KINDS: tuple[Any, ...] = (
    str, int, str, int, _TEXT_OR_NONE, _TEXT_OR_NONE, str, (int, type(None)), int, int,
)  # fmt: skip


def is_live(document: Document, now_us: int) -> bool:
    ends_at = document.data.get("expires_at")
    return not isinstance(ends_at, int) or ends_at > now_us


def blob_of(document: Document) -> str | None:
    """The blob that an entry names, if it is a name that we could have made."""
    blob_id = document.data.get("blob_id")
    return blob_id if isinstance(blob_id, str) and is_blob_id(blob_id) else None


def blob_data(
    namespace: str, blob_id: str, key: str, byte_size: int, state: str, due_at: int | None
) -> dict[str, Any]:
    space = space_of(namespace)
    return {
        "namespace": namespace,
        "blob_id": blob_id,
        "place": space + blob_id,
        "key": key,
        "byte_size": byte_size,
        "committed": False,
        **state_data(space, state, due_at),
    }


def state_data(space: str, state: str, due_at: int | None) -> dict[str, Any]:
    """What of a blob changes with its state."""
    due = None if due_at is None else instant(space, due_at)
    return {"state": state, "due_at": due_at, "due": due}


def mark_data(space: str, key: str, write_id: str, now_us: int, *, expired: bool) -> dict[str, Any]:
    """That an entry was deleted."""
    age = instant(space, now_us)
    return {"key": key, "write_id": write_id, "age": age, "expired": expired}


def changed_ns(document: Document, space: str) -> int:
    """When the server was asked for its last change; 0 of one older than that field."""
    changed = document.data.get("changed")
    return changed.get(changed_in(space), 0) if isinstance(changed, dict) else 0
