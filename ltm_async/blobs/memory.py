"""MemoryBlobStore: objects in a dict, for tests and for what may be forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from ..clock import system_clock
from ..errors import ClosedError, CorruptError, StoreError
from ..protocols import BlobInfo, BlobStore


class MemoryBlobStore(BlobStore):
    """A blob store that lasts as long as the object does.

    Args:
        clock: Microseconds since the epoch, for the age of objects in a scan.
    """

    name = "memory"

    def __init__(self, *, clock: Callable[[], int] = system_clock) -> None:
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._clock = clock
        self._closed = False

    async def open(self) -> None:
        self._check_open()

    async def aclose(self) -> None:
        self._closed = True

    async def put(self, path: str, data: bytes) -> None:
        self._check_open()
        held, _ = self._objects.setdefault(path, (data, self._clock()))
        if held != data:
            raise CorruptError("memory: another object has this path", store=self.name)

    async def get(self, path: str, *, limit: int) -> bytes | None:
        self._check_open()
        held = self._objects.get(path)
        return None if held is None else held[0][:limit]

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        self._check_open()
        for path in paths:
            self._objects.pop(path, None)
        return {}

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        self._check_open()
        now = self._clock()
        for path, (data, written) in list(self._objects.items()):
            if path.startswith(prefix):
                yield BlobInfo(path, len(data), now - written)

    def uri(self, path: str) -> str:
        return f"memory:{path}"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the memory blob store is closed")
