"""AzureBlobStore: one blob of Azure for each of ours, created once and never replaced."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from ...errors import StoreError
from ...protocols import BlobInfo, BlobStore
from .azure_options import check_location, check_options
from .objects import Objects


class AzureBlobStore(BlobStore):
    """A blob store in a container of Azure Blob Storage.

    It uses obstore, which takes 10 ms to import and serves any event loop. The stores of a process
    that have the same container and options share their connections, from loop to loop. Nothing is
    opened, and the driver is not imported, before the first call. A request is sent once, never
    again by the driver. Redirects it follows, without an account key, but telling a *sas_token*.

    A put is one request of any size, refused where there is an object already. Deleting takes a
    request for each 256 objects. A scan also asks the server for its time, without credentials.
    What a container keeps of deleted objects, or a rule that deletes live ones, nothing here can
    change.

    A process that has used obstore cannot use it in a child that it forks.

    Args:
        uri: ``az://container/prefix/``; the prefix may be left out and is taken as it stands.
        account_name: None is that of ``AZURE_STORAGE_ACCOUNT_NAME``.
        account_key: Or *sas_token*; without both, credentials are those of the environment that
            Azure's tools read too: an account key, a shared access signature, a client secret,
            workload identity, ``AZURE_USE_AZURE_CLI=true``, or the machine's managed identity.
        sas_token: A shared access signature, which must allow to read, write, delete and list.
        connection_string: Has all of these; None is ``AZURE_STORAGE_CONNECTION_STRING`` where none
            of them is given.
        endpoint_url: ``https://host:port`` of another server than the account's, such as Azurite
            with the account as path; None is ``AZURE_STORAGE_ENDPOINT`` or the account's.
        ca_file: PEM file of authorities to trust besides those that are anyway.
        allow_http: Without encryption even to another machine.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = "azure"

    def __init__(
        self,
        uri: str,
        *,
        account_name: str | None = None,
        account_key: str | None = None,
        sas_token: str | None = None,
        connection_string: str | None = None,
        endpoint_url: str | None = None,
        ca_file: str | None = None,
        allow_http: bool = False,
    ) -> None:
        bucket, prefix = check_location(uri)
        options = check_options(
            bucket,
            account_name=account_name,
            account_key=account_key,
            sas_token=sas_token,
            connection_string=connection_string,
            endpoint_url=endpoint_url,
            ca_file=ca_file,
            allow_http=allow_http,
            environ=os.environ,
        )
        self._uri = f"az://{bucket}/{prefix}"
        self._objects = Objects(options, prefix)

    def __repr__(self) -> str:
        return f"AzureBlobStore({self._uri!r})"

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
