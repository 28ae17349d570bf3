"""The objects of buckets, read and written around the adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Server(Protocol):
    """Where buckets are: what a test's process knows of it."""

    def place(self) -> tuple[str, Mapping[str, Any]]:
        """The URI of a new bucket, and the options to reach it with."""
        ...

    def read(self, bucket: str) -> Mapping[str, bytes]: ...

    def write(self, bucket: str, name: str, data: bytes) -> None: ...

    def delete(self, bucket: str, name: str) -> None: ...


known: dict[str, Server] = {}
"""The servers of this process, by scheme."""


def restore(server: Server, bucket: str, content: Mapping[str, bytes]) -> None:
    """Have *bucket* hold *content* and nothing else."""
    there = server.read(bucket)
    for name in there.keys() - content.keys():
        server.delete(bucket, name)
    for name, data in content.items():
        if there.get(name) != data:
            server.write(bucket, name, data)


class S3Buckets(Server):
    def __init__(self, server: Any) -> None:
        self._server = server
        self._client = server.client()
        self._read: dict[str, bytes] = {}
        """By the MD5 of the content, which S3 lists as the ETag of what was put at once."""

    def place(self) -> tuple[str, Mapping[str, Any]]:
        key = self._server.key
        options = {
            "endpoint_url": self._server.endpoint_url,
            "region": self._server.region,
            "access_key_id": key.access_key_id,
            "secret_access_key": key.secret_access_key,
        }
        return f"s3://{self._server.new_bucket()}/", options

    def read(self, bucket: str) -> Mapping[str, bytes]:
        listed = self._client.list_objects_v2(Bucket=bucket).get("Contents", [])
        for item in listed:
            if item["ETag"] not in self._read:
                got = self._client.get_object(Bucket=bucket, Key=item["Key"])
                self._read[item["ETag"]] = got["Body"].read()
        return {item["Key"]: self._read[item["ETag"]] for item in listed}

    def write(self, bucket: str, name: str, data: bytes) -> None:
        self._client.put_object(Bucket=bucket, Key=name, Body=data)

    def delete(self, bucket: str, name: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=name)


class GcsBuckets(Server):
    def __init__(self, server: Any) -> None:
        self._server = server

    def place(self) -> tuple[str, Mapping[str, Any]]:
        return f"gs://{self._server.new_bucket()}/", {"endpoint_url": self._server.endpoint_url}

    def read(self, bucket: str) -> Mapping[str, bytes]:
        return {name: self._server.stored(bucket, name).data for name in self._server.names(bucket)}

    def write(self, bucket: str, name: str, data: bytes) -> None:
        self._server.put(bucket, name, data)

    def delete(self, bucket: str, name: str) -> None:
        self._server.remove(bucket, name)


class AzureContainers(Server):
    def __init__(self, server: Any) -> None:
        self._server = server
        self._read: dict[str, bytes] = {}
        """By the MD5 of the content."""

    def place(self) -> tuple[str, Mapping[str, Any]]:
        options = {
            "endpoint_url": self._server.endpoint_url,
            "account_name": self._server.account_name,
            "account_key": self._server.account_key,
        }
        return f"az://{self._server.new_container()}/", options

    def read(self, bucket: str) -> Mapping[str, bytes]:
        listed = self._server.listed(bucket)
        for name, md5 in listed:
            if md5 not in self._read:
                self._read[md5] = self._server.read(bucket, name)
        return {name: self._read[md5] for name, md5 in listed}

    def write(self, bucket: str, name: str, data: bytes) -> None:
        self._server.put(bucket, name, data)

    def delete(self, bucket: str, name: str) -> None:
        self._server.remove(bucket, name)
