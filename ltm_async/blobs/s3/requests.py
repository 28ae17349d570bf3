"""The four requests that a blob store makes, in our errors."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from ...errors import StoreError
from .replies import age_us, classified, error_code, reading, status, translating
from .sending import Sender

IN_A_THREAD_FROM = 1024 * 1024
"""Bytes whose checksum takes so long that the loop should go on meanwhile."""
PIECE_BYTES = 256 * 1024
"""Read at once of an object of any size."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Listed(NamedTuple):
    """One object of a listing."""

    key: str
    byte_size: int
    age_us: int


class Page(NamedTuple):
    """A part of a listing."""

    objects: list[Listed]
    after: str | None
    """Where the next one starts; None on the last."""


class Requests:
    """Each method is one request, sent once."""

    def __init__(self, client: Any, sender: Sender) -> None:
        self._client = client
        self._sender = sender

    async def aclose(self) -> None:
        await self._sender.close()

    async def put(
        self, bucket: str, key: str, data: bytes, *, create_only: bool, checksum: bool
    ) -> bool:
        """Write an object; False if *create_only* and there is one already."""
        request: dict[str, Any] = {"Bucket": bucket, "Key": key, "Body": data}
        if create_only:
            request["IfNoneMatch"] = "*"
        if checksum:
            request["ChecksumCRC32"] = await _crc32(data)
        with translating():
            try:
                await self._client.put_object(**request)
            except ClientError as exc:
                if create_only and status(exc) == 412:
                    return False
                raise
        return True

    async def get(self, bucket: str, key: str, limit: int) -> bytes | None:
        """The first *limit* bytes of an object; None when there is none."""
        with reading():
            try:
                reply = await self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if error_code(exc) == "NoSuchKey":  # a 404 may be that of someone else
                    return None
                raise
            body = reply["Body"]
            try:
                if reply.get("ContentLength", limit + 1) <= limit:
                    return bytes(await body.read())
                return await _first(body, limit)
            finally:
                body.close()  # and the connection, where the rest is not wanted or did not come

    async def read_into(self, bucket: str, key: str, sink: Callable[[bytes], object]) -> bool:
        """Give *sink* an object piece by piece; False when there is none."""
        with reading():
            try:
                reply = await self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if error_code(exc) == "NoSuchKey":
                    return False
                raise
            body = reply["Body"]
            try:
                while piece := await body.read(PIECE_BYTES):
                    sink(bytes(piece))
            finally:
                body.close()
        return True

    async def delete(self, bucket: str, keys: Sequence[str]) -> dict[str, StoreError]:
        """Delete at most 1,000 objects; those that failed, and why."""
        objects = [{"Key": key} for key in keys]
        with translating():
            reply = await self._client.delete_objects(
                Bucket=bucket, Delete={"Objects": objects, "Quiet": True}
            )
        return {
            error.get("Key", ""): classified(error.get("Code", ""), 0, error.get("Message", ""))
            for error in reply.get("Errors", ())
            if error.get("Code") != "NoSuchKey"
        }

    async def list(self, bucket: str, prefix: str, after: str | None) -> Page:
        """Up to 1,000 objects whose key starts with *prefix*, in order."""
        request = {"Bucket": bucket, "Prefix": prefix}
        if after is not None:
            request["ContinuationToken"] = after
        with reading():
            reply = await self._client.list_objects_v2(**request)
        headers = reply["ResponseMetadata"]["HTTPHeaders"]
        objects = [
            Listed(
                item["Key"],
                item["Size"],
                age_us(headers, (item["LastModified"] - EPOCH) // timedelta(microseconds=1)),
            )
            for item in reply.get("Contents", ())
        ]
        after = reply.get("NextContinuationToken") if reply.get("IsTruncated") else None
        return Page(objects, after)


async def _first(body: Any, limit: int) -> bytes:
    pieces, missing = [], limit
    while missing and (piece := await body.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


async def _crc32(data: bytes) -> str:
    """As S3 has it in a header: four bytes, most significant first, in base 64."""
    if len(data) < IN_A_THREAD_FROM:
        checksum = zlib.crc32(data)
    else:
        checksum = await asyncio.to_thread(zlib.crc32, data)
    return base64.b64encode(checksum.to_bytes(4, "big")).decode()
