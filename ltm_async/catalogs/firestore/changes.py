"""What is to be committed, what was found, and what it costs."""

from __future__ import annotations

from typing import Any, NamedTuple

from .layout import Data, Document
from .messages import fill, stamp


class StaleError(Exception):
    """Nothing was committed: a document was not as the changes expect it."""


class Found(NamedTuple):
    """Documents that are there, by name, as of one moment, the read time of the last answer.

    Those of answers before it have not changed until then, says Google
    (https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1, ``read_time`` of
    BatchGetDocumentsResponse and RunQueryResponse).
    """

    documents: dict[str, Document]
    now_us: int
    """That moment, by the server's clock."""


class Usage:
    """What was asked of Firestore so far, as it is billed."""

    def __init__(self) -> None:
        self.requests = 0
        self.reads = 0
        self.writes = 0
        self.deletes = 0


class Changes:
    """Writes to commit together, each with what it expects of its document."""

    def __init__(self) -> None:
        self._made: list[tuple[str, str, Data | None, Any, str]] = []

    def create(self, collection: str, name: str, data: Data, *, stamped: str = "") -> None:
        """It must not be there. In the field *stamped* the server enters the time."""
        self._made.append((collection, name, data, None, stamped))

    def replace(
        self, collection: str, document: Document, data: Data, *, stamped: str = ""
    ) -> None:
        """These fields, where it has not changed since *document* was read."""
        self._made.append((collection, document.name, data, document.updated, stamped))

    def delete(self, collection: str, name: str, *, updated: Any = None) -> None:
        """It must be there, and, where *updated* is given, not have changed since."""
        self._made.append((collection, name, None, updated, ""))

    def put(self, collection: str, name: str, data: Data, *, stamped: str = "") -> None:
        """Whatever is there."""
        self._made.append((collection, name, data, self, stamped))

    def __len__(self) -> int:
        return len(self._made)

    def write_to(self, writes: Any, home: str) -> None:
        """Add them to the *writes* of a request; *home* is before the names of collections."""
        for collection, name, data, updated, stamped in self._made:
            write = writes.add()
            path = f"{home}{collection}/{name}"
            if data is None:
                write.delete = path
            else:
                write.update.name = path
                fill(write.update.fields, data)
            if stamped:
                stamp(write, stamped)
            if updated is self:
                continue
            if updated is not None:
                write.current_document.update_time.CopyFrom(updated)
                if data is not None:
                    write.update_mask.field_paths.extend(data)
            else:
                write.current_document.exists = data is None

    def counted(self, usage: Usage) -> None:
        deletes = sum(data is None for _, _, data, _, _ in self._made)
        usage.deletes += deletes
        usage.writes += len(self._made) - deletes
