"""Values as they lie in the stores: what is asked of every form, and as they are."""

from __future__ import annotations

from typing import Protocol

from .entry import hash_of
from .errors import CorruptError
from .hashing import content_hash
from .protocols import Row

KEYED = "hmac-sha256:"
"""How the hash begins of an entry that is encrypted."""


class Values(Protocol):
    """How values are written and read back. Those read were checked: size, hash, and place."""

    def content_hash(self, key: str, plain_hash: str) -> str:
        """What stands for a value in the catalog; the same for the same content under a key."""
        ...

    def seal_inlined(self, key: str, text: str) -> str:
        """The text for the row."""
        ...

    async def seal_blob(self, key: str, blob_id: str, data: bytes) -> bytes:
        """The bytes for the blob."""
        ...

    def open_inlined(self, row: Row, text: str) -> tuple[str, str]:
        """The value's JSON and its plain hash; *text* is that of *row*."""
        ...

    async def open_blob(self, row: Row, blob_id: str, data: bytes) -> tuple[str, str]:
        """The value's JSON and its plain hash; *data* is that of the blob."""
        ...

    def inlined_bytes(self, byte_size: int) -> int:
        """What a value of *byte_size* takes in a row, at most."""
        ...

    def blob_bytes(self, byte_size: int) -> int:
        """What a value of *byte_size* takes as a blob, at most."""
        ...


class PlainValues:
    def content_hash(self, key: str, plain_hash: str) -> str:  # noqa: ARG002
        return plain_hash

    def seal_inlined(self, key: str, text: str) -> str:  # noqa: ARG002
        return text

    async def seal_blob(self, key: str, blob_id: str, data: bytes) -> bytes:  # noqa: ARG002
        return data

    def open_inlined(self, row: Row, text: str) -> tuple[str, str]:
        # What we wrote is ASCII; whatever else is there has another hash, and must not raise here.
        found = hash_of(text.encode("utf-8", "replace"))
        if len(text) != row.byte_size or found != row.content_hash:
            _refuse_sealed(row)
            raise CorruptError("a row does not have the content that its hash says")
        return text, found

    async def open_blob(self, row: Row, blob_id: str, data: bytes) -> tuple[str, str]:  # noqa: ARG002
        _refuse_sealed(row)
        if len(data) != row.byte_size:
            raise CorruptError("a blob does not have the size that its row says")
        found = await content_hash(data)
        if found != row.content_hash:
            raise CorruptError("a blob does not have the content that its row says")
        return data.decode("ascii", "replace"), found

    def inlined_bytes(self, byte_size: int) -> int:
        return byte_size

    def blob_bytes(self, byte_size: int) -> int:
        return byte_size


def _refuse_sealed(row: Row) -> None:
    if str(row.content_hash).startswith(KEYED):
        raise CorruptError("an entry is encrypted, and this backend has no keyring")
