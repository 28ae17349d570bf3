"""Type-checked, never run: adapters fit their protocols, and methods return what they say."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from ltm_async import (
    AzureBlobStore,
    BlobStore,
    Cache,
    Catalog,
    GCSBlobStore,
    LocalBlobStore,
    LTMBackend,
    LTMError,
    MemoryBlobStore,
    MemoryCatalog,
    ObstoreGCSBlobStore,
    ObstoreS3BlobStore,
    RetryPolicy,
    S3BlobStore,
    SQLiteCatalog,
    SyncCache,
    SyncLTMBackend,
    compute_content_hash,
    create_catalog_backend,
    create_ltm_backend,
    register_actions,
)
from ltm_async.cache import CacheEntry, InvalidateResult
from ltm_async.results import (
    ChangeInfo,
    ChangesResult,
    CleanupResult,
    CollectResult,
    DeleteBatchResult,
    DeleteResult,
    DeleteSnapshotResult,
    EntryInfo,
    Failure,
    ListResult,
    RetrieveBatchResult,
    RetrieveResult,
    SnapshotResult,
    SnippetsResult,
    StatsResult,
    StoreBatchResult,
    StoreResult,
    TouchResult,
    VerifyResult,
)
from ltm_async.testing import Faults, ManualClock, faulty_blob_store, faulty_catalog


def accepts_catalog(catalog: Catalog) -> None: ...


def accepts_blob_store(blobs: BlobStore) -> None: ...


def adapters_fit_their_protocols() -> None:
    clock = ManualClock()
    accepts_catalog(SQLiteCatalog("memory.db", synchronous="NORMAL", clock=clock))
    accepts_catalog(MemoryCatalog(clock=clock))
    accepts_catalog(faulty_catalog(MemoryCatalog(), Faults()))
    accepts_blob_store(LocalBlobStore(pathlib.Path("blobs"), clock=clock))
    accepts_blob_store(MemoryBlobStore(clock=clock))
    accepts_blob_store(S3BlobStore("s3://bucket/prefix/", region="eu-west-1", path_style=True))
    accepts_blob_store(GCSBlobStore("gs://bucket/prefix/", service_file=None, max_connections=5))
    accepts_blob_store(AzureBlobStore("az://container/prefix/", account_name="me"))
    accepts_blob_store(ObstoreS3BlobStore("s3://bucket/prefix/", region="eu-west-1"))
    accepts_blob_store(ObstoreGCSBlobStore("gs://bucket/prefix/", service_file=None))
    accepts_blob_store(faulty_blob_store(MemoryBlobStore(), Faults()))


def backends_are_made_of_many_things() -> None:
    assert_type(LTMBackend("memory:", "memory:"), LTMBackend)
    assert_type(LTMBackend("sqlite:///memory.db", pathlib.Path("blobs")), LTMBackend)
    assert_type(LTMBackend({"type": "memory"}, {"uri": "memory:"}), LTMBackend)
    assert_type(LTMBackend(MemoryCatalog(), MemoryBlobStore(), on_unavailable="raise"), LTMBackend)
    assert_type(LTMBackend("memory:", "memory:", timeout=None, retry=RetryPolicy()), LTMBackend)
    assert_type(LTMBackend.from_config({"catalog": "memory:", "storage": "memory:"}), LTMBackend)
    assert_type(create_ltm_backend({"catalog": "memory:", "storage": "memory:"}), LTMBackend)
    assert_type(create_catalog_backend("sqlite", path="memory.db"), Catalog)
    assert_type(compute_content_hash({"a": 1}), str)
    LTMBackend("memory:", "memory:", on_unavailable="ignore")  # type: ignore[arg-type]
    LTMBackend("memory:", 5)  # type: ignore[arg-type]
    LTMBackend("memory:")  # type: ignore[call-arg]


class Agent(LTMBackend):
    """A subclass keeps its type."""


async def methods_return_what_they_say(ltm: LTMBackend, end: datetime) -> None:
    async with ltm as entered:
        assert_type(entered, LTMBackend)
    async with Agent("memory:", "memory:") as agent:
        assert_type(agent, Agent)
    assert_type(Agent.from_config({}), Agent)

    assert_type(await ltm.store("k", {"a": 1}, ttl=1.5, metadata={"a": 1}), StoreResult)
    assert_type(await ltm.store("k", None, expires_at=end, if_absent=True), StoreResult)
    assert_type(await ltm.store("k", 1, ttl=timedelta(days=1), if_version=3), StoreResult)
    assert_type(await ltm.retrieve("k", timeout=1), RetrieveResult)
    assert_type(await ltm.delete("k", if_version=1), DeleteResult)
    assert_type(await ltm.touch("k", ttl=1), TouchResult)
    assert_type(await ltm.update("k", lambda value: value, default=0), StoreResult)
    assert_type(await ltm.store_batch([{"key": "k", "value": 1}]), StoreBatchResult)
    assert_type(await ltm.store_batch({"key": k, "value": 1} for k in "abc"), StoreBatchResult)
    assert_type(await ltm.retrieve_batch(["k"]), RetrieveBatchResult)
    assert_type(await ltm.retrieve_batch({"k": 1}), RetrieveBatchResult)
    assert_type(await ltm.delete_batch(iter(["k"])), DeleteBatchResult)
    assert_type(await ltm.list_entries("prefix", limit=5), ListResult)
    assert_type(await ltm.cleanup_expired(5), CleanupResult)
    assert_type(await ltm.collect_garbage(dry_run=True, audit=True), CollectResult)
    assert_type(await ltm.verify(), VerifyResult)
    assert_type(await ltm.stats(), StatsResult)
    assert_type(await ltm.retrieve_snippets("tea", ["k"]), SnippetsResult)
    assert_type(await ltm.create_snapshot("n"), SnapshotResult)
    assert_type(await ltm.delete_snapshot("n"), DeleteSnapshotResult)
    assert_type(await ltm.get_changed_entries("id", limit=5), ChangesResult)
    async for change in ltm.changes(cursor="c", follow=True, poll=1):
        assert_type(change, ChangeInfo)
    assert_type(await ltm.aclose(), None)

    await ltm.store("k", 1, {}, 60)  # type: ignore[call-arg]
    await ltm.store(b"k", 1)  # type: ignore[arg-type]
    await ltm.store("k", 1, ttl="60")  # type: ignore[arg-type]
    await ltm.retrieve_batch(5)  # type: ignore[arg-type]


async def an_update_s_function_may_be_async(ltm: LTMBackend) -> None:
    async def grow(value: list[int]) -> list[int]:
        return [*value, 1]

    assert_type(await ltm.update("k", grow, default=[]), StoreResult)


async def results_have_their_fields(ltm: LTMBackend) -> None:
    hit = await ltm.retrieve("k")
    assert_type(hit.success, bool)
    assert_type(hit.found, bool)
    assert_type(hit.value, Any)
    assert_type(hit.metadata, Mapping[str, Any])
    assert_type(hit.inlined, bool)
    assert_type(hit.version, int | None)
    assert_type(hit.expires_at, datetime | None)
    assert_type(hit.content_hash, str | None)
    assert_type(hit.error, str | None)
    assert_type(hit.error_type, str | None)
    assert_type(hit.exception, LTMError | None)
    assert_type(hit.degraded, bool)
    assert_type(hit.raise_for_error(), RetrieveResult)
    assert_type(hit.to_dict(), dict[str, Any])
    hit.found = True  # type: ignore[misc]

    done = await ltm.store("k", 1)
    assert_type(done.stored, bool)
    assert_type(done.durable, bool)
    assert_type(done.storage_uri, str | None)
    assert_type(done.byte_size, int)
    assert_type(done.deduplicated, bool)

    batch = await ltm.store_batch([])
    assert_type(batch.stored, int)
    assert_type(batch.failed, int)
    assert_type(batch.errors, dict[str, Failure])

    found = await ltm.retrieve_batch([])
    assert_type(found.results, dict[str, RetrieveResult])
    assert_type(found.missing, list[str])
    assert_type(found.found, int)
    assert_type(found.errors["k"].error_type, str)

    page = await ltm.list_entries()
    assert_type(page.entries, list[EntryInfo])
    assert_type(page.cursor, str | None)

    cleaned = await ltm.cleanup_expired()
    assert_type(cleaned.deleted, int)
    checked = await ltm.verify()
    assert_type(checked.sound, bool)
    assert_type(checked.problems, dict[str, str])
    assert_type(datetime.now(UTC), datetime)


async def a_cached_function_keeps_its_type(cache: Cache, blocking: SyncCache) -> None:
    @cache.cached(ttl=60, fresh_for=timedelta(seconds=5), stale_if_error=5, ignore=["limit"])
    async def find(word: str, *, limit: int = 3) -> list[str]:
        return [word] * limit

    @cache.cached(key=lambda n: f"double/{n}")
    def double(n: int) -> float:
        return n * 2.0

    @blocking.cached(code_version=True)
    def half(n: int) -> float:
        return n / 2

    assert_type(await find("tea", limit=5), list[str])
    assert_type(double(5), float)
    assert_type(half(5), float)
    assert_type(await cache.key(find, "tea", limit=5), str)

    await find(5)  # type: ignore[arg-type]
    await find("tea", 5)  # type: ignore[call-arg]
    double("5")  # type: ignore[arg-type]
    await cache.key(find, limit=5)  # type: ignore[call-arg]
    cache.cached(ttl="60")  # type: ignore[arg-type]
    cache.cached(tll=60)  # type: ignore[call-arg]
    cache.cached(key_strategy="md5")  # type: ignore[arg-type]


async def a_cache_returns_what_it_says(ltm: LTMBackend, cache: Cache, blocking: SyncCache) -> None:
    async def find(word: str) -> str:
        return word

    assert_type(Cache(ltm, ttl=None, prefix="c:", defer=lambda work: None), Cache)
    assert_type(await cache.wrap(find, {"word": "tea"}, ttl_days=1), dict[str, Any])
    assert_type(await cache.get("k"), CacheEntry)
    assert_type(await cache.invalidate("k"), InvalidateResult)
    assert_type((await cache.invalidate(pattern="*")).deleted, int)
    assert_type(blocking.wrap(find, {"word": "tea"}, key="k"), dict[str, Any])
    assert_type(blocking.get("k"), dict[str, Any])
    Cache("memory:")  # type: ignore[arg-type]
    SyncCache(ltm)  # type: ignore[arg-type]
    await cache.wrap(find, {"word": "tea"}, ttl_days="1")  # type: ignore[arg-type]


def actions_are_registered_over_both(ltm: LTMBackend, blocking: SyncLTMBackend) -> None:
    registry: dict[str, Callable[..., Any]] = {}
    register_actions(registry, ltm, ttl=60)
    register_actions(registry, blocking, prefix="c:")
    register_actions(registry, 5)  # type: ignore[arg-type]
