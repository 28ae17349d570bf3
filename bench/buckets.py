"""Each blob store beside its bare driver, on one server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from obstore.store import AzureStore, S3Store

from bench.bare_gcs import bare_gcs
from bench.bare_obstore import BareObstore
from bench.bare_s3 import bare_s3
from bench.bare_sqlite import BareSQLite
from bench.processes import ROOT
from bench.sides import Entries
from ltm_async import GCSBlobStore, ObstoreS3BlobStore
from ltm_async.protocols import BlobStore
from tests import azure_stores, s3_stores
from tests.servers.azurite import Azurite
from tests.servers.ministack import MiniStack


class BareObjects(Protocol):
    async def put(self, objects: Mapping[str, bytes], /) -> None: ...

    async def get(self, names: Sequence[str], /) -> list[bytes]: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A blob store of the library and its bare driver, for one bucket."""

    store: str
    ours: BlobStore
    driver: str
    bare: BareObjects


OpenBucket: TypeAlias = Callable[[int], AbstractAsyncContextManager[Bucket]]
"""Takes the port at which the bucket's server is reached."""


class BareMemory:
    """What a careful program would do: encode, hash, upload, then rows in SQLite."""

    def __init__(self, rows: BareSQLite, objects: BareObjects) -> None:
        self._rows = rows
        self._objects = objects

    async def store_batch(self, entries: Entries) -> None:
        blobs = dict(self._rows.as_blobs(entries))
        await self._objects.put({row[4]: data for row, data in blobs.items()})
        await asyncio.to_thread(self._rows.store_rows, blobs)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        names = await asyncio.to_thread(self._rows.names, keys)
        found = await self._objects.get(list(names.values()))
        return {key: json.loads(data) for key, data in zip(names, found, strict=True)}

    async def store(self, key: str, value: Any) -> None:
        await self.store_batch([{"key": key, "value": value}])

    async def retrieve(self, key: str) -> Any:
        return (await self.retrieve_batch([key]))[key]


@contextlib.asynccontextmanager
async def s3(server: MiniStack, port: int) -> AsyncIterator[Bucket]:
    """Over TLS, as in production."""
    url, key = server.endpoint_url.replace(str(server.port), str(port)), server.key
    blobs, ca_file = s3_stores.store_on(server, endpoint_url=url), str(server.ca_file)
    async with bare_s3(
        url, key.access_key_id, key.secret_access_key, ca_file, s3_stores.bucket_of(blobs)
    ) as bare:
        yield Bucket(store="S3", ours=blobs, driver="bare aiobotocore", bare=bare)
    await blobs.aclose()


@contextlib.asynccontextmanager
async def s3_by_obstore(server: MiniStack, port: int) -> AsyncIterator[Bucket]:
    """Without TLS: the bare driver trusts no certificate of a file."""
    url, bucket, key = f"http://127.0.0.1:{port}", server.new_bucket(), server.key
    options: dict[str, Any] = {
        "region": server.region,
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
    }
    blobs = ObstoreS3BlobStore(f"s3://{bucket}/pre/fix/", endpoint_url=url, **options)
    bare = S3Store(bucket, endpoint=url, client_options={"allow_http": True}, **options)
    yield Bucket(store="S3 by obstore", ours=blobs, driver="bare obstore", bare=BareObstore(bare))
    await blobs.aclose()


@contextlib.asynccontextmanager
async def azure(server: Azurite, port: int) -> AsyncIterator[Bucket]:
    url = server.endpoint_behind(port)
    blobs = azure_stores.store_on(server, endpoint_url=url)
    bare = AzureStore(
        azure_stores.container_of(blobs),
        account_name=server.account_name,
        account_key=server.account_key,
        endpoint=url,
        client_options={"allow_http": True},
    )
    yield Bucket(store="Azure", ours=blobs, driver="bare obstore", bare=BareObstore(bare))
    await blobs.aclose()


@contextlib.asynccontextmanager
async def gcs(port: int) -> AsyncIterator[Bucket]:
    url, bucket = f"http://127.0.0.1:{port}", f"bench-{uuid.uuid4().hex}"
    body = json.dumps({"name": bucket}).encode()
    await asyncio.to_thread(lambda: urllib.request.urlopen(f"{url}/storage/v1/b", body).close())
    blobs = GCSBlobStore(f"gs://{bucket}/ours/", endpoint_url=url)
    async with bare_gcs(url, bucket) as bare:
        yield Bucket(store="GCS", ours=blobs, driver="bare gcloud-aio", bare=bare)
    await blobs.aclose()


@contextlib.contextmanager
def gcs_server() -> Iterator[int]:
    """The port of a GCS in a process of its own, which shares no loop with what is measured."""
    command = [sys.executable, "-m", "tests.servers.gcs"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.communicate()
