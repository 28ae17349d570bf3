"""The same work by hand, on Google Cloud Storage: gcloud-aio with as many transfers at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, cast

import aiohttp
from gcloud.aio.storage import Storage

from bench.bare_obstore import AT_ONCE, at_once


class BareGCS:
    """Creates only where there is nothing, reads whole, without checksums.

    Names have a prefix as ours do: gcloud-aio encodes its slash, which takes time.
    """

    def __init__(self, storage: Storage, bucket: str) -> None:
        self._storage = storage
        self._bucket = bucket

    async def put(self, objects: Mapping[str, bytes]) -> None:
        await at_once(self._put(name, data) for name, data in objects.items())

    async def get(self, names: Iterable[str]) -> list[bytes]:
        return await at_once(map(self._get, names))

    async def _put(self, name: str, data: bytes) -> None:
        await self._storage.upload(
            self._bucket,
            f"bare/{name}",
            data,
            content_type="application/octet-stream",
            parameters={"ifGenerationMatch": "0"},
            force_resumable_upload=False,
        )

    async def _get(self, name: str) -> bytes:
        return await self._storage.download(self._bucket, f"bare/{name}")


@contextlib.asynccontextmanager
async def bare_gcs(endpoint_url: str, bucket: str) -> AsyncIterator[BareGCS]:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:
        # It is asked for no token where an api_root is given, and made of files without one.
        token = cast("Any", object())
        storage = Storage(session=cast("Any", session), token=token, api_root=endpoint_url)
        yield BareGCS(storage, bucket)
