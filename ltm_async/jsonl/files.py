"""Files of lines: written and read without blocking a loop, and continued where they end."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, cast

from ..errors import InvalidEntryError
from ..worker import Call, Worker
from .lines import MAX_LINE_BYTES, check_header, from_line, header

_READ_BYTES = 256 * 1024


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
            check_header(first)
        return 0, None
    check_header(first)
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
