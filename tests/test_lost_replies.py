"""A request took effect and its reply was lost: nothing is done twice, nothing is guessed."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ltm_async import LTMBackend, OutcomeUnknownError, StoreError, UnavailableError
from ltm_async.testing import Faults, Mode

from .backends import PAIRS, Rig, make_rig

LARGE = "x" * 5_000


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    assert (await rig.ltm.verify()).sound
    await rig.aclose()


def lose(rig: Rig, step: str, *, then: Callable[[], Awaitable[Any]] | None = None) -> None:
    """Let the next *step* take effect and lose its reply, after which *then* happens."""

    class Loses(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name != step:
                return await super().step(name, call)
            rig.faults.__class__ = Faults
            self.steps.append(name)
            await call()
            if then is not None:
                await then()
            raise OutcomeUnknownError("lost in a test", store="faults")

    rig.faults.steps.clear()
    rig.faults.__class__ = Loses


def other(rig: Rig) -> LTMBackend:
    return LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise")


@pytest.mark.parametrize("value", [1, LARGE])
async def test_a_store_finds_out_that_it_happened(rig: Rig, value: Any) -> None:
    lose(rig, "catalog.track_entries_batch")
    stored = await rig.ltm.store("k", value, ttl=60)
    hit = await rig.ltm.retrieve("k")
    assert (stored.stored, stored.version, hit.value) == (True, hit.version, value)
    assert stored.expires_at == hit.expires_at
    assert rig.faults.steps.count("catalog.track_entries_batch") == 1


async def test_a_large_store_is_known_even_after_it_was_replaced(rig: Rig) -> None:
    lose(rig, "catalog.track_entries_batch", then=lambda: other(rig).store("k", "newer", ttl=60))
    stored = await rig.ltm.store("k", LARGE)
    assert (stored.stored, stored.version, stored.expires_at) == (True, None, None)
    assert (await rig.ltm.retrieve("k")).value == "newer"


async def test_a_small_store_that_was_replaced_is_unknown_and_not_repeated(rig: Rig) -> None:
    lose(rig, "catalog.track_entries_batch", then=lambda: other(rig).store("k", "newer"))
    with pytest.raises(OutcomeUnknownError):
        await rig.ltm.store("k", 1)
    assert (await rig.ltm.retrieve("k")).value == "newer"


async def test_a_lost_large_commit_that_never_arrived_is_done_again(rig: Rig) -> None:
    class NeverArrives(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "catalog.track_entries_batch":
                rig.faults.__class__ = Faults
                raise OutcomeUnknownError("lost on its way", store="faults")
            return await super().step(name, call)

    rig.faults.__class__ = NeverArrives
    assert (await rig.ltm.store("k", LARGE)).stored
    assert (await rig.ltm.retrieve("k")).value == LARGE
    assert rig.faults.steps.count("blobs.put") == 2
    rig.clock.advance(3_600)
    await rig.ltm.collect_garbage()
    assert len(await rig.objects()) == 1


async def test_a_delete_finds_out_that_it_happened(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    lose(rig, "catalog.delete_entries_batch")
    assert (await rig.ltm.delete("k")).deleted
    assert rig.faults.steps.count("catalog.delete_entries_batch") == 1
    await rig.ltm.collect_garbage()
    assert await rig.objects() == set()


async def test_a_delete_is_not_repeated_over_a_newer_value(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    lose(rig, "catalog.delete_entries_batch", then=lambda: other(rig).store("k", "newer"))
    assert (await rig.ltm.delete("k")).deleted
    assert (await rig.ltm.retrieve("k")).value == "newer"


async def test_a_delete_without_a_trace_is_unknown(rig: Rig) -> None:
    lose(rig, "catalog.delete_entries_batch")
    with pytest.raises(OutcomeUnknownError):
        await rig.ltm.delete("absent")


async def test_a_delete_of_what_had_expired_is_not_told_as_one_of_a_live_entry(rig: Rig) -> None:
    await rig.ltm.store("k", 1, ttl=1)
    await rig.ltm.store("live", LARGE)
    rig.clock.advance(1)
    lose(rig, "catalog.delete_entries_batch")
    with pytest.raises(OutcomeUnknownError):
        await rig.ltm.delete("k")
    await rig.ltm.store("k", 1, ttl=1)
    rig.clock.advance(1)
    lose(rig, "catalog.delete_entries_batch")
    done = await rig.ltm.delete_batch(["k", "live"])
    assert (done.deleted, done.missing, list(done.errors)) == (1, [], ["k"])


async def test_what_a_batch_deleted_and_another_stored_again_is_not_told_as_missing(
    rig: Rig,
) -> None:
    for key in ("a", "b"):
        await rig.ltm.store(key, 1)

    async def store_and_delete() -> None:
        await other(rig).store("b", 2)
        await other(rig).delete("b")

    lose(rig, "catalog.delete_entries_batch", then=store_and_delete)
    done = await rig.ltm.delete_batch(["a", "b"])
    assert (done.deleted, done.missing) == (1, [])
    assert done.errors["b"].error_type == "OutcomeUnknownError"


async def test_a_touch_finds_out_that_it_happened(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    lose(rig, "catalog.touch_entry")
    touched = await rig.ltm.touch("k", ttl=60)
    hit = await rig.ltm.retrieve("k")
    assert (touched.touched, touched.version) == (True, hit.version)
    assert touched.expires_at == hit.expires_at
    assert touched.expires_at is not None


async def test_a_touch_without_a_trace_is_unknown(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    lose(rig, "catalog.touch_entry", then=lambda: other(rig).store("k", 2))
    with pytest.raises(OutcomeUnknownError):
        await rig.ltm.touch("k", ttl=60)
    assert (await rig.ltm.retrieve("k")).expires_at is None


@pytest.mark.parametrize("step", ["catalog.reserve_blobs", "blobs.put"])
async def test_what_comes_before_the_commit_is_simply_repeated(rig: Rig, step: str) -> None:
    lose(rig, step)
    assert (await rig.ltm.store("k", LARGE)).stored
    assert rig.faults.steps.count(step) == 2
    assert rig.faults.steps.count("blobs.put") <= 2
    assert len(await rig.objects()) == 1


async def test_what_fails_before_the_commit_is_certainly_not_stored(rig: Rig) -> None:
    """Even where each reply was lost: no commit was sent."""

    class AlwaysLost(Faults):
        async def step(self, name: str, call: Any) -> Any:
            result = await super().step(name, call)
            if name == "blobs.put":
                raise OutcomeUnknownError("lost in a test", store="faults")
            return result

    rig.faults.__class__ = AlwaysLost
    with pytest.raises(UnavailableError, match="nothing was written"):
        await rig.ltm.store("k", LARGE)
    rig.faults.__class__ = Faults
    assert not (await rig.ltm.retrieve("k")).found


async def test_a_cleanup_whose_reply_was_lost_leaves_the_blobs_to_the_next(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE, ttl=1)
    rig.clock.advance(1)
    lose(rig, "catalog.expire_entries")
    with pytest.raises(OutcomeUnknownError):
        await rig.ltm.cleanup_expired()
    done = await rig.ltm.cleanup_expired()
    assert (done.deleted, done.blobs_deleted) == (0, 1)
    assert await rig.objects() == set()


async def test_a_blob_that_storage_refuses_to_delete_stays_in_the_ledger(rig: Rig) -> None:
    for number in range(3):
        await rig.ltm.store(f"k{number}", [number, LARGE])

    class RefusesOne(Faults):
        async def step(self, name: str, call: Any) -> Any:
            result = await super().step(name, call)
            if name == "blobs.delete":
                await rig.blobs.put(kept, kept_data)
                return {kept: StoreError("refused in a test")}
            return result

    kept = min(await rig.objects())
    kept_data = await rig.blobs.get(kept, limit=10_000) or b""
    rig.faults.__class__ = RefusesOne
    assert (await rig.ltm.delete_batch(["k0", "k1", "k2"])).deleted == 3
    rig.faults.__class__ = Faults
    assert await rig.objects() == {kept}
    assert (await rig.ltm.stats()).dead_blobs == 1
    assert (await rig.ltm.collect_garbage()).deleted == 1
    assert await rig.objects() == set()


async def test_a_lost_reply_in_a_batch_is_reported_key_by_key(rig: Rig) -> None:
    lose(rig, "catalog.track_entries_batch", then=lambda: other(rig).store("a", "newer"))
    done = await rig.ltm.store_batch([{"key": "a", "value": 1}])
    assert (done.stored, done.errors["a"].error_type) == (0, "OutcomeUnknownError")
    lose(rig, "catalog.track_entries_batch", then=lambda: other(rig).store("a", "newest"))
    done = await rig.ltm.store_batch([{"key": "a", "value": 1}, {"key": "b", "value": LARGE}])
    assert (done.stored, done.failed) == (2, 0)
    assert (await rig.ltm.retrieve("a")).value == "newest"


async def test_down_from_the_resolve_on_is_unknown(rig: Rig) -> None:
    lose(rig, "catalog.track_entries_batch", then=lambda: _go_down(rig))
    with pytest.raises(OutcomeUnknownError):
        await rig.ltm.store("k", LARGE)
    rig.faults.at = None
    assert (await rig.ltm.retrieve("k")).value == LARGE


async def _go_down(rig: Rig) -> None:
    rig.faults.at, rig.faults.mode = len(rig.faults.steps), Mode.DOWN


async def test_a_reservation_whose_reply_was_lost_is_not_sent_again_under_its_name(
    tmp_path: pathlib.Path,
) -> None:
    """Its first sending might arrive after the blob was collected."""
    rig = make_rig("memory+memory", tmp_path, Faults(at=0, mode=Mode.LOST_REPLY))
    assert (await rig.ltm.store("k", LARGE)).stored
    assert rig.faults.steps[:2] == ["catalog.reserve_blobs"] * 2
    blobs = await rig.catalog.list_blobs("", limit=10)
    assert sorted(blob.state for blob in blobs) == ["live", "pending"]
    await rig.aclose()
