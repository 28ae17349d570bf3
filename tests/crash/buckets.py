"""The objects of a pair of stores, read and written around the adapters."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .operations import BucketPlace, Places


class Server(Protocol):
    """Where buckets are: what a test's process knows of it."""

    def place(self) -> BucketPlace:
        """A new bucket."""
        ...

    def read(self, bucket: str) -> Mapping[str, bytes]: ...

    def write(self, bucket: str, objects: Mapping[str, bytes]) -> None: ...


known: dict[str, Server] = {}
"""The servers of this process, by scheme."""


def objects(places: Places) -> Mapping[str, bytes]:
    if not places.bucket:
        return files_in(Path(places.folder) / "blobs")
    scheme, bucket = _split(places.bucket[0])
    return known[scheme].read(bucket)


def fill(place: BucketPlace, content: Mapping[str, bytes]) -> None:
    scheme, bucket = _split(place.uri)
    known[scheme].write(bucket, content)


def _split(uri: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(uri)
    return parts.scheme, parts.netloc


def files_in(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


class S3Buckets(Server):
    def __init__(self, server: Any) -> None:
        self._server = server
        self._client = server.client()

    def place(self) -> BucketPlace:
        key = self._server.key
        options = {
            "endpoint_url": self._server.endpoint_url,
            "region": self._server.region,
            "access_key_id": key.access_key_id,
            "secret_access_key": key.secret_access_key,
        }
        return BucketPlace(f"s3://{self._server.new_bucket()}/", options)

    def read(self, bucket: str) -> Mapping[str, bytes]:
        listed = self._client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {
            item["Key"]: self._client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            for item in listed
        }

    def write(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        for name, data in objects.items():
            self._client.put_object(Bucket=bucket, Key=name, Body=data)


class GcsBuckets(Server):
    def __init__(self, server: Any) -> None:
        self._server = server

    def place(self) -> BucketPlace:
        options = {"endpoint_url": self._server.endpoint_url}
        return BucketPlace(f"gs://{self._server.new_bucket()}/", options)

    def read(self, bucket: str) -> Mapping[str, bytes]:
        return {name: self._server.stored(bucket, name).data for name in self._server.names(bucket)}

    def write(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        for name, data in objects.items():
            self._server.put(bucket, name, data)


class AzureContainers(Server):
    def __init__(self, server: Any) -> None:
        self._server = server

    def place(self) -> BucketPlace:
        options = {
            "endpoint_url": self._server.endpoint_url,
            "account_name": self._server.account_name,
            "account_key": self._server.account_key,
        }
        return BucketPlace(f"az://{self._server.new_container()}/", options)

    def read(self, bucket: str) -> Mapping[str, bytes]:
        return {name: self._server.read(bucket, name) for name in self._server.names(bucket)}

    def write(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        for name, data in objects.items():
            self._server.put(bucket, name, data)
