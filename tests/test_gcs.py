"""GCSBlobStore on a GCS: the contract, and what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ltm_async import GCSBlobStore
from ltm_async.protocols import BlobStore
from ltm_async.testing import BlobStoreContract

from .servers.gcs import GcsServer


class TestGCSBlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self, gcs_server: GcsServer) -> AsyncIterator[BlobStore]:
        self.server, self.bucket = gcs_server, gcs_server.new_bucket()
        blobs = GCSBlobStore(
            f"gs://{self.bucket}/some/prefix/", endpoint_url=gcs_server.endpoint_url
        )
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        stored = self.server.stored(self.bucket, f"some/prefix/{path}")
        return None if stored is None else stored.data
