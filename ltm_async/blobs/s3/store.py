"""S3BlobStore: one object for each blob, created once and never replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from ...errors import ClosedError, CorruptError, StoreError, UnavailableError
from ...protocols import BlobInfo, BlobStore
from ...shared import Shared
from .connecting import close, connect
from .options import Options, check_bool, check_location, check_options

if TYPE_CHECKING:
    from .requests import Requests

MOST_DELETED_AT_ONCE = 1_000


class S3BlobStore(BlobStore):
    """A blob store in a bucket of Amazon S3, or of one that speaks its protocol.

    The stores of one event loop that have the same options share a client and its connections.
    Nothing is opened, and the driver is not imported, before the first call; both happen in a
    thread, so that the loop goes on meanwhile. Requests are signed (Signature Version 4), are
    never sent again by the driver, and follow no redirect.

    A put is refused where there is an object already, and carries a CRC-32 that the server
    checks. A bucket with versioning keeps what is deleted; a lifecycle rule that deletes live
    objects is a loss that nothing here can prevent.

    Args:
        uri: ``s3://bucket/prefix/``; the prefix may be left out and is taken as it stands.
        endpoint_url: ``https://host:port`` of another server than Amazon's.
        region: Such as ``"eu-west-1"``; None is that of the environment or the AWS
            configuration file, or us-east-1.
        path_style: The bucket is part of the path instead of the host name. None means so for
            an *endpoint_url* that is not Amazon's.
        access_key_id: With *secret_access_key*; without both, credentials are looked for where
            every AWS SDK does: environment, files, web identity, container, instance.
        session_token: Goes with temporary credentials.
        ca_file: PEM file of the authorities to trust; None is ``AWS_CA_BUNDLE``, or those
            that the driver brings.
        max_connections: Open at once, 1 to 1,000; as many as the transfers of a backend.
        allow_http: Without encryption even to another machine.
        create_only: False for a server that answers NotImplemented to conditional requests:
            puts then replace. Names are never used twice, so no value is lost; that one was
            used by someone else would go unnoticed.
        checksum: False for a server that refuses the checksum header. What is read is compared
            with its SHA-256 all the same.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = "s3"
    _clients: ClassVar[Shared[Options, Requests]] = Shared(connect, close)

    def __init__(
        self,
        uri: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        path_style: bool | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        ca_file: str | None = None,
        max_connections: int = 50,
        allow_http: bool = False,
        create_only: bool = True,
        checksum: bool = True,
    ) -> None:
        self._bucket, self._prefix = check_location(uri)
        options = check_options(
            endpoint_url=endpoint_url,
            region=region,
            path_style=path_style,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            ca_file=ca_file,
            max_connections=max_connections,
            allow_http=allow_http,
        )
        check_bool("create_only", create_only)
        check_bool("checksum", checksum)
        self._create_only = create_only
        self._checksum = checksum
        self._closed = False
        self._share = self._clients.share(options)

    def __repr__(self) -> str:
        return f"S3BlobStore({self.uri('')!r})"

    async def open(self) -> None:
        await self._requests()

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()

    async def put(self, path: str, data: bytes) -> None:
        requests = await self._requests()
        created = await requests.put(
            self._bucket,
            self._prefix + path,
            data,
            create_only=self._create_only,
            checksum=self._checksum,
        )
        if created:
            return
        there = await self.get(path, limit=len(data) + 1)
        if there is None:
            raise UnavailableError("s3: an object came and went while it was put", store=self.name)
        if there != data:
            raise CorruptError("s3: there is another object under this name", store=self.name)

    async def get(self, path: str, *, limit: int) -> bytes | None:
        requests = await self._requests()
        return await requests.get(self._bucket, self._prefix + path, limit)

    async def read_into(self, path: str, sink: Callable[[bytes], object]) -> bool:
        requests = await self._requests()
        return await requests.read_into(self._bucket, self._prefix + path, sink)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        requests = await self._requests()
        failed: dict[str, StoreError] = {}
        for start in range(0, len(paths), MOST_DELETED_AT_ONCE):
            keys = [self._prefix + path for path in paths[start : start + MOST_DELETED_AT_ONCE]]
            failed.update(await requests.delete(self._bucket, keys))
        return {key.removeprefix(self._prefix): exc for key, exc in failed.items()}

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        requests = await self._requests()
        page = await requests.list(self._bucket, self._prefix + prefix, None)
        while True:
            for key, byte_size, age_us in page.objects:
                yield BlobInfo(key.removeprefix(self._prefix), byte_size, age_us)
            if page.after is None:
                return
            page = await requests.list(self._bucket, self._prefix + prefix, page.after)

    def uri(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{path}"

    async def _requests(self) -> Requests:
        if self._closed:
            raise ClosedError("the s3 blob store is closed")
        return await self._share.get()
