"""ObstoreS3BlobStore: S3BlobStore's twin by another driver."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from ...errors import StoreError
from ...protocols import BlobInfo, BlobStore
from .objects import Objects
from .s3_options import check_location, check_options


class ObstoreS3BlobStore(BlobStore):
    """A blob store in a bucket of Amazon S3, or of one that speaks its protocol.

    It uses obstore, which takes 10 ms to import and serves any event loop. The stores of a process
    that have the same bucket and options share their connections, from loop to loop. Nothing is
    opened, and the driver is not imported, before the first call. A request is sent once, never
    again by the driver. Redirects it follows, without the credentials.

    A put is one request of any size, refused where there is an object already, with a signature
    that holds for its bytes. Deleting takes a request for each 1,000 objects. A scan also asks the
    server for its time, without credentials. What a bucket keeps of deleted objects, or a rule that
    deletes live ones, nothing here can change.

    A process that has used obstore cannot use it in a child that it forks.

    Args:
        uri: ``s3://bucket/prefix/``; the prefix may be left out and is taken as it stands.
        endpoint_url: ``https://host:port`` of another server than Amazon's, which has the bucket in
            its paths; None is ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, or Amazon's.
        region: None is that of ``AWS_REGION`` or ``AWS_DEFAULT_REGION``, or us-east-1.
        access_key_id: With *secret_access_key*; without both, credentials are those of the
            environment, web identity, container or instance, but not of the files of AWS's tools.
        session_token: Goes with temporary credentials.
        ca_file: PEM file of authorities to trust besides those that are anyway.
        allow_http: Without encryption even to another machine.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = "s3"

    def __init__(
        self,
        uri: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        ca_file: str | None = None,
        allow_http: bool = False,
    ) -> None:
        bucket, prefix = check_location(uri)
        options = check_options(
            bucket,
            endpoint_url=endpoint_url,
            region=region,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            ca_file=ca_file,
            allow_http=allow_http,
            environ=os.environ,
        )
        self._uri = f"s3://{bucket}/{prefix}"
        self._objects = Objects(options, prefix)

    def __repr__(self) -> str:
        return f"ObstoreS3BlobStore({self._uri!r})"

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
