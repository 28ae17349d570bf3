"""S3 blob stores for tests, on the servers of :mod:`tests.servers`."""

from __future__ import annotations

from typing import Any

from ltm_async import S3BlobStore

from .servers.ministack import Key, MiniStack

PREFIX = "pre/fix/"


def store_on(
    server: MiniStack, bucket: str | None = None, *, key: Key | None = None, **options: Any
) -> S3BlobStore:
    """A store in *bucket*, or in a new one."""
    key = key or server.key
    given = {
        "endpoint_url": server.endpoint_url,
        "region": server.region,
        "access_key_id": key.access_key_id,
        "secret_access_key": key.secret_access_key,
        "ca_file": str(server.ca_file) if server.ca_file else None,
        **options,
    }
    return S3BlobStore(f"s3://{bucket or server.new_bucket()}/{PREFIX}", **given)


def bucket_of(store: S3BlobStore) -> str:
    return store.uri("").split("/")[2]
