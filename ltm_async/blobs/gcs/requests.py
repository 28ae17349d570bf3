"""The requests that a blob store makes, in our errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import aiohttp

from ...clock import header_date_us
from ...errors import (
    AccessDeniedError,
    CorruptError,
    OutcomeUnknownError,
    StoreError,
    UnavailableError,
)
from .checksums import Checksum
from .replies import RefusedError, created_us, first, reading, whole_size, writing

if TYPE_CHECKING:
    from gcloud.aio.storage import Storage

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
"""Without a byte of the reply, once the request is sent."""
SLOWEST_BYTES_PER_S = 64 * 1024
"""A request counts as sent when the system has it, which may need longer by this."""
PAGE = 1_000
PIECE_BYTES = 256 * 1024
"""Read at once of an object of any size."""
_FIELDS = "items(name,size,timeCreated),nextPageToken"


class Listed(NamedTuple):
    """One object of a listing."""

    name: str
    byte_size: int
    age_us: int


class Page(NamedTuple):
    """A part of a listing."""

    objects: list[Listed]
    after: str | None
    """Where the next one starts; None on the last."""


class Requests:
    """Each method is one request, sent once, but where it says otherwise."""

    def __init__(self, storage: Storage, endpoint_url: str, checksum: Checksum) -> None:
        self._storage = storage
        self._checksum = checksum
        self._endpoint_url = endpoint_url
        self._timeout = _timeout()
        self._seen: set[str] = set()
        """Buckets that have answered, or that we may not ask for."""

    async def put(self, bucket: str, name: str, data: bytes) -> None:
        """Create an object; with a second request where there is one already.

        Raises:
            CorruptError: What is there by this name is not *data*.
        """
        checksum = await self._checksum.of(data)
        stored = await self._create(bucket, name, data, checksum)
        if stored is None:
            stored = await self._describe(bucket, name)
        self._seen.add(bucket)
        if stored.get(self._checksum.field) != checksum or stored.get("size") != str(len(data)):
            raise CorruptError("gcs: there is another object under this name", store="gcs")

    async def get(self, bucket: str, name: str, limit: int) -> bytes | None:
        """The first *limit* bytes of an object; None when there is none."""
        # A range of nothing cannot be asked for, and a compressed reply could be of any size.
        headers = {"Range": f"bytes=0-{max(limit, 1) - 1}", "Accept-Encoding": "identity"}
        with reading:
            try:
                stream = await self._storage.download_stream(
                    bucket, name, headers=headers, timeout=_as_number(self._timeout)
                )
            except RefusedError as exc:
                if exc.status == 416 and whole_size(exc.headers) == 0:
                    return b""
                if not _is_absent(exc):
                    raise
                await self._check_bucket(bucket)
                return None
            async with stream as reply:
                data = await first(reply.content, limit)
        self._seen.add(bucket)
        size = whole_size(reply.headers)
        if size is not None and len(data) < min(size, limit):
            raise UnavailableError("gcs: the reply was cut short", store="gcs")
        return data

    async def read_into(self, bucket: str, name: str, sink: Callable[[bytes], object]) -> bool:
        """Give *sink* an object piece by piece; False when there is none."""
        with reading:
            try:
                stream = await self._storage.download_stream(
                    bucket,
                    name,
                    headers={"Accept-Encoding": "identity"},
                    timeout=_as_number(self._timeout),
                )
            except RefusedError as exc:
                if not _is_absent(exc):
                    raise
                await self._check_bucket(bucket)
                return False
            async with stream as reply:
                while piece := await reply.content.read(PIECE_BYTES):
                    sink(piece)
        self._seen.add(bucket)
        return True

    async def delete(self, bucket: str, name: str) -> None:
        """Delete an object, if there is one."""
        with writing:
            try:
                await self._storage.delete(bucket, name, timeout=_as_number(self._timeout))
            except RefusedError as exc:
                if not _is_absent(exc):
                    raise
                await self._check_bucket(bucket)
        self._seen.add(bucket)

    async def list(self, bucket: str, prefix: str, after: str | None, most: int = PAGE) -> Page:
        """Up to *most* objects whose name starts with *prefix*, in order."""
        params = {"prefix": prefix, "maxResults": str(most), "fields": _FIELDS}
        if after is not None:
            params["pageToken"] = after
        with reading:
            # Not by the driver's method for it, which keeps the reply's Date to itself.
            reply = await self._storage.session.get(
                f"{self._endpoint_url}/storage/v1/b/{bucket}/o",
                params=params,
                timeout=self._timeout,
            )
            answer = await reply.json(content_type=None)
        self._seen.add(bucket)
        return _page(answer, header_date_us(reply.headers.get("Date")))

    async def _create(
        self, bucket: str, name: str, data: bytes, checksum: str
    ) -> dict[str, Any] | None:
        """What the server says of the new object; None when there is one already."""
        with writing:
            try:
                answer = await self._storage.upload(
                    bucket,
                    name,
                    data,
                    content_type="application/octet-stream",
                    parameters={
                        "ifGenerationMatch": "0",
                        "fields": f"{self._checksum.field},size",
                    },
                    metadata={self._checksum.sent_as: checksum},
                    force_resumable_upload=False,
                    timeout=_as_number(_timeout(len(data))),
                )
            except RefusedError as exc:
                if exc.status != 412:
                    raise
                return None
            return _resource(answer)

    async def _describe(self, bucket: str, name: str) -> dict[str, Any]:
        """The same of an object that is there."""
        with reading:
            try:
                answer = await self._storage.download_metadata(
                    bucket, name, timeout=_as_number(self._timeout)
                )
            except RefusedError as exc:
                if exc.status != 404:
                    raise
                raise UnavailableError(
                    "gcs: an object came and went while it was put", store="gcs"
                ) from exc
            return _resource(answer)

    async def _check_bucket(self, bucket: str) -> None:
        """Where an object is missing, so may be its bucket, and the server says the same of both.

        A listing tells, which is asked for once; whoever may not list has to believe it.
        """
        if bucket in self._seen:
            return
        try:
            await self.list(bucket, "", None, most=1)
        except AccessDeniedError:
            self._seen.add(bucket)


def _is_absent(exc: RefusedError) -> bool:
    return exc.status == 404 and "bucket does not" not in exc.words


def _resource(answer: Any) -> dict[str, Any]:
    """https://cloud.google.com/storage/docs/json_api/v1/objects#resource."""
    if not isinstance(answer, dict):
        raise OutcomeUnknownError("gcs: the reply is none of this API", store="gcs")
    return answer


def _page(answer: Any, now_us: int | None) -> Page:
    try:
        objects = []
        for item in answer.get("items", ()):
            written_us = created_us(item["timeCreated"])
            age_us = 0 if now_us is None else max(0, now_us - written_us)
            objects.append(Listed(str(item["name"]), int(item["size"]), age_us))
        return Page(objects, answer.get("nextPageToken"))
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise StoreError("gcs: the reply is no listing", store="gcs") from exc


def _timeout(byte_size: int = 0) -> aiohttp.ClientTimeout:
    """For a request of *byte_size* bytes; the whole of it is up to the deadline of the call."""
    return aiohttp.ClientTimeout(
        total=None,
        sock_connect=CONNECT_TIMEOUT_S,
        sock_read=READ_TIMEOUT_S + byte_size / SLOWEST_BYTES_PER_S,
    )


def _as_number(timeout: aiohttp.ClientTimeout) -> int:
    """gcloud-aio's methods pass it on to its session, which takes both."""
    return cast("int", timeout)
