"""The same work by hand, on S3: aiobotocore with as many connections and transfers at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

AT_ONCE = 50

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class BareS3:
    """Puts with the driver's own checksum and *create only*, reads whole; nothing is verified."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def put(self, objects: Mapping[str, bytes]) -> None:
        await self._all(self._put(name, data) for name, data in objects.items())

    async def get(self, names: Iterable[str]) -> list[bytes]:
        return await self._all(map(self._get, names))

    async def store(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Encode, hash and put; a careful program would keep the hashes somewhere."""
        objects = {entry["key"]: _encode(entry["value"]).encode() for entry in entries}
        self.hashes = {name: hashlib.sha256(data).hexdigest() for name, data in objects.items()}
        await self.put(objects)

    async def retrieve(self, names: Sequence[str]) -> dict[str, Any]:
        found = await self.get(names)
        return {name: json.loads(data) for name, data in zip(names, found, strict=True)}

    async def _all(self, calls: Iterable[Awaitable[Any]]) -> list[Any]:
        async def one(call: Awaitable[Any]) -> Any:
            async with self._gate:
                return await call

        return await asyncio.gather(*map(one, calls))

    async def _put(self, name: str, data: bytes) -> None:
        await self._client.put_object(
            Bucket=self._bucket, Key=f"bare/{name}", Body=data, IfNoneMatch="*"
        )

    async def _get(self, name: str) -> bytes:
        reply = await self._client.get_object(Bucket=self._bucket, Key=f"bare/{name}")
        async with reply["Body"] as body:
            return bytes(await body.read())


@contextlib.asynccontextmanager
async def bare_s3(
    endpoint_url: str, key_id: str, secret: str, ca_file: str | None, bucket: str
) -> AsyncIterator[BareS3]:
    config = AioConfig(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"})
    async with get_session().create_client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        verify=ca_file,
        config=config,
    ) as client:
        yield BareS3(client, bucket)
