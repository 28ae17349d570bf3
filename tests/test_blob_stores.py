"""The contract of blob stores, on ours."""

from __future__ import annotations

import asyncio
import os
import pathlib
import stat
import threading
from collections.abc import AsyncIterator

import pytest

from ltm_async import LocalBlobStore, MemoryBlobStore
from ltm_async.entry import namespace_path
from ltm_async.errors import AccessDeniedError, ConfigError, CorruptError, UnavailableError
from ltm_async.protocols import BlobStore
from ltm_async.testing import BlobStoreContract, ManualClock
from ltm_async.testing.blobs import SPACE, new_path


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self, tmp_path: pathlib.Path) -> AsyncIterator[BlobStore]:
        self.root = tmp_path / "not" / "there yet"
        blobs = LocalBlobStore(self.root)
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        file = self.root / path
        return file.read_bytes() if file.exists() else None

    async def test_files_are_for_their_owner_alone(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"private")
        assert stat.S_IMODE((self.root / path).stat().st_mode) == 0o600
        assert stat.S_IMODE((self.root / path).parent.stat().st_mode) == 0o700

    async def test_a_put_leaves_one_file(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"x")
        await blobs.put(path, b"x")
        with pytest.raises(CorruptError):
            await blobs.put(path, b"y")
        assert os.listdir((self.root / path).parent) == [path.rpartition("/")[2]]

    async def test_a_removed_folder_is_made_again(self, blobs: BlobStore) -> None:
        first, second = new_path(), new_path()
        await blobs.put(first, b"x")
        (self.root / first).unlink()
        (self.root / first).parent.rmdir()
        await blobs.put(second, b"y")
        assert await self.raw_blob(blobs, second) == b"y"

    async def test_a_link_is_not_followed(self, blobs: BlobStore) -> None:
        path, secret = new_path(), self.root.parent / "secret"
        await blobs.put(new_path(), b"makes the folder")
        secret.write_bytes(b"secret")
        (self.root / path).symlink_to(secret)
        with pytest.raises(CorruptError):
            await blobs.get(path, limit=100)
        with pytest.raises(CorruptError):
            await blobs.put(path, b"secret")
        assert secret.read_bytes() == b"secret"

    @pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "..\\up"])
    async def test_a_path_that_leads_out_is_refused(self, blobs: BlobStore, path: str) -> None:
        with pytest.raises(CorruptError):
            await blobs.get(path, limit=1)
        with pytest.raises(CorruptError):
            await blobs.put(path, b"x")
        assert list(await blobs.delete([path])) == [path]

    async def test_an_object_that_cannot_be_deleted_is_reported(self, blobs: BlobStore) -> None:
        good, folder = new_path(), new_path()
        await blobs.put(good, b"x")
        (self.root / folder).mkdir()
        failed = await blobs.delete([folder, good])
        assert list(failed) == [folder]
        assert isinstance(failed[folder], (UnavailableError, AccessDeniedError))
        assert await self.raw_blob(blobs, good) is None

    async def test_unfinished_files_are_seen_by_a_scan(self, blobs: BlobStore) -> None:
        path = new_path()
        await blobs.put(path, b"x")
        (self.root / f"{path}.0011.part").write_bytes(b"half")
        found = {info.path async for info in blobs.scan(namespace_path(SPACE))}
        assert found == {path, f"{path}.0011.part"}


class TestMemoryBlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self) -> AsyncIterator[BlobStore]:
        blobs = MemoryBlobStore()
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        assert isinstance(blobs, MemoryBlobStore)
        held = blobs._objects.get(path)
        return None if held is None else held[0]


async def test_age_is_by_the_stores_clock() -> None:
    clock = ManualClock()
    blobs = MemoryBlobStore(clock=clock)
    await blobs.put(new_path(), b"x")
    clock.advance(3)
    (info,) = [info async for info in blobs.scan(namespace_path(SPACE))]
    assert info.age_us == 3_000_000


async def test_age_of_a_file_is_by_its_modification(tmp_path: pathlib.Path) -> None:
    clock = ManualClock()
    blobs = LocalBlobStore(tmp_path, clock=clock)
    path = new_path()
    await blobs.put(path, b"x")
    os.utime(tmp_path / path, (clock() / 1e6 - 60, clock() / 1e6 - 60))
    (info,) = [info async for info in blobs.scan(namespace_path(SPACE))]
    assert 59_000_000 < info.age_us < 61_000_000
    await blobs.aclose()


@pytest.mark.parametrize("root", ["", "a\0b"])
def test_a_root_that_is_no_folder_is_refused(root: str) -> None:
    with pytest.raises(ConfigError):
        LocalBlobStore(root)


async def test_a_group_of_files_is_synced_before_it_is_named_and_its_folder_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What survives a power loss cannot be tried here; the order of the calls can be seen."""
    calls: list[str] = []
    sync, link = os.fsync, os.link
    all_wait = threading.Event()

    def traced_sync(descriptor: int) -> None:
        all_wait.wait(10)
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("sync folder" if folder else "sync file")
        sync(descriptor)

    def traced_link(source: str, target: str) -> None:
        calls.append("link")
        link(source, target)

    blobs = LocalBlobStore(tmp_path)
    await blobs.put(new_path(), b"makes the folder")
    monkeypatch.setattr(os, "fsync", traced_sync)
    monkeypatch.setattr(os, "link", traced_link)
    puts = [asyncio.create_task(blobs.put(new_path(), b"x")) for _ in range(20)]
    await asyncio.sleep(0)
    all_wait.set()
    await asyncio.gather(*puts)
    assert [call for call in calls if call != "sync folder"] == ["sync file", "link"] * 20
    assert calls.count("sync folder") <= 2  # one for the first, one for those behind it
    assert calls[-1] == "sync folder"
    await blobs.aclose()
