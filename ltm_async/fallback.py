"""What this process last saw of each key, for reading while the catalog is down."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from .clock import system_clock
from .drafting import Draft
from .entry import decode
from .errors import OutcomeUnknownError, StoreError, UnavailableError
from .protocols import Row
from .results import RetrieveResult

MAX_BYTES = 16 * 1024 * 1024


class Seen(NamedTuple):
    """An entry as it was last retrieved, or was to be stored."""

    row: Row
    text: str
    """The value's canonical JSON."""
    seen_at: float
    """By the monotonic clock."""


class Fallback:
    """The last values of at most *size* keys and 16 MiB; the least recently used go first.

    For reading only: nothing in it is ever written back. It forgets what is deleted, and what
    has expired by this process's clock, the only one there is while the catalog is down.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = 0
        self._entries: collections.OrderedDict[str, Seen] = collections.OrderedDict()
        self._lock = threading.Lock()  # several loops may share one backend

    def keep(self, row: Row, text: str) -> None:
        with self._lock:
            self._drop(row.key)
            if len(text) > MAX_BYTES:
                return
            self._entries[row.key] = Seen(row, text, time.monotonic())
            self._bytes += len(text)
            while len(self._entries) > self._size or self._bytes > MAX_BYTES:
                self._drop(next(iter(self._entries)))

    def keep_draft(self, draft: Draft, *, version: int | None) -> None:
        """Keep what was stored as *version*, or was to be stored if that is None."""
        if draft.text is None:
            self.forget([draft.key])
            return
        now = system_clock()
        row = Row(
            key=draft.key,
            version=version or 0,
            content_hash=draft.content_hash,
            byte_size=draft.byte_size,
            inlined_value=draft.text,
            blob_id=None,
            metadata=draft.metadata,
            expires_at=draft.expiry.resolve(now),
            created_at=now,
            updated_at=now,
        )
        self.keep(row, draft.text)

    def forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            if self._entries:  # most who write batches have none
                for key in keys:
                    self._drop(key)

    def result(self, key: str, exc: StoreError) -> RetrieveResult:
        """The last value of *key* as a degraded result, or the failure alone."""
        seen = (
            self.recall(key) if isinstance(exc, (UnavailableError, OutcomeUnknownError)) else None
        )
        if seen is None:
            return RetrieveResult(key=key, exception=exc)
        return RetrieveResult(
            key=key,
            value=decode(seen.text),
            metadata=decode(seen.row.metadata),
            row=seen.row,
            age_s=time.monotonic() - seen.seen_at,
            exception=exc,
        )

    def recall(self, key: str) -> Seen | None:
        with self._lock:
            seen = self._entries.get(key)
            if seen is None:
                return None
            ends_at = seen.row.expires_at
            if ends_at is not None and ends_at <= system_clock():
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return seen

    def _drop(self, key: str) -> None:
        seen = self._entries.pop(key, None)
        if seen is not None:
            self._bytes -= len(seen.text)
