"""Stores that are down: what is still answered, how often they are asked, and recovery."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pathlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from ltm_async import ConflictError, LTMBackend, OutcomeUnknownError, RateLimitedError, RetryPolicy
from ltm_async.calling import FAILURES_TO_OPEN, RETRY_TOKENS, Breaker
from ltm_async.drafting import draft_one
from ltm_async.errors import StoreError, UnavailableError
from ltm_async.fallback import MAX_BYTES, Fallback
from ltm_async.protocols import Row
from ltm_async.testing import Faults, Mode

from .backends import PAIRS, QUICK, Rig, make_rig
from .test_deadlines import Hangs, elapsed

LARGE = "x" * 5_000


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path, on_unavailable="degrade")
    yield rig
    await rig.aclose()


def go_down(rig: Rig) -> None:
    rig.faults.at, rig.faults.mode = len(rig.faults.steps), Mode.DOWN


async def come_back(rig: Rig) -> None:
    """Wait as a user would until the stores are asked again."""
    rig.faults.at = None
    for _ in range(100):  # five seconds
        if (await rig.ltm.stats()).success:
            return
        await asyncio.sleep(0.05)
    pytest.fail("not healthy again within five seconds")


# What is still answered


@pytest.mark.parametrize("value", [None, {"likes": ["tea"]}, LARGE])
async def test_what_was_retrieved_is_recalled(rig: Rig, value: Any) -> None:
    await rig.ltm.store("k", value, metadata={"a": 1})
    other = LTMBackend(rig.catalog, rig.blobs)
    await other.store("k", [value])
    assert (await rig.ltm.retrieve("k")).source == "catalog"
    go_down(rig)
    hit = await rig.ltm.retrieve("k")
    assert (hit.found, hit.value, hit.metadata) == (True, [value], {})
    assert (hit.success, hit.degraded, hit.source) == (False, True, "fallback")
    assert hit.error_type == "UnavailableError"
    assert hit.age_s is not None and 0 <= hit.age_s < 10
    with pytest.raises(UnavailableError):
        hit.raise_for_error()


async def test_what_could_not_be_stored_is_recalled_but_never_called_stored(rig: Rig) -> None:
    await rig.ltm.store("k", "old")
    go_down(rig)
    stored = await rig.ltm.store("k", "new", metadata={"m": 1})
    assert (stored.success, stored.stored, stored.durable, stored.degraded) == (
        False, False, False, True,
    )  # fmt: skip
    assert stored.version is None
    hit = await rig.ltm.retrieve("k")
    assert (hit.value, hit.metadata, hit.source, hit.version) == (
        "new", {"m": 1}, "fallback", None,
    )  # fmt: skip
    await come_back(rig)
    assert (await rig.ltm.retrieve("k")).value == "old"  # nothing is replayed


async def test_a_caller_cannot_change_what_is_remembered(rig: Rig) -> None:
    value = ["a"]
    await rig.ltm.store("k", value)
    value.append("b")
    go_down(rig)
    (await rig.ltm.retrieve("k")).value.append("c")
    assert (await rig.ltm.retrieve("k")).value == ["a"]


async def test_what_was_never_seen_is_an_error_not_a_miss(rig: Rig) -> None:
    go_down(rig)
    hit = await rig.ltm.retrieve("k")
    assert (hit.found, hit.success, hit.degraded, hit.source) == (False, False, True, None)


@pytest.mark.parametrize("change", ["delete", "delete_batch", "store_batch", "touch", "update"])
async def test_what_is_changed_is_not_recalled_as_it_was(rig: Rig, change: str) -> None:
    for healthy in (True, False):
        await rig.ltm.store("k", 1)
        if not healthy:
            go_down(rig)
        await {
            "delete": lambda: rig.ltm.delete("k"),
            "delete_batch": lambda: rig.ltm.delete_batch(["k"]),
            "store_batch": lambda: rig.ltm.store_batch([{"key": "k", "value": 2}]),
            "touch": lambda: rig.ltm.touch("k", ttl=1),
            "update": lambda: rig.ltm.update("k", lambda _: 2),
        }[change]()  # type: ignore[no-untyped-call]
        if healthy:
            go_down(rig)
        assert not (await rig.ltm.retrieve("k")).found
        await come_back(rig)


async def test_what_was_seen_missing_is_not_recalled(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    await LTMBackend(rig.catalog, rig.blobs).delete("k")
    assert not (await rig.ltm.retrieve("k")).found
    go_down(rig)
    assert not (await rig.ltm.retrieve("k")).found


async def test_what_has_expired_is_not_recalled(rig: Rig) -> None:
    await rig.ltm.store("short", 1, ttl=0.05)
    await rig.ltm.store("long", 1, ttl=60)
    go_down(rig)
    await asyncio.sleep(0.06)  # by this process's clock, the only one left
    assert not (await rig.ltm.retrieve("short")).found
    assert (await rig.ltm.retrieve("long")).found


async def test_compare_and_swap_is_neither_done_nor_remembered(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    go_down(rig)
    assert not (await rig.ltm.store("k", 2, if_absent=True)).success
    assert (await rig.ltm.retrieve("k")).value == 1


async def test_a_conflict_is_not_an_outage(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    for _ in range(2 * FAILURES_TO_OPEN):
        with pytest.raises(ConflictError):
            await rig.ltm.store("k", 2, if_absent=True)
    assert (await rig.ltm.store("k", 3)).stored


async def test_damage_is_not_covered_up_by_an_old_value(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)
    await rig.ltm.retrieve("k")
    await rig.blobs.delete(list(await rig.objects()))
    hit = await rig.ltm.retrieve("k")
    assert (hit.found, hit.error_type, hit.degraded) == (False, "CorruptError", False)


async def test_batches_report_and_recall_nothing(rig: Rig) -> None:
    await rig.ltm.store("k", 1)
    go_down(rig)
    got = await rig.ltm.retrieve_batch(["k"])
    assert (got.success, got.found, got.missing, list(got.errors)) == (False, 0, [], ["k"])


async def test_nothing_is_remembered_where_failures_raise(tmp_path: pathlib.Path) -> None:
    for options in ({"on_unavailable": "raise"}, {"on_unavailable": "degrade", "fallback_size": 0}):
        rig = make_rig("memory+memory", tmp_path, None, **options)
        assert rig.ltm._runner.fallback is None
    rig = make_rig("memory+memory", tmp_path, on_unavailable="degrade", fallback_size=1)
    assert rig.ltm._runner.fallback is not None


async def test_namespaces_do_not_share_what_they_remember(rig: Rig, tmp_path: pathlib.Path) -> None:
    other = make_rig(
        "memory+memory", tmp_path, rig.faults, namespace="other", on_unavailable="degrade"
    )
    await rig.ltm.store("k", 1)
    await other.ltm.store("other", 2)
    go_down(rig)
    assert not (await other.ltm.retrieve("k")).found
    assert not (await rig.ltm.retrieve("other")).found
    assert (await rig.ltm.retrieve("k")).found


def test_the_memory_is_bounded_by_entries_and_by_bytes() -> None:
    memory = Fallback(3)
    for n in range(5):
        memory.keep_draft(draft_one(f"k{n}", n, None, None, None, None), version=1)
    assert [memory.recall(f"k{n}") is not None for n in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    memory.recall("k2")
    memory.keep_draft(draft_one("k5", 5, None, None, None, None), version=1)
    assert memory.recall("k2") is not None
    assert memory.recall("k3") is None
    third = "x" * (MAX_BYTES // 3)
    large = Fallback(1_000)
    for n in range(4):
        large.keep_draft(draft_one(f"k{n}", third, None, None, None, None), version=1)
    assert [large.recall(f"k{n}") is not None for n in range(4)] == [False, False, True, True]
    large.keep_draft(draft_one("k3", "x" * (MAX_BYTES + 1), None, None, None, None), version=1)
    assert large.recall("k3") is None  # too large, and what was there is not it any more
    for n in range(4):
        large.forget([f"k{n}"])
    assert large._bytes == 0


def test_what_was_too_much_to_keep_replaces_what_is_remembered() -> None:
    memory = Fallback(2)
    for key in ("k", "other"):
        memory.keep_draft(draft_one(key, "old", None, None, None, None), version=1)
    let_go = dataclasses.replace(draft_one("k", "new", None, None, None, None), text=None)
    memory.keep_draft(let_go, version=2)
    assert memory.recall("k") is None
    assert memory.recall("other") is not None


def test_what_is_not_remembered_is_the_failure_under_its_key() -> None:
    gone = UnavailableError("gone in a test")
    found = Fallback(1).result("k", gone)
    assert (found.key, found.found, found.exception) == ("k", False, gone)


def test_what_is_remembered_is_what_was_to_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm_async.fallback.system_clock", lambda: 5_000_000)
    memory = Fallback(1)
    draft = draft_one("k", [1], {"m": 1}, 10, None, None)
    memory.keep_draft(draft, version=7)
    expected = Row(
        key="k",
        version=7,
        content_hash=draft.content_hash,
        byte_size=3,
        inlined_value="[1]",
        blob_id=None,
        metadata='{"m":1}',
        expires_at=15_000_000,
        created_at=5_000_000,
        updated_at=5_000_000,
    )
    seen = memory.recall("k")
    assert seen is not None
    assert (seen.row, seen.text) == (expected, "[1]")
    memory.keep_draft(draft, version=None)
    seen = memory.recall("k")
    assert seen is not None
    assert seen.row == expected._replace(version=0)
    monkeypatch.setattr("ltm_async.fallback.system_clock", lambda: 14_999_999)
    assert memory.recall("k") is not None
    monkeypatch.setattr("ltm_async.fallback.system_clock", lambda: 15_000_000)
    assert memory.recall("k") is None
    assert memory._bytes == 0


def test_what_is_as_large_as_the_memory_is_remembered() -> None:
    memory = Fallback(2)
    memory.keep_draft(draft_one("small", 1, None, None, None, None), version=1)
    large = draft_one("large", "x" * (MAX_BYTES - 2), None, None, None, None)
    memory.keep_draft(large, version=1)
    assert memory.recall("small") is None
    assert memory.recall("large") is not None


def test_how_old_a_recalled_value_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 3.0
    monkeypatch.setattr("ltm_async.fallback.time", SimpleNamespace(monotonic=lambda: now))
    memory = Fallback(1)
    memory.keep_draft(draft_one("k", 1, None, None, None, None), version=1)
    now = 5.0
    hit = memory.result("k", UnavailableError("down"))
    assert (hit.key, hit.value, hit.age_s) == ("k", 1, 2.0)


# How often a store is asked


async def test_an_outage_is_warned_of_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    go_down(rig)
    for _ in range(20):
        await rig.ltm.store("k", "canary-value")
        await rig.ltm.retrieve_batch(["k"])
    warnings = [  # asyncio's own, of a slow machine, are not meant
        record
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.startswith("ltm_async")
    ]
    assert len(warnings) == 1
    assert "canary-value" not in caplog.text


@pytest.mark.parametrize(("call", "asked_for"), [("retrieve", "k"), ("retrieve_batch", ["k"])])
async def test_an_outage_is_warned_of_again_after_a_minute(
    call: str,
    asked_for: Any,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    monkeypatch.setattr("ltm_async.running.time", SimpleNamespace(monotonic=lambda: now))
    warned_at: list[float] = []
    rig = make_rig("memory+memory", tmp_path, on_unavailable="degrade")
    go_down(rig)
    for now in (0.0, 59.9, 60.0, 119.9, 120.1):
        await getattr(rig.ltm, call)(asked_for)
        warned_at += [now] * len(caplog.records)
        for record in caplog.records:
            assert record.getMessage().startswith("going on without the memory: UnavailableError: ")
        caplog.clear()
    assert warned_at == [0.0, 60.0, 120.1]


@pytest.mark.parametrize("mode", [Mode.DOWN, Mode.LOST_REPLY])
async def test_an_outage_does_not_multiply_the_traffic(mode: Mode, tmp_path: pathlib.Path) -> None:
    """Without the breaker: 40 callers that keep on asking for what is retried by itself."""
    rig = make_rig("memory+memory", tmp_path, on_unavailable="degrade", retry=QUICK)
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    calls = 0

    async def keep_on() -> None:
        nonlocal calls
        for _ in range(50):
            rig.ltm._runner.stores().to_catalog._breaker = Breaker("catalog")
            await rig.ltm.retrieve("k")
            calls += 1

    await asyncio.gather(*(keep_on() for _ in range(40)))
    assert calls == 2_000
    assert len(rig.faults.steps) <= calls + RETRY_TOKENS


async def test_a_store_that_is_down_is_left_alone(rig: Rig) -> None:
    go_down(rig)
    for _ in range(50):
        await rig.ltm.retrieve("k")
    # Five calls with up to four tries, and a probe or two if this machine is slow.
    assert len(rig.faults.steps) <= (FAILURES_TO_OPEN + 3) * 4
    # It says which store that is.
    refused = (await rig.ltm.retrieve("k")).exception
    while "was refused by a test" in str(refused):  # a probe, if this machine is slow
        refused = (await rig.ltm.retrieve("k")).exception
    assert str(refused) == "the catalog has not answered lately, so it was not asked"
    assert isinstance(refused, UnavailableError) and refused.store == "catalog"
    await come_back(rig)
    assert (await rig.ltm.store("k", 1)).stored


async def test_storage_that_is_down_leaves_the_catalog_working(rig: Rig) -> None:
    class StorageDown(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name.startswith("blobs."):
                self.steps.append(name)
                raise UnavailableError("503", store="faults")
            return await super().step(name, call)

    rig.faults.__class__ = StorageDown
    for number in range(10):
        stored = await rig.ltm.store("large", [number, LARGE])
        assert (stored.stored, stored.error_type) == (False, "UnavailableError")
        assert (await rig.ltm.store("small", number)).stored
    assert isinstance(stored.exception, UnavailableError)
    assert stored.exception.store == "blob store"  # which is not asked any more
    rig.faults.__class__ = Faults
    await asyncio.sleep(0.6)
    await come_back(rig)
    assert not await rig.objects()
    for _ in range(50):  # five seconds
        if (await rig.ltm.store("large", LARGE)).stored:
            break
        await asyncio.sleep(0.1)
    assert (await rig.ltm.verify()).problems == {}


@pytest.mark.parametrize("trouble", ["error", "throttled", "lost", "cut body", "empty body"])
async def test_storage_that_stumbles_is_asked_again(rig: Rig, trouble: str) -> None:
    stumbled: set[str] = set()

    class Stumbles(Faults):
        async def step(self, name: str, call: Any) -> Any:
            result = await super().step(name, call)
            if not name.startswith("blobs.") or name in stumbled:
                return result
            stumbled.add(name)
            if trouble == "error":
                raise UnavailableError("500", store="faults")
            if trouble == "throttled":
                raise RateLimitedError("503", store="faults", retry_after_s=0.01)
            if trouble == "lost":
                raise OutcomeUnknownError("reset", store="faults")
            return result[: 100 if trouble == "cut body" else 0] if name == "blobs.get" else result

    rig.faults.__class__ = Stumbles
    stored = await rig.ltm.store("k", LARGE)
    hit = await rig.ltm.retrieve("k")
    assert (stored.stored, hit.success, hit.source, hit.value) == (True, True, "catalog", LARGE)
    assert (await rig.ltm.delete("k")).deleted
    await rig.ltm.collect_garbage()
    assert await rig.objects() == set()


async def test_a_hanging_catalog_costs_five_deadlines_then_nothing(tmp_path: pathlib.Path) -> None:
    rig = make_rig("memory+memory", tmp_path, Hangs(at=0), on_unavailable="degrade", timeout=0.05)
    for _ in range(FAILURES_TO_OPEN):
        took_s, result = await elapsed(rig.ltm.retrieve("k"))
        assert result.error_type == "DeadlineError"
        assert took_s < 1.05
    _, result = await elapsed(rig.ltm.retrieve("k"))
    assert result.error_type == "UnavailableError"
    assert len(rig.faults.steps) == FAILURES_TO_OPEN
    await come_back(rig)


async def test_a_caller_that_goes_away_says_nothing_about_the_store(
    tmp_path: pathlib.Path,
) -> None:
    rig = make_rig("memory+memory", tmp_path, Hangs(at=0), on_unavailable="degrade")
    for _ in range(3 * FAILURES_TO_OPEN):
        task = asyncio.create_task(rig.ltm.retrieve("k"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    rig.faults.at = None
    assert (await rig.ltm.store("k", 1)).stored


async def test_who_asks_again_at_once_lets_the_probe_end(tmp_path: pathlib.Path) -> None:
    """A refusal gives way to the other tasks, among them the one that finds the store up again."""
    rig = make_rig("memory+memory", tmp_path, Hangs(at=0), on_unavailable="raise", timeout=0.05)
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(StoreError):
            await rig.ltm.retrieve("k")
    others_ran = 0

    async def other() -> None:
        nonlocal others_ran
        while True:
            others_ran += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    for _ in range(10):
        with pytest.raises(UnavailableError):
            await rig.ltm.retrieve("k")
    beside.cancel()
    assert others_ran >= 10


# The breaker itself


class TestBreaker:
    def setup_method(self) -> None:
        self.now = 0.0
        self.breaker = Breaker("store", clock=lambda: self.now)

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.admit()
            self.breaker.failed()

    def refuses(self) -> bool:
        try:
            self.breaker.admit()
        except UnavailableError:
            return True
        return False

    def test_it_opens_after_failures_in_a_row(self) -> None:
        self.fail(FAILURES_TO_OPEN - 1)
        self.breaker.succeeded()
        self.fail(FAILURES_TO_OPEN - 1)
        assert not self.refuses()
        self.breaker.failed()
        assert self.refuses()

    def test_after_the_cool_down_one_probe_goes_through(self) -> None:
        self.fail(FAILURES_TO_OPEN)
        self.now = 0.49
        assert self.refuses()
        self.now = 0.5
        assert not self.refuses()
        assert self.refuses()
        self.breaker.succeeded()
        assert not self.refuses()
        assert not self.refuses()  # it is closed: the one before was no probe

    def test_a_failed_probe_doubles_the_wait_up_to_two_seconds(self) -> None:
        self.fail(FAILURES_TO_OPEN)
        for wait_s in (0.5, 1.0, 2.0, 2.0):
            self.now += wait_s - 0.01
            assert self.refuses()
            self.now += 0.01
            assert not self.refuses()
            self.breaker.failed()
        self.now += 2.0
        assert not self.refuses()
        self.breaker.succeeded()
        self.fail(FAILURES_TO_OPEN)
        self.now += 0.5
        assert not self.refuses()

    def test_a_cancelled_probe_makes_room_for_the_next(self) -> None:
        self.fail(FAILURES_TO_OPEN)
        self.now = 1
        assert not self.refuses()
        self.breaker.undecided()
        assert not self.refuses()

    def test_failures_of_calls_already_under_way_do_not_put_off_the_probe(self) -> None:
        self.fail(FAILURES_TO_OPEN)
        self.now = 0.3
        self.breaker.failed()
        self.now = 0.5
        assert not self.refuses()


def test_a_policy_for_tests_is_quick() -> None:
    assert RetryPolicy().attempts == QUICK.attempts
