"""Entries as JSON Lines: out of one memory and into another, exactly and in bounded memory.

The first line names the format, and each other one is an entry, in the order of the keys::

    {"format":"ltm-async-export","version":1}
    {"key":"user:7","value":{"likes":["tea"]},"metadata":{},"expires_at":null}

An expiry is an instant in UTC, such as ``"2026-01-31T12:00:00.000000Z"``. Nothing here knows of
namespaces: a file goes into the one of the backend that imports it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from .backend import LTMBackend
from .entry import MAX_VALUE_BYTES, check_key, encode, encode_metadata, to_expiry
from .errors import CorruptError, InvalidEntryError
from .results import EntryInfo, RetrieveResult
from .worker import Call, Worker

FORMAT = "ltm-async-export"
VERSION = 1
BATCH_SIZE = 500
SLICE_BYTES = 8 * 1024 * 1024
"""Values that are read or stored at once; one that is larger by itself goes alone."""
MAX_LINE_BYTES = 2 * MAX_VALUE_BYTES
"""What this module writes is shorter; a line of another's making may be spaced out."""

_FIELDS = frozenset({"key", "value", "metadata", "expires_at"})
_STATE = "ltm-async-import"
_READ_BYTES = 256 * 1024

_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
).encode


class InvalidLineError(InvalidEntryError):
    """A line that is no entry; lines before it have been imported.

    Attributes:
        number: Which line, from 1, the header included.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number


# Reading JSON that others wrote


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0.0:  # 1e999 is infinite
        raise ValueError("a number is out of range")
    return number


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode


def parse_json(data: bytes | str) -> Any:
    """The value of JSON text, without a word of it in the error.

    Raises:
        InvalidEntryError: It is not JSON, or holds NaN, infinity or a number beyond limits.
    """
    try:
        return _decode(data if isinstance(data, str) else data.decode())
    except UnicodeDecodeError:
        raise InvalidEntryError("not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise InvalidEntryError(f"not JSON from character {exc.pos + 1} on") from None
    except RecursionError:
        raise InvalidEntryError("nested too deep") from None
    except ValueError:
        raise InvalidEntryError("a number that cannot be kept: NaN, infinite or huge") from None


# Export


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole lines of an export."""

    data: bytes
    keys: tuple[str, ...] = ()
    """The entries in *data*, in order."""


def header() -> bytes:
    return _line({"format": FORMAT, "version": VERSION})


async def export_entries(
    ltm: LTMBackend,
    *,
    prefix: str = "",
    after: str | None = None,
    with_header: bool = True,
    slice_bytes: int = SLICE_BYTES,
    on_damaged: Callable[[str, str], None] | None = None,
) -> AsyncIterator[Chunk]:
    """Every live entry as lines, in the order of the keys' code points.

    Each chunk is as of one moment; an entry that is stored or deleted meanwhile may be in it or
    not. Memory is bounded by *slice_bytes* and the largest value.

    Args:
        prefix: Only keys that start with it; plain text.
        after: Only keys above this one, such as the last one that an earlier export wrote.
        on_damaged: Told the key and what is wrong with it, and the export goes on; without it
            the export ends there, after the entries before it.

    Raises:
        StoreError: A store failed, or an entry is damaged; all chunks so far are good.
    """
    while True:
        page = (await ltm.list_entries(prefix, cursor=after, limit=BATCH_SIZE)).raise_for_error()
        if with_header:  # not before the catalog has answered
            yield Chunk(data=header())
            with_header = False
        for keys in _slices(page.entries, slice_bytes):
            read = await ltm.retrieve_batch(keys)
            lines: dict[str, bytes] = {}
            for key in keys:
                if key in read.errors:
                    damage = read.errors[key]
                    if damage.error_type != CorruptError.__name__:
                        read.raise_for_error()
                    if on_damaged is None:
                        yield Chunk(data=b"".join(lines.values()), keys=tuple(lines))
                        raise CorruptError(f"the entry {key!r} cannot be read: {damage.error}")
                    on_damaged(key, damage.error)
                elif key in read.results:  # else deleted or expired since it was listed
                    lines[key] = to_line(read.results[key])
            del read
            yield Chunk(data=b"".join(lines.values()), keys=tuple(lines))
        if page.cursor is None:
            return
        after = page.cursor


def _slices(entries: Iterable[EntryInfo], slice_bytes: int) -> Iterator[list[str]]:
    """Keys in turn, as many as come to *slice_bytes* of values."""
    keys: list[str] = []
    size = 0
    for entry in entries:
        if keys and size + entry.byte_size > slice_bytes:
            yield keys
            keys, size = [], 0
        keys.append(entry.key)
        size += entry.byte_size
    if keys:
        yield keys


def to_line(entry: RetrieveResult) -> bytes:
    return _line(
        {
            "key": entry.key,
            "value": entry.value,
            "metadata": dict(entry.metadata),
            "expires_at": None if entry.expires_at is None else to_iso(entry.expires_at),
        }
    )


def to_iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _line(fields: dict[str, Any]) -> bytes:
    return _encode(fields).encode() + b"\n"


# Import


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
            _check_header(line)
        if number <= skip:
            if number == skip and fingerprint not in ("", _fingerprint(line)):
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
            self.done.lines, self.done.fingerprint = number, _fingerprint(line)
            if self._on_progress is not None:
                await self._on_progress(self.done)

    async def _store_good(self, waiting: Mapping[int, dict[str, Any]]) -> None:
        """Store what can be: one entry that breaks a limit has all of a call refused."""
        good: list[dict[str, Any]] = []
        for number, entry in waiting.items():
            try:
                _check_limits(entry)
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


def _check_header(line: bytes) -> None:
    try:
        fields = parse_json(line)
    except InvalidEntryError:
        fields = None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InvalidLineError(1, f"is not the header of a file of the format {FORMAT}")
    if fields.get("version") != VERSION:
        raise InvalidLineError(
            1, f"says another version of the format than {VERSION}: another release made it"
        )


def from_line(line: bytes) -> dict[str, Any]:
    """The entry of one line, as ``store_batch`` takes it; its limits are not checked.

    Raises:
        InvalidEntryError: It is no entry.
    """
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEntryError(f"is longer than {MAX_LINE_BYTES} bytes")
    entry = parse_json(line)
    if not isinstance(entry, dict):
        raise InvalidEntryError("is no JSON object")
    if unknown := entry.keys() - _FIELDS:
        raise InvalidEntryError(f"has {len(unknown)} fields that an entry has not")
    if not isinstance(entry.get("key"), str) or "value" not in entry:
        raise InvalidEntryError("needs the fields 'key', a text, and 'value'")
    return {
        "key": entry["key"],
        "value": entry["value"],
        "metadata": entry.get("metadata"),
        "expires_at": _from_iso(entry.get("expires_at")),
    }


def _from_iso(text: object) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text if isinstance(text, str) else "")
        if instant.utcoffset() is None:
            raise ValueError
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidEntryError(
            "has an expires_at that is no instant with its time zone, such as 2026-01-31T12:00:00Z"
        ) from None


def _check_limits(entry: Mapping[str, Any]) -> None:
    check_key(entry["key"])
    encode("value", entry["value"])
    encode_metadata(entry["metadata"])
    to_expiry(expires_at=entry["expires_at"])


def _fingerprint(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:32]


def save_progress(path: Path, done: Imported) -> None:
    """Keep in a file how far an import has come; whole or not at all."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    fields = {"format": _STATE, "version": 1, "lines": done.lines, "fingerprint": done.fingerprint}
    aside.write_bytes(_line(fields))
    aside.replace(path)


def load_progress(path: Path) -> tuple[int, str]:
    """The lines and fingerprint of :func:`save_progress`; 0 and none if there is no file.

    Raises:
        InvalidEntryError: The file is something else.
    """
    try:
        fields = parse_json(path.read_bytes())
    except FileNotFoundError:
        return 0, ""
    except InvalidEntryError:
        fields = None
    match fields:
        case {
            "format": "ltm-async-import",
            "version": 1,
            "lines": int(lines),
            "fingerprint": str(p),
        }:
            return lines, p
    raise InvalidEntryError("the file with the state is not one that an import has written")


# Files


def end_of_export(file: BinaryIO) -> tuple[int, str | None]:
    """Where the last complete line of an export ends, in bytes, and its key.

    0 bytes mean that not even the header is complete; None that no entry is.

    Raises:
        InvalidLineError: The file is no export.
        InvalidEntryError: The last complete line is no entry.
    """
    size = file.seek(0, io.SEEK_END)
    end = _after_newline(file, size)
    file.seek(0)
    first = file.readline(MAX_LINE_BYTES)
    if end == 0:
        if not header().startswith(first):
            _check_header(first)
        return 0, None
    _check_header(first)
    start = _after_newline(file, end - 1)
    if start == 0:
        return end, None
    file.seek(start)
    try:
        return end, str(from_line(file.read(end - start))["key"])
    except InvalidEntryError as exc:
        raise InvalidEntryError(f"the last complete line of the file {exc}") from None


def _after_newline(file: BinaryIO, end: int) -> int:
    """The position after the last newline before *end*, or 0."""
    while end > 0:
        start = max(0, end - _READ_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


class Channel:
    """A binary file whose calls run in a thread of its own, so that they block no loop.

    It is left to its owner to close, after :meth:`aclose`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._worker: Worker[Callable[[], object]] = Worker("ltm-file", _serve)

    async def write(self, data: bytes) -> None:
        def write() -> None:
            rest = memoryview(data)
            while rest:  # an unbuffered file may take less
                rest = rest[self._file.write(rest) :]
            self._file.flush()

        await self._worker.run(write)

    async def lines(self) -> AsyncIterator[bytes]:
        """Lines with their ends; of one that is too long only what shows that it is."""

        def some() -> list[bytes]:
            found: list[bytes] = []
            size = 0
            while size < _READ_BYTES and (line := self._line()):
                found.append(line)
                size += len(line)
            return found

        while found := cast("list[bytes]", await self._worker.run(some)):
            for line in found:
                yield line

    def _line(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = self._file.readline(MAX_LINE_BYTES + 1)
        return line

    async def aclose(self, *, timeout_s: float = 1.0) -> None:
        """Wait, in bounded time, for what was written; a reader that has stopped takes nothing."""
        await self._worker.stop(timeout_s=timeout_s)


def _serve(calls: list[Call[Callable[[], object]]]) -> None:
    for call in calls:
        if call.withdrawn:
            continue
        try:
            call.answer(call.payload())
        except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
            call.fail(exc)
