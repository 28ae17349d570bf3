"""LTMByteStore: LangChain's key-value store on a backend."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

from langchain_core.stores import BaseStore

from ltm_async.backend import LTMBackend
from ltm_async.entry import check_key, shown
from ltm_async.errors import CorruptError, InvalidEntryError
from ltm_async.integrations.waiting import wait_for
from ltm_async.listing import MAX_PAGE

ROOT = "langchain/bytes/"


class LTMByteStore(BaseStore[str, bytes]):
    """LangChain's ``ByteStore`` on *ltm*, which stays yours to close.

    Its async methods never block the loop; the others wait, in any thread that runs no event loop.
    Each call is one round trip for up to ``batch_size`` keys. Values are kept under
    ``langchain/bytes/``, up to 48 MiB each. Store failures raise, whatever the backend's
    ``on_unavailable``.

    Args:
        ltm: Where the values are kept.
        collection: Stores with different names see nothing of each other; without a slash.
        ttl: Seconds or a timedelta after which a value is gone, or None.

    Raises:
        InvalidEntryError: *collection* cannot be used.
    """

    def __init__(
        self, ltm: LTMBackend, *, collection: str = "default", ttl: float | timedelta | None = None
    ) -> None:
        check_key(collection, "collection")
        if "/" in collection:
            raise InvalidEntryError("collection has a slash")
        self._ltm = ltm
        self._ttl = ttl
        self._root = f"{ROOT}{collection}/"

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """:meth:`amget`, waiting."""
        return wait_for(lambda: self.amget(keys))

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """:meth:`amset`, waiting."""
        wait_for(lambda: self.amset(key_value_pairs))

    def mdelete(self, keys: Sequence[str]) -> None:
        """:meth:`amdelete`, waiting."""
        wait_for(lambda: self.amdelete(keys))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """:meth:`ayield_keys`, waiting for each page."""
        cursor: str | None = None
        while True:
            found, cursor = wait_for(lambda: self._page(prefix, cursor))  # noqa: B023  # at once
            yield from found
            if cursor is None:
                return

    async def amget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key, or None where there is none.

        Raises:
            InvalidEntryError: A key is too long; nothing was sent.
            StoreError: A store failed, or an entry is damaged.
        """
        wanted = [self._root + key for key in keys]
        found = (await self._ltm.retrieve_batch(wanted)).raise_for_error().results
        return [_decoded(found[key].value) if key in found else None for key in wanted]

    async def amset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Store values, ``batch_size`` at a time whole or not at all; of a key's the last counts.

        Raises:
            InvalidEntryError: A key, value or TTL cannot be used; nothing was sent.
            StoreError: A store failed.
        """
        entries = [
            {"key": self._root + key, "value": _encoded(value), "ttl": self._ttl}
            for key, value in dict(key_value_pairs).items()
        ]
        (await self._ltm.store_batch(entries)).raise_for_error()

    async def amdelete(self, keys: Sequence[str]) -> None:
        """Delete values; a key without one is no error.

        Raises:
            InvalidEntryError: A key is too long; nothing was sent.
            StoreError: A store failed.
        """
        (await self._ltm.delete_batch([self._root + key for key in keys])).raise_for_error()

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """The keys that begin with *prefix*, in order, read page by page as they are wanted.

        Raises:
            StoreError: The catalog failed, or an entry is damaged.
        """
        cursor: str | None = None
        while True:
            found, cursor = await self._page(prefix, cursor)
            for key in found:
                yield key
            if cursor is None:
                return

    async def _page(self, prefix: str | None, cursor: str | None) -> tuple[list[str], str | None]:
        start = self._root + (prefix or "")
        page = await self._ltm.list_entries(start, cursor=cursor, limit=MAX_PAGE)
        for key, failure in page.raise_for_error().errors.items():
            raise CorruptError(f"the entry {shown(key)} is damaged: {failure.error}")
        return [entry.key.removeprefix(self._root) for entry in page.entries], page.cursor


def _encoded(value: bytes) -> str:
    if not isinstance(value, bytes):
        raise InvalidEntryError(f"a value must be bytes, not {type(value).__name__}")
    return base64.b64encode(value).decode("ascii")


def _decoded(kept: Any) -> bytes:
    try:
        return base64.b64decode(kept, validate=True)
    except (TypeError, ValueError) as exc:
        raise CorruptError("an entry holds no bytes that were stored here") from exc
