"""The requests that a blob store makes of one loop, in our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, ParamSpec, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from ...errors import OutcomeUnknownError, StoreError, UnavailableError
from ...transfer import fan_out
from .calls import Calls, GivenUpError
from .driver import Store
from .failures import Failure
from .options import Cloud

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_TIMEOUT_S = 20.0
SLOWEST_BYTES_PER_S = 64 * 1024
"""A transfer has so much longer."""
PAGE = 1_000
PIECE_BYTES = 256 * 1024
"""Read at once of an object of any size."""
MOST_DELETED_AT_ONCE = {"azure": 256, "s3": 1_000, "gcs": 1}
"""By one request."""
DELETES_AT_ONCE = 50
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FAILED = (BaseError, FileNotFoundError)


class Listed(NamedTuple):
    """One object of a listing."""

    key: str
    byte_size: int
    modified_us: int


class Requests:
    """Each method is one request, sent once, but where it says otherwise."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        self.store = store
        self._cloud = cloud
        self._calls = Calls()

    async def aclose(self) -> None:
        """End what is running, in bounded time."""
        await self._calls.give_up()

    async def put(self, key: str, data: bytes) -> bool:
        """Create an object; False if there is one already."""
        try:
            await self._call(
                OutcomeUnknownError,
                len(data),
                obstore.put_async,
                self.store,
                key,
                data,
                mode="create",
                use_multipart=False,
            )
        except AlreadyExistsError:
            return False
        except _FAILED as exc:
            raise Failure.of(exc).meaning(self._cloud, lost=OutcomeUnknownError) from None
        return True

    async def get(self, key: str, limit: int) -> bytes | None:
        """The first *limit* bytes of an object; None when there is none."""
        try:
            reply = await self._call(UnavailableError, 0, obstore.get_async, self.store, key)
            size = int(reply.meta["size"])
            if size <= limit:
                whole = await self._call(UnavailableError, size, reply.bytes_async)
                return bytes(whole)
            pieces, missing = [], limit
            stream = reply.stream(min_chunk_size=1)
            while missing > 0:
                piece = bytes(await self._call(UnavailableError, 0, stream.__anext__))[:missing]
                pieces.append(piece)
                missing -= len(piece)
        except _FAILED as exc:
            failure = Failure.of(exc)
            if failure.is_absence:
                return None
            raise failure.meaning(self._cloud, lost=UnavailableError) from None
        return b"".join(pieces)

    async def read_into(self, key: str, sink: Callable[[bytes], object]) -> bool:
        """Give *sink* an object piece by piece; False when there is none."""
        try:
            reply = await self._call(UnavailableError, 0, obstore.get_async, self.store, key)
            missing = int(reply.meta["size"])
            stream = reply.stream(min_chunk_size=PIECE_BYTES)
            while missing > 0:
                read = self._call(UnavailableError, PIECE_BYTES, stream.__anext__)
                piece = bytes(await read)
                sink(piece)
                missing -= len(piece)
        except _FAILED as exc:
            failure = Failure.of(exc)
            if failure.is_absence:
                return False
            raise failure.meaning(self._cloud, lost=UnavailableError) from None
        return True

    async def delete(self, keys: Sequence[str]) -> dict[str, StoreError]:
        """Delete objects, if they are there; those that failed, and why.

        A request is for as many as the service allows. Where one of them fails, the driver does
        not say what became of the others, so that each has a request of its own.
        """
        failed: dict[str, StoreError] = {}
        most = MOST_DELETED_AT_ONCE[self._cloud]

        async def delete(some: Sequence[str]) -> None:
            try:
                failure = await self._delete(some)
            except StoreError as exc:
                failed.update(dict.fromkeys(some, exc))
                return
            if failure is None or (len(some) == 1 and failure.is_absence):
                return
            if len(some) > 1 and failure.is_of_one_key:
                await fan_out([[key] for key in some], delete, count=DELETES_AT_ONCE)
                return
            for key in some:
                failed[key] = failure.meaning(self._cloud, lost=OutcomeUnknownError)

        chunks = [keys[start : start + most] for start in range(0, len(keys), most)]
        await fan_out(chunks, delete, count=max(1, DELETES_AT_ONCE // most))
        return failed

    async def _delete(self, keys: Sequence[str]) -> Failure | None:
        try:
            await self._call(OutcomeUnknownError, 0, obstore.delete_async, self.store, list(keys))
        except _FAILED as exc:
            return Failure.of(exc)
        return None

    async def list(self, folder: str) -> AsyncIterator[list[Listed]]:
        """The objects whose key starts with *folder*, in pages of up to a thousand."""
        stream = obstore.list(self.store, folder, chunk_size=PAGE)
        while True:
            try:
                page = await self._call(UnavailableError, 0, stream.__anext__)
            except StopAsyncIteration:
                return
            except _FAILED as exc:
                raise Failure.of(exc).meaning(self._cloud, lost=UnavailableError) from None
            yield [
                Listed(
                    item["path"],
                    item["size"],
                    (item["last_modified"] - EPOCH) // timedelta(microseconds=1),
                )
                for item in page
            ]

    async def _call(
        self,
        lost: type[StoreError],
        byte_size: int,
        function: Callable[P, Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call the driver; *lost* is what a request is that may have been served.

        The driver's own timeouts count from the beginning of a request, however long its body is.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S + byte_size / SLOWEST_BYTES_PER_S):
                return await self._calls.run(function, *args, **kwargs)
        except TimeoutError:
            why = "there was no answer in time"
        except GivenUpError:
            why = "the store was closed"
        raise lost(f"{self._cloud}: {why}", store=self._cloud) from None
