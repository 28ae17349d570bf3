"""LTMBackend: one entry at a time, on every pair of stores."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ltm_async import (
    ClosedError,
    ConflictError,
    CorruptError,
    LTMBackend,
    SQLiteCatalog,
    UnavailableError,
    compute_content_hash,
)
from ltm_async.testing import Faults, Mode

from .backends import PAIRS, Rig, make_rig
from .servers.firestore import reads_between_commits

LARGE = {"text": "ü" * 2_000}


@pytest.fixture(params=[*PAIRS, "supabase+s3"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    found = await rig.ltm.verify()
    assert found.problems == {}
    await rig.aclose()


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, 1.5, "tea", [{"a": [None]}], LARGE])
async def test_a_value_comes_back_as_it_was(rig: Rig, value: Any) -> None:
    stored = await rig.ltm.store("k", value, metadata={"a": {"b": 1}})
    hit = await rig.ltm.retrieve("k")
    assert (hit.success, hit.found, hit.value, hit.metadata) == (True, True, value, {"a": {"b": 1}})
    assert hit.key == stored.key == "k"
    assert type(hit.value) is type(value)
    assert stored.content_hash == hit.content_hash == compute_content_hash(value)
    assert (stored.version, stored.byte_size) == (hit.version, hit.byte_size)
    assert stored.inlined == hit.inlined == (value is not LARGE)
    assert (stored.stored, stored.durable, stored.degraded) == (True, True, False)


async def test_a_missing_key_is_not_found(rig: Rig) -> None:
    miss = await rig.ltm.retrieve("absent")
    assert (miss.success, miss.found, miss.value, miss.version) == (True, False, None, None)
    assert miss.key == "absent"


async def test_a_large_value_is_an_object(rig: Rig) -> None:
    stored = await rig.ltm.store("k", LARGE)
    (path,) = await rig.objects()
    assert stored.storage_uri == rig.blobs.uri(path)
    small = await rig.ltm.store("s", 1)
    assert small.storage_uri is None


@pytest.mark.parametrize(("first", "second"), [(LARGE, 1), (1, LARGE), (LARGE, ["x" * 5_000])])
async def test_the_last_write_counts(rig: Rig, first: Any, second: Any) -> None:
    before = await rig.ltm.store("k", first)
    after = await rig.ltm.store("k", second, metadata={"n": 2})
    assert after.version is not None and before.version is not None
    assert after.version > before.version
    hit = await rig.ltm.retrieve("k")
    assert (hit.value, hit.metadata) == (second, {"n": 2})
    await rig.ltm.collect_garbage()
    assert len(await rig.objects()) == (second != 1)


async def test_the_same_large_value_is_not_uploaded_again(rig: Rig) -> None:
    first = await rig.ltm.store("k", LARGE, ttl=5)
    rig.faults.steps.clear()
    again = await rig.ltm.store("k", LARGE, metadata={"seen": 2}, ttl=50)
    assert rig.faults.steps == ["catalog.reserve_blobs", "catalog.track_entries_batch"]
    assert (again.deduplicated, again.storage_uri) == (True, first.storage_uri)
    assert first.expires_at is not None and again.expires_at is not None
    assert again.expires_at - first.expires_at == timedelta(seconds=45)
    hit = await rig.ltm.retrieve("k")
    assert (hit.value, hit.metadata, hit.version) == (LARGE, {"seen": 2}, again.version)


async def test_the_same_small_value_is_known_too(rig: Rig) -> None:
    assert not (await rig.ltm.store("k", 1)).deduplicated
    assert (await rig.ltm.store("k", 1)).deduplicated
    assert not (await rig.ltm.store("k", 2)).deduplicated


async def test_round_trips_are_few(rig: Rig) -> None:
    await rig.ltm.store("s", 1)
    await rig.ltm.store("l", LARGE)
    assert rig.faults.steps == [
        "catalog.track_entries_batch",
        "catalog.reserve_blobs",
        "blobs.put",
        "catalog.track_entries_batch",
    ]
    rig.faults.steps.clear()
    await rig.ltm.retrieve("s")
    await rig.ltm.retrieve("l")
    assert rig.faults.steps == ["catalog.get_entries_batch"] * 2 + ["blobs.get"]
    rig.faults.steps.clear()
    await rig.ltm.delete("s")
    await rig.ltm.delete("l")
    assert rig.faults.steps == ["catalog.delete_entries_batch"] * 2 + [
        "blobs.delete",
        "catalog.forget_blobs",
    ]


# Compare-and-swap


async def test_if_absent_stores_once(rig: Rig) -> None:
    await rig.ltm.store("k", 1, if_absent=True)
    with pytest.raises(ConflictError) as caught:
        await rig.ltm.store("k", 2, if_absent=True)
    assert caught.value.version == (await rig.ltm.retrieve("k")).version
    assert (await rig.ltm.retrieve("k")).value == 1


async def test_if_version_replaces_that_version_only(rig: Rig) -> None:
    first = await rig.ltm.store("k", LARGE)
    second = await rig.ltm.store("k", [LARGE], if_version=first.version)
    with pytest.raises(ConflictError):
        await rig.ltm.store("k", [LARGE, LARGE], if_version=first.version)
    assert (await rig.ltm.retrieve("k")).version == second.version
    rig.clock.advance(3_600)
    await rig.ltm.collect_garbage()
    assert len(await rig.objects()) == 1


async def test_an_expired_entry_is_absent_to_compare_and_swap(rig: Rig) -> None:
    old = await rig.ltm.store("k", 1, ttl=1)
    rig.clock.advance(1)
    with pytest.raises(ConflictError):
        await rig.ltm.store("k", 2, if_version=old.version)
    assert (await rig.ltm.store("k", 2, if_absent=True)).stored


async def test_deleting_one_version_only(rig: Rig) -> None:
    old = await rig.ltm.store("k", 1)
    new = await rig.ltm.store("k", 2)
    with pytest.raises(ConflictError):
        await rig.ltm.delete("k", if_version=old.version)
    assert (await rig.ltm.delete("k", if_version=new.version)).deleted
    with pytest.raises(ConflictError):
        await rig.ltm.delete("k", if_version=new.version)


async def test_updates_of_many_tasks_all_count(rig: Rig) -> None:
    await asyncio.gather(*(rig.ltm.update("n", lambda n: n + 1, default=0) for _ in range(20)))
    assert (await rig.ltm.retrieve("n")).value == 20


async def test_an_update_may_be_async_and_keeps_the_rest(rig: Rig) -> None:
    await rig.ltm.store("k", ["a"], metadata={"m": 1}, ttl=100)
    before = await rig.ltm.retrieve("k")

    async def append(value: list[str]) -> list[str]:
        await asyncio.sleep(0)
        return [*value, "b"]

    await rig.ltm.update("k", append)
    after = await rig.ltm.retrieve("k")
    assert (after.value, after.metadata) == (["a", "b"], {"m": 1})
    assert after.expires_at == before.expires_at
    await rig.ltm.update("k", append, metadata={}, ttl=5)
    assert (await rig.ltm.retrieve("k")).metadata == {}
    rig.clock.advance(5)
    assert not (await rig.ltm.retrieve("k")).found


async def test_an_update_tells_null_from_nothing(rig: Rig) -> None:
    await rig.ltm.store("null", None)
    for key in ("null", "absent"):
        await rig.ltm.update(key, lambda value: [value], default="default")
    assert (await rig.ltm.retrieve("null")).value == [None]
    assert (await rig.ltm.retrieve("absent")).value == ["default"]


async def test_an_update_that_is_overtaken_starts_again_from_what_is_there(rig: Rig) -> None:
    await rig.ltm.store("n", 1)
    seen: list[int] = []

    async def add(n: int) -> int:
        seen.append(n)
        if n == 1:
            await rig.ltm.store("n", 10)
        return n + 1

    await rig.ltm.update("n", add)
    assert seen == [1, 10]
    assert (await rig.ltm.retrieve("n")).value == 11


async def test_an_update_waits_below_a_limit_that_doubles_each_time_it_is_overtaken(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig("memory+memory", tmp_path)
    drawn: list[tuple[float, float]] = []
    slept: list[float] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 2

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def overtaken(n: int) -> int:
        if n < 9:
            await rig.ltm.store("n", n + 1)
        return n

    monkeypatch.setattr("ltm_async.updating.random.uniform", draw)
    monkeypatch.setattr("ltm_async.updating.asyncio.sleep", sleep)
    await rig.ltm.update("n", overtaken, default=0)
    limits = [0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.2, 0.2, 0.2]
    assert drawn == [(0, limit) for limit in limits]
    assert slept == [limit / 2 for limit in limits]
    await rig.aclose()


async def test_an_update_that_raises_changes_nothing(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    with pytest.raises(ZeroDivisionError):
        await rig.ltm.update("k", lambda n: n / 0)
    assert (await rig.ltm.retrieve("k")).value == 1


# Time


@pytest.mark.parametrize("value", [1, LARGE])
@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)])
async def test_an_entry_is_gone_from_its_end_on(rig: Rig, value: Any, ttl: Any) -> None:
    await rig.ltm.store("k", value, ttl=ttl)
    rig.clock.advance(9.999_999)
    assert (await rig.ltm.retrieve("k")).found
    rig.clock.advance(0.000_001)
    assert not (await rig.ltm.retrieve("k")).found
    assert not (await rig.ltm.delete("k")).deleted


async def test_an_end_in_any_time_zone(rig: Rig) -> None:
    ends = datetime.fromtimestamp(rig.clock() / 1e6, UTC) + timedelta(hours=1)
    local = ends.astimezone(timezone(timedelta(hours=5, minutes=30)))
    stored = await rig.ltm.store("k", 1, expires_at=local)
    assert stored.expires_at == (await rig.ltm.retrieve("k")).expires_at == ends
    rig.clock.advance(3_600)
    assert not (await rig.ltm.retrieve("k")).found


async def test_touching(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE, ttl=10, metadata={"a": 1})
    rig.faults.steps.clear()
    touched = await rig.ltm.touch("k", ttl=100)
    assert rig.faults.steps == ["catalog.touch_entry"]
    rig.clock.advance(50)
    hit = await rig.ltm.retrieve("k")
    assert (hit.value, hit.metadata, hit.expires_at) == (LARGE, {"a": 1}, touched.expires_at)
    assert (await rig.ltm.touch("k", metadata={"b": 2})).expires_at is None
    rig.clock.advance(1e9)
    hit = await rig.ltm.retrieve("k")
    assert (hit.found, hit.metadata) == (True, {"b": 2})
    absent = await rig.ltm.touch("absent", ttl=1)
    assert (absent.success, absent.touched) == (True, False)


async def test_cleanup_deletes_expired_entries_and_their_blobs(rig: Rig) -> None:
    for number in range(5):
        await rig.ltm.store(f"small{number}", number, ttl=1)
        await rig.ltm.store(f"large{number}", [number, LARGE], ttl=1)
    await rig.ltm.store("stays", LARGE, ttl=100)
    rig.clock.advance(2)
    first = await rig.ltm.cleanup_expired(4)
    second = await rig.ltm.cleanup_expired()
    assert (first.deleted, second.deleted, first.success, first.errors) == (4, 6, True, [])
    assert first.blobs_deleted + second.blobs_deleted == 5
    assert len(await rig.objects()) == 1
    assert (await rig.ltm.stats()).expired == 0


async def test_cleanup_collects_what_was_replaced(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    await rig.ltm.store("k", 1)
    done = await rig.ltm.cleanup_expired()
    assert (done.deleted, done.blobs_deleted) == (0, 1)
    assert await rig.objects() == set()


async def test_a_blob_that_cannot_be_deleted_waits(rig: Rig, tmp_path: pathlib.Path) -> None:
    await rig.ltm.store("k", LARGE, ttl=1)
    rig.clock.advance(1)
    rig.faults.at, rig.faults.mode = len(rig.faults.steps) + 1, Mode.DOWN
    done = await rig.ltm.delete("k")
    assert (done.success, done.deleted) == (True, False)
    rig.faults.at = None
    assert len(await rig.objects()) == 1
    assert (await rig.ltm.collect_garbage()).deleted == 1
    assert await rig.objects() == set()


async def test_a_collection_can_be_tried_dry(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    await rig.ltm.store("k", 1)
    dry = await rig.ltm.collect_garbage(dry_run=True)
    assert (dry.deleted, dry.dry_run, len(await rig.objects())) == (1, True, 1)
    wet = await rig.ltm.collect_garbage()
    assert (wet.deleted, wet.byte_size) == (1, dry.byte_size)
    assert (await rig.ltm.collect_garbage()).deleted == 0


async def test_a_collection_stops_at_its_limit(rig: Rig) -> None:
    for number in range(4):
        await rig.ltm.store("k", [number, LARGE])
    assert (await rig.ltm.collect_garbage(limit=2)).deleted == 2
    assert (await rig.ltm.collect_garbage(limit=2)).deleted == 1


async def test_an_audit_finds_what_the_ledger_lost(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    (named,) = await rig.objects()
    stray = named[:-4] + "zzzz"
    await rig.blobs.put(stray, b"landed late")
    assert (await rig.ltm.verify()).strays == 1
    assert (await rig.ltm.collect_garbage(audit=True)).deleted == 0  # not seven days old
    soon = timedelta(0)
    assert (await rig.ltm.collect_garbage(audit=True, stray_age=soon, dry_run=True)).deleted == 1
    assert (await rig.ltm.collect_garbage(audit=True, stray_age=soon)).deleted == 1
    assert await rig.objects() == {named}


# Listing


async def test_pages_of_a_listing(rig: Rig) -> None:
    entries = [{"key": f"p/{n:02}", "value": n, "metadata": {"n": n}} for n in range(25)]
    await rig.ltm.store_batch([*entries, {"key": "other", "value": LARGE}])
    found, cursor, pages = [], None, 0
    while True:
        page = await rig.ltm.list_entries("p/", cursor=cursor, limit=10)
        found += page.entries
        pages += 1
        if (cursor := page.cursor) is None:
            break
    assert [entry.key for entry in found] == [entry["key"] for entry in entries]
    assert [entry.metadata for entry in found] == [{"n": n} for n in range(25)]
    assert pages == 3
    (other,) = (await rig.ltm.list_entries("o")).entries
    assert (other.inlined, other.byte_size) == (False, len(LARGE["text"]) * 6 + 11)


async def test_namespaces_do_not_meet(rig: Rig) -> None:
    other = LTMBackend(rig.catalog, rig.blobs, namespace="other", on_unavailable="raise")
    await rig.ltm.store("k", LARGE)
    await other.store("k", [LARGE])
    await other.delete("k")
    await other.collect_garbage(audit=True, stray_age=timedelta(0))
    assert (await rig.ltm.retrieve("k")).value == LARGE
    assert (await other.stats()).entries == 0
    assert not (await other.retrieve("k")).found


async def test_stats(rig: Rig) -> None:
    await rig.ltm.store("s", 1)
    await rig.ltm.store("l", LARGE)
    await rig.ltm.store("r", LARGE)
    await rig.ltm.store("r", 22)
    await rig.ltm.store("gone", 1, ttl=1)
    rig.clock.advance(1)
    stats = await rig.ltm.stats()
    large = (await rig.ltm.retrieve("l")).byte_size
    assert (stats.entries, stats.expired, stats.inlined, stats.inlined_bytes) == (3, 1, 2, 3)
    assert (stats.blobs, stats.blob_bytes, stats.dead_blobs) == (1, large, 1)


# Beside each other


async def test_readers_see_old_or_new_while_a_value_is_replaced(rig: Rig) -> None:
    values = [[number] * 2_000 for number in range(12)]
    await rig.ltm.store("k", values[0])
    done = False

    async def read() -> int:
        reads = 0
        while not done:
            hit = await rig.ltm.retrieve("k")
            assert hit.value in values
            reads += 1
            await asyncio.sleep(0)
        return reads

    async def collect() -> None:
        while not done:
            await rig.ltm.collect_garbage()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(4)]
        group.create_task(collect())
        for value in values:
            await rig.ltm.store("k", value)
        done = True
    assert all(reader.result() for reader in readers)


async def test_a_value_that_is_replaced_at_each_look_is_told_as_that(
    tmp_path: pathlib.Path,
) -> None:
    """Neither as missing nor as damaged; other entries of the call are read."""
    rig = make_rig("memory+memory", tmp_path)
    writer = LTMBackend(rig.catalog, rig.blobs)

    class Replaced(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "blobs.get":
                await writer.store("k", [len(self.steps), LARGE])
                await writer.collect_garbage()
            return await super().step(name, call)

    await rig.ltm.store("k", LARGE)
    await rig.ltm.store("small", 1)
    await rig.ltm.store("large", LARGE)
    rig.faults.__class__ = Replaced
    with pytest.raises(UnavailableError, match=r"^the entry is replaced faster than its blob can"):
        await rig.ltm.retrieve("k")
    got = await rig.ltm.retrieve_batch(["small", "k", "large"])
    assert (got.found, got.missing, list(got.errors)) == (2, [], ["k"])
    assert got.errors["k"].error_type == "UnavailableError"
    rig.faults.__class__ = Faults
    assert (await rig.ltm.retrieve("k")).found
    await rig.aclose()


async def test_a_batch_is_read_whole_while_it_is_replaced(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of its values are blobs: those read again must not be mixed with rows read before."""
    reads_between_commits(monkeypatch)
    keys = [f"k{n}" for n in range(6)]

    def batch(number: int) -> list[dict[str, Any]]:
        return [
            {"key": key, "value": [number] * (2_000 if n % 2 else 1)} for n, key in enumerate(keys)
        ]

    await rig.ltm.store_batch(batch(0))
    done = False

    async def read() -> None:
        while not done:
            got = await rig.ltm.retrieve_batch(keys)
            if got.success:  # too fast a writer is an error, never a mixture
                assert got.found == 6
                assert len({hit.value[0] for hit in got.results.values()}) == 1

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(read())
        for number in range(1, 15):
            await rig.ltm.store_batch(batch(number))
            await rig.ltm.collect_garbage()
        done = True


# Life


async def test_a_closed_backend_says_so(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs")
    async with ltm:
        await ltm.store("k", 1)
    await ltm.aclose()
    for call in (ltm.retrieve("k"), ltm.store_batch([]), ltm.stats()):
        with pytest.raises(ClosedError):
            await call


async def test_a_released_backend_has_nothing_open_until_it_is_needed_again(
    tmp_path: pathlib.Path,
) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", on_unavailable="raise")
    await ltm.release()
    for n in range(3):
        assert (await ltm.retrieve("k")).value == (n or None)
        await ltm.store("k", n + 1)
        await ltm.release()
        assert not (tmp_path / "ltm.db-wal").exists()
    await ltm.aclose()
    await ltm.release()
    with pytest.raises(ClosedError):
        await ltm.retrieve("k")


async def test_what_was_handed_in_stays_open(rig: Rig) -> None:
    async with LTMBackend(rig.catalog, rig.blobs) as ltm:
        await ltm.store("k", LARGE)
    assert (await rig.ltm.retrieve("k")).value == LARGE


def test_one_backend_serves_several_loops(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", on_unavailable="raise")

    async def add(value: Any) -> list[Any]:
        await ltm.update("k", lambda found: [*found, value], default=[])
        await ltm.store("l", [LARGE, value])
        assert (await ltm.retrieve("l")).value == [LARGE, value]
        return list((await ltm.retrieve("k")).value)

    for number in range(3):
        found = asyncio.run(add(number))
    assert found == [0, 1, 2]
    asyncio.run(ltm.aclose())


# Trouble


async def test_an_outage_is_a_result_or_an_error(
    rig: Rig, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    from ltm_async.testing import faulty_blob_store, faulty_catalog

    down = Faults(at=0, mode=Mode.DOWN)
    catalog, blobs = faulty_catalog(rig.catalog, down), faulty_blob_store(rig.blobs, down)
    ltm = LTMBackend(catalog, blobs)
    strict = LTMBackend(catalog, blobs, on_unavailable="raise")
    stored = await ltm.store("k", 1)
    assert (stored.success, stored.stored, stored.durable) == (False, False, False)
    assert (stored.degraded, stored.error_type) == (True, "UnavailableError")
    with pytest.raises(UnavailableError):
        stored.raise_for_error()
    hit = await ltm.retrieve("other")
    assert (hit.success, hit.found, hit.degraded) == (False, False, True)
    assert not (await ltm.delete("k")).success
    assert not (await ltm.touch("k")).success
    assert not (await ltm.update("k", lambda _: 1)).success
    assert not (await ltm.list_entries()).success
    assert not (await ltm.cleanup_expired()).success
    assert not (await ltm.stats()).success
    assert not (await ltm.verify()).sound
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    for call in (strict.store("k", 1), strict.retrieve("k"), strict.stats(), strict.verify()):
        with pytest.raises(UnavailableError):
            await call


async def test_a_lost_blob_is_an_error_not_a_miss(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    await rig.ltm.store("other", 1)
    await rig.blobs.delete(list(await rig.objects()))
    with pytest.raises(CorruptError):
        await rig.ltm.retrieve("k")
    got = await rig.ltm.retrieve_batch(["k", "other", "absent"])
    assert (list(got.results), got.missing, got.success) == (["other"], ["absent"], False)
    assert got.errors["k"].error_type == "CorruptError"
    assert list((await rig.ltm.verify()).problems) == ["k"]
    again = await rig.ltm.store("k", LARGE)  # the same content, and yet it heals
    assert (again.stored, again.deduplicated) == (True, False)
    assert (await rig.ltm.retrieve("k")).value == LARGE
    assert (await rig.ltm.store("k", LARGE)).deduplicated


async def test_opening_fails_loudly_or_goes_on(tmp_path: pathlib.Path) -> None:
    nowhere = SQLiteCatalog(str(tmp_path / "no" / "such" / "folder.db"))
    with pytest.raises(UnavailableError):
        async with LTMBackend(nowhere, "memory:", on_unavailable="raise", timeout=2):
            pass
    async with LTMBackend(nowhere, "memory:", timeout=2) as ltm:
        assert not (await ltm.store("k", 1)).success
    await nowhere.aclose()
