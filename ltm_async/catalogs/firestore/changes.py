"""What is to be committed, what was found, and what it costs."""

from __future__ import annotations

from typing import Any, NamedTuple

from .layout import Data, Document


class StaleError(Exception):
    """Nothing was committed: a document was not as the changes expect it."""


class Found(NamedTuple):
    """Documents that are there, by name, as of one moment."""

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
        self._made: list[tuple[str, str, Data | None, Any]] = []

    def create(self, collection: str, name: str, data: Data) -> None:
        """It must not be there."""
        self._made.append((collection, name, data, None))

    def replace(self, collection: str, document: Document, data: Data) -> None:
        """These fields, where it has not changed since *document* was read."""
        self._made.append((collection, document.name, data, document.updated))

    def delete(self, collection: str, name: str, *, updated: Any = None) -> None:
        """It must be there, and, where *updated* is given, not have changed since."""
        self._made.append((collection, name, None, updated))

    def put(self, collection: str, name: str, data: Data) -> None:
        """Whatever is there."""
        self._made.append((collection, name, data, self))

    def __len__(self) -> int:
        return len(self._made)

    def fill(self, batch: Any, client: Any, prefix: str) -> None:
        for collection, name, data, updated in self._made:
            reference = client.collection(prefix + collection).document(name)
            if data is None:
                expects = client.write_option(exists=True)
                if updated is not None:
                    expects = client.write_option(last_update_time=updated)
                batch.delete(reference, option=expects)
            elif updated is self:
                batch.set(reference, data)
            elif updated is None:
                batch.create(reference, data)
            else:
                batch.update(reference, data, client.write_option(last_update_time=updated))

    def counted(self, usage: Usage) -> None:
        deletes = sum(data is None for _, _, data, _ in self._made)
        usage.deletes += deletes
        usage.writes += len(self._made) - deletes
