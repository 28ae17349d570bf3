"""The blob stores on obstore: the contract in each cloud, and what goes over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ltm_async.protocols import BlobStore
from ltm_async.testing import BlobStoreContract

from .azure_stores import store_on
from .servers.azurite import Azurite


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
