"""What makes the key of a result: the action's name, its arguments, a file's content."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from ltm_async import InvalidEntryError
from ltm_async.cache import Cache
from ltm_async.cache.content import PIECE_BYTES, hash_content
from ltm_async.errors import ConfigError
from ltm_async.protocols import BlobStore

from .. import s3_stores
from ..servers.gcs import GcsServer
from ..servers.ministack import MiniStack
from .rigs import Action, CacheRig


async def key_of(caching: CacheRig, args: dict[str, Any], **options: Any) -> str:
    key = (await caching.cache.wrap(Action().run, args, name="find", **options))["_cache_key"]
    assert isinstance(key, str)
    return key


# Arguments


async def test_the_order_of_arguments_does_not_matter(caching: CacheRig) -> None:
    key = await key_of(caching, {"b": [1, {"z": None, "a": True}], "a": 1.5})
    assert key == 'cache:find:{"a":1.5,"b":[1,{"a":true,"z":null}]}'
    assert key == await key_of(caching, {"a": 1.5, "b": [1, {"a": True, "z": None}]})


async def test_what_json_tells_apart_is_told_apart(caching: CacheRig) -> None:
    values = [1, 1.0, "1", True, None, "null", [], {}, "", [1], ["1"], "é", "e\u0301", "\0"]
    keys = [await key_of(caching, {"a": value}) for value in values]
    assert len(set(keys)) == len(values)


async def test_ignored_arguments_do_not_count_and_need_not_be_json(caching: CacheRig) -> None:
    one = await key_of(caching, {"q": "tea", "client": object()}, ignore=["client"])
    assert one == await key_of(caching, {"q": "tea", "client": 5}, ignore={"client", "other"})
    assert one == 'cache:find:{"q":"tea"}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "argument 'b' has a set"),
        (datetime.now(UTC), "argument 'b' has a datetime"),
        ((1, 2), "argument 'b' has a tuple"),
        (float("nan"), "argument 'b' has NaN"),
        ([{"c": b"x"}], "argument 'b' has a bytes"),
        ({1: 2}, "argument 'b' has a dict key that is not str"),
    ],
)
@pytest.mark.parametrize("strategy", ["args", "sha256"])
async def test_an_argument_that_is_no_json_is_named(
    caching: CacheRig, value: Any, said: str, strategy: Any
) -> None:
    action = Action()
    with pytest.raises(InvalidEntryError, match=said):
        await caching.cache.wrap(action.run, {"a": 1, "b": value, "c": 2}, key_strategy=strategy)
    assert (action.runs, caching.steps) == (0, [])


async def test_a_key_over_the_limit_becomes_a_hash(caching: CacheRig) -> None:
    room = 1024 - len('cache:find:{"a":""}')
    assert len(await key_of(caching, {"a": "x" * room})) == 1024
    key = await key_of(caching, {"a": "x" * (room + 1)})
    text = '{"a":"' + "x" * (room + 1) + '"}'
    assert key == f"cache:find:sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    assert await key_of(caching, {"a": "é" * room}) != await key_of(caching, {"a": "è" * room})


async def test_the_strategy_sha256_hashes_all_arguments_or_the_one_named(
    caching: CacheRig,
) -> None:
    everything = await key_of(caching, {"a": 1, "b": 2}, key_strategy="sha256")
    digest = hashlib.sha256(b'{"a":1,"b":2}').hexdigest()
    assert everything == f"cache:find:sha256:{digest}"
    one = await key_of(caching, {"a": 1, "b": 2}, key_strategy="sha256", key_source="a")
    assert one == await key_of(caching, {"a": 1, "b": 3}, key_strategy="sha256", key_source="a")
    assert one != everything
    with pytest.raises(InvalidEntryError, match="no 'z', which key_source names"):
        await key_of(caching, {"a": 1}, key_strategy="sha256", key_source="z")


async def test_a_custom_key_is_the_whole_key(caching: CacheRig) -> None:
    assert await key_of(caching, {"a": 1}, key="mine") == "mine"
    assert await key_of(caching, {"a": 1}, key="mine", key_strategy="custom") == "mine"
    assert await key_of(caching, {"a": 1, "b": 2}, key=lambda a, **_: f"user:{a}") == "user:1"


@pytest.mark.parametrize("key", ["", "x" * 1025, "a\0b", lambda **_: 5, lambda **_: ""])
async def test_a_bad_custom_key_is_refused(caching: CacheRig, key: Any) -> None:
    with pytest.raises(InvalidEntryError, match="key"):
        await key_of(caching, {"a": 1}, key=key)
    assert caching.steps == []


async def test_caches_with_other_prefixes_keep_apart(caching: CacheRig) -> None:
    action = Action()
    for prefix in ("a:", "b:"):
        cache = Cache(caching.rig.ltm, prefix=prefix, cleanup_probability=0)
        told = await cache.wrap(action.run)
        assert told["_cache_key"].startswith(prefix)
    assert action.runs == 2


# Names


class Client:
    async def find(self) -> int:
        return 1

    async def __call__(self) -> int:
        return 1


async def test_a_method_is_named_by_its_class(caching: CacheRig) -> None:
    told = await caching.cache.wrap(Client().find)
    assert told["_cache_key"] == "cache:tests.cache.test_keys.Client.find:{}"


@pytest.mark.parametrize(
    "action",
    [lambda: 1, functools.partial(print, 1), Client()],
    ids=["lambda", "partial", "object"],
)
async def test_what_has_no_name_of_its_own_needs_one(caching: CacheRig, action: Any) -> None:
    with pytest.raises(ConfigError, match="pass name="):
        await caching.cache.wrap(action)
    told = await caching.cache.wrap(action, name="mine")
    assert told["_cache_key"] == "cache:mine:{}"


# The version of the code

FUNCTION = """
import asyncio
from ltm_async import Cache, LTMBackend

async def find(word):
    return [word for one in {WORDS} if one in {{"a", "b", "c", "tea", "mate"}}]

async def main():
    cache = Cache(LTMBackend("memory:", "memory:"))
    told = await cache.wrap(find, {{"word": "tea"}}, code_version=True)
    print(told["_cache_key"])

asyncio.run(main())
"""


def key_in_a_process(words: str, seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FUNCTION.format(WORDS=words)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_code_s_version_changes_with_the_code_and_with_nothing_else() -> None:
    key = key_in_a_process("(1, 2)", "1")
    assert key.startswith("cache:__main__.find@")
    assert key == key_in_a_process("(1, 2)", "2")
    assert key == key_in_a_process("(1,\n\n    2)", "3")
    assert key != key_in_a_process("(1, 3)", "1")


async def test_a_version_of_one_s_own_is_part_of_the_key(caching: CacheRig) -> None:
    assert await key_of(caching, {}, code_version="2") == "cache:find@2:{}"
    with pytest.raises(ConfigError, match="code_version needs a Python function"):
        await caching.cache.wrap(len, {}, code_version=True)


# The content of files


async def test_the_content_counts_and_not_the_name_of_its_file(
    caching: CacheRig, tmp_path: pathlib.Path
) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("tea")
    other.write_text("tea")
    options: dict[str, Any] = {"key_strategy": "file_content"}
    key = await key_of(caching, {"file": str(one)}, **options)
    assert key == f"cache:find:file:{hashlib.sha256(b'tea').hexdigest()}"
    assert key == await key_of(caching, {"file": other}, **options)
    assert key == await key_of(caching, {"file": f"file://{other}"}, **options)
    other.write_text("mate")
    assert key != await key_of(caching, {"file": str(other)}, **options)


async def test_the_other_arguments_count_beside_the_content(
    caching: CacheRig, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "file"
    file.write_text("tea")
    options: dict[str, Any] = {"key_strategy": "file_content", "key_source": "path"}
    keys = {
        await key_of(caching, {"path": str(file), "language": language}, **options)
        for language in ("en", "de", "en")
    }
    assert len(keys) == 2
    with pytest.raises(InvalidEntryError, match="no 'path', which key_source names"):
        await key_of(caching, {"file": str(file)}, **options)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "argument 'file' is not there"),
        ("folder", "argument 'file' is no plain file"),
        ("pipe", "argument 'file' is no plain file"),
        ("a\0b", "argument 'file' is no path"),
        ("", "argument 'file' is no path"),
        ("\ud800", "argument 'file' is no path"),
        (5, "argument 'file' must be a path or a storage URI, not int"),
        (b"file", "argument 'file' is no path"),
        ("ftp://host/file", "argument 'file' has an unknown scheme; there are"),
        ("memory://file", "argument 'file' has an unknown scheme; there are"),
        ("s3://bucket", "argument 'file' must be s3://bucket/key"),
        ("s3://bucket/", "argument 'file' must be s3://bucket/key"),
        ("s3://bucket/a?endpoint_url=https://evil/b", "question mark"),
        ("s3://BAD/key", "argument 'file' cannot be used"),
    ],
)
async def test_what_is_no_file_is_refused_by_name(
    caching: CacheRig, tmp_path: pathlib.Path, path: Any, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    if path in {"nothing", "folder", "pipe"}:
        path = str(tmp_path / path)
    with pytest.raises(InvalidEntryError, match=said):
        await key_of(caching, {"file": path}, key_strategy="file_content")


async def test_no_variable_of_the_environment_is_put_into_a_location(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary-9b3e")
    with pytest.raises(InvalidEntryError) as caught:
        await key_of(caching, {"file": "s3://${CANARY}/key"}, key_strategy="file_content")
    assert "canary" not in str(caught.value)


async def test_a_store_of_files_that_is_down_does_not_fail_the_action(
    caching: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"s3": {"endpoint_url": "http://127.0.0.1:1", "access_key_id": "a",
                      "secret_access_key": "b"}}  # fmt: skip
    cache = Cache(caching.rig.ltm, storage=options)
    action = Action()
    told = await cache.wrap(action.run, {"file": "s3://bucket/key"}, key_strategy="file_content")
    assert (told["run"], told["_cache_hit"], told["_cache_key"], action.runs) == (1, False, None, 1)
    assert "going on without the cache" in caplog.text


@contextlib.asynccontextmanager
async def s3_place(server: MiniStack) -> Any:
    store = s3_stores.store_on(server)
    yield store, store.uri("")
    await store.aclose()


async def check_hashes(store: BlobStore, uri: str, storage: Any) -> None:
    data = os.urandom(5 * PIECE_BYTES + 17)
    for name, content in (("large file", data), ("empty", b""), ("a?b#c%20é", b"x")):
        await store.put(name, content)
        found = await hash_content(uri + name, storage=storage)
        assert found.content_hash == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert found.byte_size == len(content)
    with pytest.raises(InvalidEntryError, match="path is not there: no such object"):
        await hash_content(uri + "nothing", storage=storage)


async def test_an_object_of_s3_is_hashed(s3_server: MiniStack) -> None:
    async with s3_place(s3_server) as (store, uri):
        options = {
            "endpoint_url": s3_server.endpoint_url,
            "region": s3_server.region,
            "access_key_id": s3_server.key.access_key_id,
            "secret_access_key": s3_server.key.secret_access_key,
        }
        await check_hashes(store, uri, {"s3": options})


async def test_an_object_of_gcs_is_hashed(gcs_server: GcsServer) -> None:
    from ltm_async import GCSBlobStore

    uri = f"gs://{gcs_server.new_bucket()}/in/"
    store = GCSBlobStore(uri, endpoint_url=gcs_server.endpoint_url)
    await check_hashes(store, uri, {"gs": {"endpoint_url": gcs_server.endpoint_url}})
    await store.aclose()


async def test_a_store_without_streams_reads_an_object_at_once(tmp_path: pathlib.Path) -> None:
    from ltm_async import MemoryBlobStore, StoreError

    store = MemoryBlobStore()
    await store.put("a", b"tea")
    pieces: list[bytes] = []
    assert await store.read_into("a", pieces.append)
    assert pieces == [b"tea"]
    assert not await store.read_into("b", pieces.append)
    await store.put("large", bytes(64 * 1024 * 1024 + 1))
    with pytest.raises(StoreError, match="too large to be read at once"):
        await store.read_into("large", pieces.append)


async def test_hashing_a_file_keeps_to_a_bounded_memory(tmp_path: pathlib.Path) -> None:
    """128 MiB, of which nothing is kept."""
    import tracemalloc

    file = tmp_path / "file"
    with file.open("wb") as out:
        out.truncate(128 * 1024 * 1024)
    tracemalloc.start()
    try:
        found = await hash_content(str(file), storage={})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.byte_size == 128 * 1024 * 1024
    assert peak < 4 * PIECE_BYTES
