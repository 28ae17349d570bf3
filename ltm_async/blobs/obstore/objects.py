"""The objects below a prefix: created once and never replaced, in whichever cloud."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ...errors import ClosedError, CorruptError, StoreError, UnavailableError
from ...protocols import BlobInfo
from ...shared import Shared
from ...worker import aside
from .connecting import close, connect
from .options import Options

if TYPE_CHECKING:
    from .driver import Store
    from .requests import Requests


class Objects:
    """What each of the blob stores does, as :class:`~ltm_async.protocols.BlobStore` says it."""

    _requests: ClassVar[Shared[Options, Requests]] = Shared(connect, close)

    def __init__(self, options: Options, prefix: str) -> None:
        self._options = options
        self._cloud = options.cloud
        self._prefix = prefix
        self._closed = False
        self._share = self._requests.share(options)
        self._store: Store | None = None
        """Kept, with its connections, from loop to loop: it belongs to none."""

    async def open(self) -> None:
        await self._here()

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()
        self._store = None

    async def put(self, path: str, data: bytes) -> None:
        requests = await self._here()
        key = self._prefix + path
        if await requests.put(key, data):
            return
        there = await requests.get(key, len(data) + 1)
        if there is None:
            raise UnavailableError(
                f"{self._cloud}: an object came and went while it was put", store=self._cloud
            )
        if there != data:
            raise CorruptError(
                f"{self._cloud}: there is another object under this name", store=self._cloud
            )

    async def get(self, path: str, *, limit: int) -> bytes | None:
        requests = await self._here()
        return await requests.get(self._prefix + path, limit)

    async def read_into(self, path: str, sink: Callable[[bytes], object]) -> bool:
        requests = await self._here()
        return await requests.read_into(self._prefix + path, sink)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        requests = await self._here()
        failed = await requests.delete([self._prefix + path for path in paths])
        return {key.removeprefix(self._prefix): exc for key, exc in failed.items()}

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        from .server_time import server_time_us  # its import takes longer than the driver's

        requests = await self._here()
        start = self._prefix + prefix
        now_us: int | None = None
        folder = start[: start.rfind("/") + 1]  # the driver lists nothing smaller
        async for page in requests.list(folder):
            if now_us is None:
                now_us = await aside(partial(server_time_us, self._options))
            for key, byte_size, modified_us in page:
                if key.startswith(start):
                    age_us = 0 if now_us is None else max(0, now_us - modified_us)
                    yield BlobInfo(key.removeprefix(self._prefix), byte_size, age_us)

    async def _here(self) -> Requests:
        """Those of the running loop."""
        if self._closed:
            raise ClosedError(f"the {self._cloud} blob store is closed")
        requests = await self._share.get()
        self._store = requests.store
        return requests
