"""The blob stores on obstore: the contract in each cloud, and what goes over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ltm_async import ObstoreGCSBlobStore, ObstoreS3BlobStore
from ltm_async.protocols import BlobStore
from ltm_async.testing import BlobStoreContract

from .azure_stores import store_on
from .servers.azurite import Azurite
from .servers.gcs import GcsServer
from .servers.ministack import MiniStack


class TestAzureBlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self, azure_server: Azurite) -> AsyncIterator[BlobStore]:
        self.server, self.container = azure_server, azure_server.new_container()
        blobs = store_on(azure_server, self.container)
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        return self.server.read(self.container, f"pre/fix/{path}")

    async def test_a_uri_has_container_and_prefix(self, blobs: BlobStore) -> None:
        assert blobs.uri("a/b") == f"az://{self.container}/pre/fix/a/b"
        assert repr(blobs) == f"AzureBlobStore('az://{self.container}/pre/fix/')"


class TestObstoreS3BlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self, s3_server: MiniStack) -> AsyncIterator[BlobStore]:
        self.client, self.bucket = s3_server.client(), s3_server.new_bucket()
        blobs = ObstoreS3BlobStore(
            f"s3://{self.bucket}/pre/fix/",
            endpoint_url=s3_server.endpoint_url,
            access_key_id=s3_server.key.access_key_id,
            secret_access_key=s3_server.key.secret_access_key,
        )
        yield blobs
        await blobs.aclose()
        self.client.close()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        try:
            found = self.client.get_object(Bucket=self.bucket, Key=f"pre/fix/{path}")
        except self.client.exceptions.NoSuchKey:
            return None
        return bytes(found["Body"].read())


class TestObstoreGCSBlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self, gcs_server: GcsServer) -> AsyncIterator[BlobStore]:
        self.server, self.bucket = gcs_server, gcs_server.new_bucket(public=False)
        blobs = ObstoreGCSBlobStore(
            f"gs://{self.bucket}/pre/fix/",
            endpoint_url=gcs_server.endpoint_url,
            token=gcs_server.new_token(),
        )
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        stored = self.server.stored(self.bucket, f"pre/fix/{path}")
        return None if stored is None else stored.data
