"""Into a memory: the entries of an export, slice by slice."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from ..backend import LTMBackend
from ..errors import InvalidEntryError
from .lines import InvalidLineError, check_header, check_limits, from_line

BATCH_SIZE = 500
SLICE_BYTES = 8 * 1024 * 1024
"""Values that are stored at once; one that is larger by itself goes alone."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Imported:
    """How far an import has come."""

    lines: int = 0
    """Done with, from the first line of the file: what to skip another time."""
    imported: int = 0
    deduplicated: int = 0
    """Of the imported, those whose content was there already."""
    expired: int = 0
    """Past their end already, and not stored."""
    invalid: int = 0
    fingerprint: str = ""
    """Of the last of these lines: tells a file from another."""


async def import_entries(
    ltm: LTMBackend,
    lines: AsyncIterable[bytes],
    *,
    skip: int = 0,
    fingerprint: str = "",
    batch_size: int = BATCH_SIZE,
    slice_bytes: int = SLICE_BYTES,
    on_invalid: Callable[[InvalidLineError], None] | None = None,
    on_progress: Callable[[Imported], Awaitable[None]] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Imported:
    """Store the entries of an export over whatever is there under their keys.

    Doing it twice changes nothing: what is there with the same content is not uploaded again.
    Memory is bounded by *slice_bytes* and the largest line.

    Args:
        skip: Lines to pass over, header included: ``lines`` of an earlier import's progress.
        fingerprint: That of the same progress, so that another file is refused.
        on_invalid: Told of each line that is no entry, and the import goes on; without it the
            import ends there, after the lines before it.
        on_progress: Awaited after each slice that was stored.
        now: By this an entry has expired already; the catalog's own clock decides later.

    Raises:
        InvalidLineError: A line is no entry, or *fingerprint* is of another file.
        StoreError: A store failed; lines up to ``lines`` of the last progress are stored.
    """
    importer = _Importer(ltm, batch_size, slice_bytes, on_invalid, on_progress, now)
    importer.done.lines = skip
    number = 0
    async for line in lines:
        number += 1
        if number == 1:
            check_header(line)
        if number <= skip:
            if number == skip and fingerprint not in ("", fingerprint_of(line)):
                raise InvalidLineError(number, "is not what the earlier import ended with")
            continue
        if number > 1 and not line.isspace():
            await importer.take(number, line)
        importer.last = (number, line)
        if importer.is_full:
            await importer.flush()
    if number == 0:
        raise InvalidLineError(1, "there is none, an export has at least its header")
    if number < skip:
        raise InvalidLineError(number, f"is the last, and {skip} were to be passed over")
    await importer.flush()
    return importer.done


class _Importer:
    """Gathers entries and stores them slice by slice."""

    def __init__(
        self,
        ltm: LTMBackend,
        batch_size: int,
        slice_bytes: int,
        on_invalid: Callable[[InvalidLineError], None] | None,
        on_progress: Callable[[Imported], Awaitable[None]] | None,
        now: Callable[[], datetime],
    ) -> None:
        self.done = Imported()
        self.last = (0, b"")
        """The line that was taken last, and its number."""
        self._ltm = ltm
        self._batch_size = batch_size
        self._slice_bytes = slice_bytes
        self._on_invalid = on_invalid
        self._on_progress = on_progress
        self._now = now
        self._waiting: dict[int, dict[str, Any]] = {}
        self._keys: set[str] = set()
        self._byte_size = 0

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._batch_size or self._byte_size >= self._slice_bytes

    async def take(self, number: int, line: bytes) -> None:
        try:
            entry = from_line(line)
        except InvalidEntryError as exc:
            invalid = InvalidLineError(number, str(exc))
            if self._on_invalid is None:
                await self.flush()
            self._refuse(invalid)
            return
        ends_at = entry["expires_at"]
        if ends_at is not None and ends_at <= self._now():
            self.done.expired += 1
            return
        if entry["key"] in self._keys:
            await self.flush()  # the later one is to count, and one call takes a key once
        self._waiting[number] = entry
        self._keys.add(entry["key"])
        self._byte_size += len(line)

    async def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._keys.clear()
        self._byte_size = 0
        try:
            await self._store(waiting.values())
        except InvalidEntryError:
            await self._store_good(waiting)
        number, line = self.last
        if number > self.done.lines:
            self.done.lines, self.done.fingerprint = number, fingerprint_of(line)
            if self._on_progress is not None:
                await self._on_progress(self.done)

    async def _store_good(self, waiting: Mapping[int, dict[str, Any]]) -> None:
        """Store what can be: one entry that breaks a limit has all of a call refused."""
        good: list[dict[str, Any]] = []
        for number, entry in waiting.items():
            try:
                check_limits(entry)
            except InvalidEntryError as exc:
                if self._on_invalid is None:
                    await self._store(good)
                self._refuse(InvalidLineError(number, str(exc)))
            else:
                good.append(entry)
        await self._store(good)

    async def _store(self, entries: Collection[dict[str, Any]]) -> None:
        if entries:
            stored = (await self._ltm.store_batch(entries)).raise_for_error()
            self.done.imported += stored.stored
            self.done.deduplicated += stored.deduplicated

    def _refuse(self, invalid: InvalidLineError) -> None:
        if self._on_invalid is None:
            raise invalid
        self.done.invalid += 1
        self._on_invalid(invalid)


def fingerprint_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:32]
