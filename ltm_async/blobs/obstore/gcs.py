"""ObstoreGCSBlobStore: GCSBlobStore's twin by another driver."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from ...errors import StoreError
from ...protocols import BlobInfo, BlobStore
from .gcs_options import check_location, check_options
from .objects import Objects


class ObstoreGCSBlobStore(BlobStore):
    """A blob store in a bucket of Google Cloud Storage: ``driver=obstore``.

    It uses obstore, which takes 10 ms to import and serves any event loop. The stores of a process
    that have the same bucket and options share their connections, from loop to loop. Nothing is
    opened, and the driver is not imported, before the first call. A request is sent once, never
    again by the driver. Redirects it follows, without the credentials.

    A put is one request of any size, refused where there is an object already. Deleting takes a
    request for each object. A scan also asks the server for its time, without credentials. What a
    bucket keeps of deleted objects, or a rule that deletes live ones, nothing here can change.

    A process that has used obstore cannot use it in a child that it forks.

    Args:
        uri: ``gs://bucket/prefix/``; the prefix may be left out and is taken as it stands.
        endpoint_url: ``https://host:port`` of another server than Google's; None is the one that
            ``STORAGE_EMULATOR_HOST`` names, or Google's.
        service_file: A file of Google credentials. None looks where Google's clients do:
            ``GOOGLE_APPLICATION_CREDENTIALS``, gcloud's own, the metadata server; only to Google.
        token: An access token to send to another server than Google's as it is; None is that
            of ``STORAGE_EMULATOR_TOKEN``, or none.
        ca_file: PEM file of authorities to trust besides those that are anyway.
        allow_http: Without encryption even to another machine.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = "gcs"

    def __init__(
        self,
        uri: str,
        *,
        endpoint_url: str | None = None,
        service_file: str | None = None,
        token: str | None = None,
        ca_file: str | None = None,
        allow_http: bool = False,
    ) -> None:
        bucket, prefix = check_location(uri)
        options = check_options(
            bucket,
            endpoint_url=endpoint_url,
            service_file=service_file,
            token=token,
            ca_file=ca_file,
            allow_http=allow_http,
            environ=os.environ,
        )
        self._uri = f"gs://{bucket}/{prefix}"
        self._objects = Objects(options, prefix)

    def __repr__(self) -> str:
        return f"ObstoreGCSBlobStore({self._uri!r})"

    async def open(self) -> None:
        await self._objects.open()

    async def aclose(self) -> None:
        await self._objects.aclose()

    async def put(self, path: str, data: bytes) -> None:
        await self._objects.put(path, data)

    async def get(self, path: str, *, limit: int) -> bytes | None:
        return await self._objects.get(path, limit=limit)

    async def read_into(self, path: str, sink: Callable[[bytes], object]) -> bool:
        return await self._objects.read_into(path, sink)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        return await self._objects.delete(paths)

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        async for info in self._objects.scan(prefix):
            yield info

    def uri(self, path: str) -> str:
        return self._uri + path
