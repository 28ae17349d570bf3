"""Parquet files into blob stores and out of them, on real servers."""

from __future__ import annotations

import os
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ltm_async import (
    ConfigError,
    DuckDBQueryEngine,
    GCSBlobStore,
    InvalidEntryError,
    LTMBackend,
    MemoryBlobStore,
    RetryPolicy,
    UnavailableError,
)
from ltm_async.engine.downloading import Stored, download
from ltm_async.engine.uploading import upload
from ltm_async.protocols import BlobStore

from .backends import Rig, make_rig
from .servers.azurite import Azurite
from .servers.gcs import GcsServer
from .servers.ministack import MiniStack

KINDS: list[Any] = ["a", "a/b", "../x", "ü%2F ?#&+", "q\"'\\", "", 7, None]
VALUES: dict[str, Any] = {f"k{n}": {"n": n, "text": "😀\0" * n} for n in range(len(KINDS))}


@pytest.fixture
async def rig(tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig("memory+memory", tmp_path)
    for key, kind in zip(VALUES, KINDS, strict=True):
        await rig.ltm.store(key, VALUES[key], metadata={} if kind is None else {"kind": kind})
    yield rig
    await rig.aclose()


@pytest.fixture
async def engine(rig: Rig, tmp_path: pathlib.Path) -> AsyncIterator[DuckDBQueryEngine]:
    (tmp_path / "temp").mkdir()
    async with DuckDBQueryEngine(rig.ltm, threads=2, temp_directory=tmp_path / "temp") as engine:
        yield engine


@pytest.fixture(params=["s3", "gcs", "azure"])
def uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a new bucket, whose credentials are the environment's."""
    server = request.getfixturevalue(f"{request.param}_server")
    if isinstance(server, MiniStack):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.key.secret_access_key)
        at = f"?endpoint_url={server.endpoint_url}&region={server.region}"
        return f"s3://{server.new_bucket()}/exports/{at}"
    if isinstance(server, Azurite):
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={server.account_name};"
            f"AccountKey={server.account_key};BlobEndpoint={server.endpoint_url};"
        )
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        return f"az://{server.new_container()}/exports/"
    assert isinstance(server, GcsServer)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint_url)
    return f"gs://{server.new_bucket()}/exports/"


def at(uri: str, file: str) -> str:
    """*file*, which an export named, with the options of *uri*."""
    return file + uri[uri.index("?") :] if "?" in uri else file


async def imported(source: str) -> tuple[Any, dict[str, Any]]:
    """What an import into an empty memory says, and what it has then."""
    async with (
        LTMBackend("memory:", "memory:", on_unavailable="raise") as other,
        DuckDBQueryEngine(other) as importer,
    ):
        done = await importer.import_parquet(source)
        listed = (await other.list_entries(limit=1000)).entries
        read = await other.retrieve_batch(entry.key for entry in listed)
        return done, {key: (hit.value, hit.metadata) for key, hit in read.results.items()}


@pytest.mark.parametrize("partition_by", [[], ["kind"]])
async def test_what_is_exported_to_a_bucket_comes_back_exactly(
    uri: str, rig: Rig, engine: DuckDBQueryEngine, partition_by: list[str]
) -> None:
    out = await engine.export_parquet(uri, partition_by=partition_by)
    assert (out.exported, len(out.files)) == (len(VALUES), len(VALUES) if partition_by else 1)
    done, found = await imported(uri)
    assert (done.imported, done.files, done.errors) == (len(VALUES), len(out.files), {})
    assert found == {
        key: (value, {} if kind is None else {"kind": kind})
        for (key, value), kind in zip(VALUES.items(), KINDS, strict=True)
    }
    folder = out.files[0].split("/")[4]
    if partition_by:
        levels = [file.split("/")[5] for file in out.files]
        assert sorted(levels)[:2] == ["kind=", "kind=%2E%2E%2Fx"]
        assert "kind=%C3%BC%252F%20%3F%23%26%2B" in levels
    else:
        done, _ = await imported(at(uri, out.files[0]))
        assert (done.imported, done.files) == (len(VALUES), 1)
    parent = f"{uri.partition('exports/')[0]}exports/{folder}/"
    done, again = await imported(at(uri, parent))
    assert again == found


async def test_a_bucket_without_such_files_is_named(uri: str, engine: DuckDBQueryEngine) -> None:
    with pytest.raises(InvalidEntryError, match="path has no files"):
        await engine.import_parquet(uri)
    none = at(uri, uri.partition("?")[0] + "none.parquet")
    with pytest.raises(InvalidEntryError, match=r"path has no file 'none\.parquet'"):
        await engine.import_parquet(none)


async def objects_of(store: BlobStore) -> dict[str, bytes]:
    found = {}
    async for info in store.scan(""):
        data = await store.get(info.path, limit=info.byte_size + 1)
        found[store.uri(info.path)] = data or b""
    return found


@pytest.mark.parametrize("partition_by", [[], ["part"]])
async def test_a_large_export_is_many_files(
    rig: Rig,
    engine: DuckDBQueryEngine,
    gcs_server: GcsServer,
    monkeypatch: pytest.MonkeyPatch,
    partition_by: list[str],
) -> None:
    monkeypatch.setattr("ltm_async.engine.exporting.FILE_BYTES", 200_000)
    await rig.ltm.store_batch(
        {"key": f"more:{n:05}", "value": os.urandom(60).hex(), "metadata": {"part": n % 2}}
        for n in range(20_000)
    )
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.endpoint_url)
    uri = f"gs://{gcs_server.new_bucket()}/exports/"
    out = await engine.export_parquet(uri, partition_by=partition_by, prefix="more:")
    assert (out.exported, len(out.files) > 2) == (20_000, True)
    if partition_by:
        assert {file.split("/")[-2] for file in out.files} == {"part=0", "part=1"}
    bucket = GCSBlobStore(uri)
    objects = await objects_of(bucket)
    await bucket.aclose()
    assert sorted(objects) == sorted(out.files)
    assert sum(map(len, objects.values())) == out.byte_size
    assert max(map(len, objects.values())) < 1_500_000
    done, _ = await imported(uri)
    assert (done.imported, done.files) == (20_000, len(out.files))


async def test_no_entries_make_a_file_of_none_or_no_part(
    engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    out = await engine.export_parquet(f"file://{tmp_path}/bucket", prefix="none")
    assert (out.success, out.exported, len(out.files)) == (True, 0, 1)
    out = await engine.export_parquet(
        f"file://{tmp_path}/parts", prefix="none", partition_by=["kind"]
    )
    assert (out.success, out.exported, len(out.files)) == (True, 0, 0)


async def test_a_file_uri_is_a_path(engine: DuckDBQueryEngine, tmp_path: pathlib.Path) -> None:
    out = await engine.export_parquet(f"file://{tmp_path}/bucket", partition_by=["kind"])
    assert len(out.files) == len(VALUES)
    assert {pathlib.Path(file).parents[2] for file in out.files} == {tmp_path / "bucket"}
    done, found = await imported(f"file://{tmp_path}/bucket")
    assert (done.imported, len(found)) == (len(VALUES), len(VALUES))


@pytest.mark.parametrize("uri", ["s3://UPPER/x", "ftp://x/y", "s3://bucket/x?secret=1"])
async def test_a_storage_uri_that_cannot_be_used_is_refused(
    rig: Rig, engine: DuckDBQueryEngine, uri: str
) -> None:
    before = len(rig.faults.steps)
    with pytest.raises(ConfigError):
        await engine.import_parquet(uri)
    with pytest.raises(ConfigError):
        await engine.export_parquet(uri)
    assert len(rig.faults.steps) == before


# The two ways, with a store that fails


class StaysOpen(MemoryBlobStore):
    async def aclose(self) -> None:
        pass


def write(path: pathlib.Path, data: bytes) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


async def test_an_upload_that_fails_leaves_no_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.engine.uploading.MAX_VALUE_BYTES", 400)
    files = [write(tmp_path / name, b"x" * 300 * n) for n, name in enumerate("abc")]
    store = StaysOpen()
    with pytest.raises(InvalidEntryError, match="larger than 400 bytes"):
        await upload(tmp_path, files, lambda: store, RetryPolicy())
    assert await objects_of(store) == {}


async def test_a_name_that_no_store_takes_is_refused_before_any_upload(
    tmp_path: pathlib.Path,
) -> None:
    files = [write(tmp_path / f"{name}=" / "x", b"x") for name in ("a", "b" * 200)]
    files.append(write(tmp_path / ("c" * 250 + "=") / ("d" * 240 + "=") / "x", b"x"))
    store = StaysOpen()
    with pytest.raises(InvalidEntryError, match=r"partition_by makes a name of 5.. bytes"):
        await upload(tmp_path, files, lambda: store, RetryPolicy())
    store = StaysOpen()
    await upload(tmp_path, files[:2], lambda: store, RetryPolicy())
    assert len(await objects_of(store)) == 2


class Flaky(StaysOpen):
    """Fails *failures* reads, then answers."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.asked = 0

    async def get(self, path: str, *, limit: int) -> bytes | None:
        self.asked += 1
        if self.asked <= self.failures:
            raise UnavailableError("busy", store="flaky")
        return await super().get(path, limit=limit)


def below(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir())


async def downloaded(store: BlobStore, folder: pathlib.Path, policy: RetryPolicy) -> list[bytes]:
    make: Callable[[], BlobStore] = lambda: store  # noqa: E731
    found = []
    async for _, file in download(Stored(make, None), folder, policy):
        assert [file] == below(folder), "one at a time"
        found.append(file.read_bytes())
    return found


async def test_a_download_is_tried_again_one_file_at_a_time(tmp_path: pathlib.Path) -> None:
    store = Flaky(2)
    for n in range(3):
        await store.put(f"x/{n}.parquet", bytes([n]))
    await store.put("x/other.txt", b"no")
    policy = RetryPolicy(attempts=3, base_s=0.001)
    assert await downloaded(store, tmp_path, policy) == [b"\0", b"\1", b"\2"]
    assert (store.asked, below(tmp_path)) == (5, [])


async def test_a_download_that_fails_leaves_no_file(tmp_path: pathlib.Path) -> None:
    store = Flaky(9)
    await store.put("0.parquet", b"x")
    with pytest.raises(UnavailableError):
        await downloaded(store, tmp_path, RetryPolicy(attempts=2, base_s=0.001))
    assert (store.asked, below(tmp_path)) == (2, [])


async def test_a_file_that_is_too_large_is_refused_and_no_more_of_it_is_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.engine.downloading.MAX_FILE_BYTES", 400)
    store = StaysOpen()
    await store.put("0.parquet", b"x" * 400)
    await store.put("1.parquet", b"x" * 401)
    with pytest.raises(InvalidEntryError, match=r"'1\.parquet' of more than 400 bytes"):
        await downloaded(store, tmp_path, RetryPolicy())
    assert below(tmp_path) == []


async def test_more_files_than_the_limit_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.engine.downloading.MAX_FILES", 2)
    store = StaysOpen()
    for n in range(3):
        await store.put(f"{n}.parquet", b"x")
    with pytest.raises(InvalidEntryError, match="more than 2 files"):
        await downloaded(store, tmp_path, RetryPolicy())
