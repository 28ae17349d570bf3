"""GCSBlobStore: one object for each blob, created once and never replaced."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ...errors import ClosedError, StoreError
from ...protocols import BlobInfo, BlobStore
from ...shared import Shared
from ...transfer import fan_out
from .connecting import close, connect
from .options import Options, check_location, check_options

if TYPE_CHECKING:
    from .client import Client


class GCSBlobStore(BlobStore):
    """A blob store in a bucket of Google Cloud Storage.

    The stores of one event loop that have the same options share a client and its connections.
    Nothing is opened, and the driver is not imported, before the first call; the import and the
    reading of credentials happen in a thread, so that the loop goes on meanwhile. A request is
    sent once, never again by the driver, and follows no redirect.

    A put is one request of any size, refused where there is an object already, and carries a
    checksum that the server compares and returns: CRC-32C, or MD5 where the former is not
    compiled. Deleting takes a request for each object, up to
    *max_connections* at once. A bucket with versioning or soft delete keeps what is deleted; a
    lifecycle rule that deletes live objects is a loss that nothing here can prevent.

    It needs the permissions ``storage.objects.create``, ``get``, ``delete`` and ``list``.

    Args:
        uri: ``gs://bucket/prefix/``; the prefix may be left out and is taken as it stands.
        endpoint_url: ``https://host:port`` of another server than Google's; None is the one that
            ``STORAGE_EMULATOR_HOST`` names, or Google's.
        service_file: A file with the credentials of a service account, or of any other kind
            that gcloud-aio knows. None looks where Google's clients do: the file that
            ``GOOGLE_APPLICATION_CREDENTIALS`` names, that of ``gcloud auth
            application-default login``, the metadata server. To another server than Google's
            only those of a *service_file* are sent.
        token: An access token to send to such a server as it is; None is that of
            ``STORAGE_EMULATOR_TOKEN``, or none.
        max_connections: Open at once, 1 to 1,000; as many as the transfers of a backend.
        allow_http: Without encryption even to another machine.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = "gcs"
    _clients: ClassVar[Shared[Options, Client]] = Shared(connect, close)

    def __init__(
        self,
        uri: str,
        *,
        endpoint_url: str | None = None,
        service_file: str | None = None,
        token: str | None = None,
        max_connections: int = 50,
        allow_http: bool = False,
    ) -> None:
        self._bucket, self._prefix = check_location(uri)
        options = check_options(
            endpoint_url=endpoint_url,
            service_file=service_file,
            token=token,
            max_connections=max_connections,
            allow_http=allow_http,
            environ=os.environ,
        )
        self._max_connections = max_connections
        self._closed = False
        self._share = self._clients.share(options)

    def __repr__(self) -> str:
        return f"GCSBlobStore({self.uri('')!r})"

    async def open(self) -> None:
        client = await self._client()
        await client.authenticate()

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()

    async def put(self, path: str, data: bytes) -> None:
        client = await self._client()
        await client.requests.put(self._bucket, self._prefix + path, data)

    async def get(self, path: str, *, limit: int) -> bytes | None:
        client = await self._client()
        return await client.requests.get(self._bucket, self._prefix + path, limit)

    async def read_into(self, path: str, sink: Callable[[bytes], object]) -> bool:
        client = await self._client()
        return await client.requests.read_into(self._bucket, self._prefix + path, sink)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        client = await self._client()
        await client.authenticate()  # whoever may do nothing hears of it once
        failed: dict[str, StoreError] = {}

        async def delete(path: str) -> None:
            try:
                await client.requests.delete(self._bucket, self._prefix + path)
            except StoreError as exc:
                failed[path] = exc

        await fan_out(paths, delete, count=self._max_connections)
        return failed

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        requests = (await self._client()).requests
        page = await requests.list(self._bucket, self._prefix + prefix, None)
        while True:
            for name, byte_size, age_us in page.objects:
                yield BlobInfo(name.removeprefix(self._prefix), byte_size, age_us)
            if page.after is None:
                return
            page = await requests.list(self._bucket, self._prefix + prefix, page.after)

    def uri(self, path: str) -> str:
        return f"gs://{self._bucket}/{self._prefix}{path}"

    async def _client(self) -> Client:
        if self._closed:
            raise ClosedError("the gcs blob store is closed")
        return await self._share.get()
