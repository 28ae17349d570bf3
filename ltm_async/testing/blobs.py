"""What every blob store must do."""

from __future__ import annotations

import asyncio

import pytest

from ..entry import blob_path, namespace_path, new_blob_id
from ..errors import ClosedError, CorruptError
from ..protocols import BlobStore
from .hiding import refuse_hidden

SPACE = "contract"
HASH = "sha256:" + "0123456789abcdef" * 4


def new_path(namespace: str = SPACE) -> str:
    return blob_path(namespace, new_blob_id(HASH))


class BlobStoreContract:
    """Subclass it, give it the fixture ``blobs`` and ``raw_blob``; tests cannot be hidden."""

    def __init_subclass__(cls) -> None:
        refuse_hidden(cls)

    @pytest.fixture
    def blobs(self) -> BlobStore:
        raise NotImplementedError

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        """The object at *path*, read without the adapter; None when there is none."""
        raise NotImplementedError

    async def test_an_object_is_stored_whole(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"some bytes")
        assert await self.raw_blob(blobs, path) == b"some bytes"
        assert await blobs.get(path, limit=100) == b"some bytes"

    @pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_000])
    async def test_any_size_comes_back(self, blobs: BlobStore, size: int) -> None:
        path, data = new_path(), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        await blobs.put(path, data)
        assert await blobs.get(path, limit=size + 1) == data

    async def test_an_absent_object_is_none(self, blobs: BlobStore) -> None:
        assert await blobs.get(new_path(), limit=1) is None

    async def test_no_more_than_the_limit_is_read(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"0123456789")
        assert await blobs.get(path, limit=4) == b"0123"

    @pytest.mark.parametrize("size", [0, 1, 5_000_000])
    async def test_an_object_is_read_piece_by_piece(self, blobs: BlobStore, size: int) -> None:
        path, data = new_path(), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        await blobs.put(path, data)
        pieces: list[bytes] = []
        assert await blobs.read_into(path, pieces.append)
        assert b"".join(pieces) == data
        assert not await blobs.read_into(new_path(), pieces.append)

    async def test_repeating_a_put_is_harmless(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"same")
        await blobs.put(path, b"same")
        assert await self.raw_blob(blobs, path) == b"same"

    async def test_an_object_is_never_replaced(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"first")
        with pytest.raises(CorruptError):
            await blobs.put(path, b"other")
        assert await self.raw_blob(blobs, path) == b"first"

    async def test_many_at_once(self, blobs: BlobStore) -> None:
        objects = {new_path(): bytes([number]) * 1000 for number in range(100)}
        await asyncio.gather(*(blobs.put(path, data) for path, data in objects.items()))
        for path, data in objects.items():
            assert await self.raw_blob(blobs, path) == data
        found = await asyncio.gather(*(blobs.get(path, limit=2000) for path in objects))
        assert found == list(objects.values())

    async def test_deleting_reports_failures_only(self, blobs: BlobStore) -> None:
        there, absent = new_path(), new_path()
        await blobs.put(there, b"x")
        assert await blobs.delete([there, absent]) == {}
        assert await self.raw_blob(blobs, there) is None
        assert await blobs.delete([there]) == {}

    async def test_deleting_over_a_thousand(self, blobs: BlobStore) -> None:
        paths = [new_path() for _ in range(1_050)]
        await blobs.put(paths[0], b"x")
        await blobs.put(paths[-1], b"x")
        assert await blobs.delete(paths) == {}
        assert await blobs.get(paths[0], limit=1) is None
        assert await blobs.get(paths[-1], limit=1) is None

    async def test_a_scan_finds_one_namespace_only(self, blobs: BlobStore) -> None:
        mine, others = [new_path() for _ in range(3)], [new_path("other") for _ in range(2)]
        for path in (*mine, *others):
            await blobs.put(path, b"12345")
        found = [info async for info in blobs.scan(namespace_path(SPACE))]
        assert {info.path for info in found} == set(mine)
        assert {info.byte_size for info in found} == {5}
        assert all(info.age_us < 60_000_000 for info in found)

    async def test_a_scan_of_nothing(self, blobs: BlobStore) -> None:
        assert [info async for info in blobs.scan(namespace_path("empty"))] == []

    async def test_a_cancelled_put_leaves_all_or_nothing(self, blobs: BlobStore) -> None:
        data = b"y" * 100_000
        for turns in range(6):
            path = new_path()
            task = asyncio.create_task(blobs.put(path, data))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await blobs.put(new_path(), b"the one behind it")  # the cancelled one has ended
            assert await self.raw_blob(blobs, path) in (None, data)

    async def test_a_uri_names_the_object(self, blobs: BlobStore) -> None:
        path = new_path()
        assert blobs.uri(path).endswith(path)

    async def test_closing_twice_and_using_after_close(self, blobs: BlobStore) -> None:
        await blobs.open()
        await blobs.open()
        await blobs.aclose()
        await blobs.aclose()
        with pytest.raises(ClosedError):
            await blobs.get(new_path(), limit=1)
        with pytest.raises(ClosedError):
            await blobs.put(new_path(), b"x")
