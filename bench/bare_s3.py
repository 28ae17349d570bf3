"""The same work by hand, on S3: aiobotocore with as many connections and transfers at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from bench.bare_obstore import AT_ONCE, at_once


class BareS3:
    """Puts with the driver's own checksum and *create only*, reads whole; nothing is verified."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def put(self, objects: Mapping[str, bytes]) -> None:
        await at_once(self._put(name, data) for name, data in objects.items())

    async def get(self, names: Iterable[str]) -> list[bytes]:
        return await at_once(map(self._get, names))

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
