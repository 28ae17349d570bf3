"""Wrapping an action: what is a hit, what a miss, what is kept and for how long."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ltm_async import CachedFailureError, InvalidEntryError, LTMBackend, SyncLTMBackend
from ltm_async.cache import Cache
from ltm_async.errors import ConfigError
from ltm_async.testing import Mode

from .rigs import Action, CacheRig

LARGE = "x" * 5_000
LOOK = "catalog.get_entries_batch"
WRITE = "catalog.track_entries_batch"


async def wrap(caching: CacheRig, action: Action, **options: Any) -> dict[str, Any]:
    return await caching.cache.wrap(action.run, {"city": "Rome"}, **options)


# Hits and misses


@pytest.mark.parametrize("large", [False, True])
async def test_the_second_call_is_a_hit(on_every_pair: CacheRig, large: bool) -> None:
    action = Action(lambda run: {"run": run, "text": LARGE if large else ""})
    first = await wrap(on_every_pair, action)
    second = await wrap(on_every_pair, action)
    assert action.runs == 1
    assert (first["run"], first["_cache_hit"]) == (1, False)
    assert second == {**first, "_cache_hit": True}
    key = 'cache:tests.cache.rigs.Action.run:{"city":"Rome"}'
    assert first["_cache_key"] == key
    made = datetime.fromisoformat(first["_cache_created_at"])
    assert made.utcoffset() == timedelta(0)
    assert (await on_every_pair.rig.ltm.retrieve(key)).value == {
        "run": 1, "text": LARGE if large else "",
    }  # fmt: skip


async def test_a_stored_null_is_a_hit(caching: CacheRig) -> None:
    action = Action(lambda run: None)
    assert (await wrap(caching, action))["result"] is None
    again = await wrap(caching, action)
    assert (again["result"], again["_cache_hit"], action.runs) == (None, True, 1)


@pytest.mark.parametrize("value", [0, "", [], False, [1, {"a": None}], "text", 1.5])
async def test_what_is_no_dict_comes_as_result(caching: CacheRig, value: Any) -> None:
    action = Action(lambda run: value)
    for hit in (False, True):
        told = await wrap(caching, action)
        assert (told["result"], told["_cache_hit"]) == (value, hit)
        assert told.keys() == {"result", "_cache_hit", "_cache_key", "_cache_created_at"}


async def test_the_action_s_own_dict_stays_as_it_is(caching: CacheRig) -> None:
    own = {"a": 1}
    await wrap(caching, Action(lambda run: own))
    assert own == {"a": 1}


async def test_other_arguments_are_another_entry(caching: CacheRig) -> None:
    action = Action()
    for city in ("Rome", "Oslo"):
        await caching.cache.wrap(action.run, {"city": city})
    assert action.runs == 2


async def test_a_hit_costs_one_round_trip_and_a_miss_five(on_every_pair: CacheRig) -> None:
    """Look; take the lease, look again; store; release."""
    action = Action()
    await wrap(on_every_pair, action)
    missed = len(on_every_pair.steps)
    await wrap(on_every_pair, action)
    assert on_every_pair.steps[missed:] == [LOOK]
    assert on_every_pair.steps[:missed] == [
        LOOK, WRITE, LOOK, WRITE, "catalog.delete_entries_batch",
    ]  # fmt: skip


async def test_without_a_lease_a_miss_costs_two_round_trips(caching: CacheRig) -> None:
    await wrap(caching, Action(), lease=None)
    assert caching.steps == [LOOK, WRITE]


async def test_skip_cache_runs_and_keeps_the_result(caching: CacheRig) -> None:
    action = Action()
    await wrap(caching, action)
    told = await wrap(caching, action, skip_cache=True)
    assert (told["run"], told["_cache_hit"]) == (2, False)
    assert (await wrap(caching, action))["run"] == 2


async def test_a_cache_that_is_not_enabled_is_left_alone(caching: CacheRig) -> None:
    action = Action()
    told = await wrap(caching, action, cache_enabled=False)
    assert told == {"run": 1, "_cache_hit": False, "_cache_key": None, "_cache_created_at": None}
    assert caching.steps == []


async def test_what_somebody_else_stored_under_the_key_is_a_hit(caching: CacheRig) -> None:
    await caching.rig.ltm.store("mine", {"a": 1})
    action = Action()
    told = await wrap(caching, action, key="mine")
    assert (told["a"], told["_cache_hit"], action.runs) == (1, True, 0)
    assert datetime.fromisoformat(told["_cache_created_at"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "forged",
    [
        {"_cache_took_s": 10**400},
        {"_cache_took_s": "long"},
        {"_cache_took_s": -1e308},
        {"_cache_created_at": 5},
        {"_cache_failure": 5},
        {"_cache_action": ["x"]},
    ],
    ids=str,
)
async def test_metadata_that_no_cache_wrote_fails_nothing(
    caching: CacheRig, forged: dict[str, Any]
) -> None:
    await caching.rig.ltm.store("k", {"run": 0}, metadata=forged)
    told = await wrap(caching, Action(), key="k", early_refresh=100, ttl_seconds=60)
    assert datetime.fromisoformat(told["_cache_created_at"]).utcoffset() == timedelta(0)
    entry = await caching.cache.get("k")
    assert (entry.action, entry.failure) in {(None, None), ("tests.cache.rigs.Action.run", None)}


# Plain functions


async def test_a_plain_function_runs_beside_the_loop_with_the_caller_s_context(
    caching: CacheRig,
) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("me")
    ran: list[tuple[str, bool]] = []

    def plain(city: str) -> str:
        ran.append((who.get(), threading.current_thread() is threading.main_thread()))
        return city.upper()

    for _ in range(2):
        assert (await caching.cache.wrap(plain, {"city": "rome"}))["result"] == "ROME"
    assert ran == [("me", False)]


async def test_a_plain_function_s_error_is_the_caller_s(caching: CacheRig) -> None:
    def fails() -> None:
        raise KeyError("k")

    def stops() -> None:
        raise StopIteration

    with pytest.raises(KeyError):
        await caching.cache.wrap(fails)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await caching.cache.wrap(stops)


# Expiry


async def test_a_cached_action_hits_again_after_its_first_expiry(on_every_pair: CacheRig) -> None:
    action = Action(lambda run: {"same": "content"})
    for _ in range(3):
        for hit in (False, True):
            told = await wrap(on_every_pair, action, ttl_seconds=10)
            assert told["_cache_hit"] is hit
        on_every_pair.advance(11)
    assert action.runs == 3


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 60 * 86_400),
        ({"ttl_days": 2}, 2 * 86_400),
        ({"ttl_hours": 1.5}, 5_400),
        ({"ttl_seconds": 7}, 7),
        ({"ttl": timedelta(minutes=1)}, 60),
        ({"ttl": 100, "fresh_for": 10}, 10),
        ({"ttl": 100, "fresh_for": 10, "stale_for": 5, "stale_if_error": 20}, 30),
        ({"ttl": 100, "fresh_for": 10, "stale_for": 500}, 100),
    ],
)
async def test_the_ttl_is_the_entry_s_expiry(
    caching: CacheRig, options: dict[str, Any], seconds: float
) -> None:
    told = await wrap(caching, Action(), **options)
    hit = await caching.rig.ltm.retrieve(told["_cache_key"])
    assert hit.expires_at is not None and hit.updated_at is not None
    assert hit.expires_at - hit.updated_at == timedelta(seconds=seconds)


async def test_without_a_ttl_it_is_for_ever(caching: CacheRig) -> None:
    told = await wrap(caching, Action(), ttl=None)
    assert (await caching.rig.ltm.retrieve(told["_cache_key"])).expires_at is None


async def test_jitter_shortens_each_life_by_up_to_its_part(caching: CacheRig) -> None:
    lives = set()
    for number in range(20):
        told = await caching.cache.wrap(Action().run, {"n": number}, ttl_seconds=1_000, jitter=0.2)
        hit = await caching.rig.ltm.retrieve(told["_cache_key"])
        assert hit.expires_at is not None and hit.updated_at is not None
        lives.add((hit.expires_at - hit.updated_at).total_seconds())
    assert len(lives) == 20
    assert min(lives) >= 800 and max(lives) <= 1_000


async def test_a_cleanup_removes_what_has_expired_with_its_blobs(on_every_pair: CacheRig) -> None:
    action = Action(lambda run: {"text": LARGE})
    for number in range(4):
        await on_every_pair.cache.wrap(action.run, {"n": number}, ttl_seconds=10)
    assert len(await on_every_pair.rig.objects()) == 4
    on_every_pair.advance(11)
    await on_every_pair.cache.wrap(
        action.run, {"n": 9}, ttl_seconds=10, cleanup_probability=1, cleanup_limit=3
    )
    assert len(await on_every_pair.rig.objects()) == 2
    assert (await on_every_pair.rig.ltm.stats()).expired == 1


async def test_a_cleanup_follows_one_miss_in_twenty_and_no_hit(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(caching.rig.ltm)
    for draw, cleanups in ((0.051, 0), (0.049, 1)):
        monkeypatch.setattr("ltm_async.cache.answering.random.random", lambda draw=draw: draw)
        caching.steps.clear()
        for _ in range(2):
            await cache.wrap(Action().run, {"draw": draw})
        assert caching.steps.count("catalog.expire_entries") == cleanups


# Failures of the action


async def test_an_exception_is_raised_and_not_kept(on_every_pair: CacheRig) -> None:
    action = Action()
    action.failure = RuntimeError("broken")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            await wrap(on_every_pair, action)
    assert action.runs == 2
    assert (await on_every_pair.rig.ltm.list_entries()).entries == []


async def test_a_reported_failure_is_not_kept(caching: CacheRig) -> None:
    action = Action(lambda run: {"success": False, "error": "none"})
    for _ in range(2):
        told = await wrap(caching, action)
        assert (told["success"], told["_cache_hit"]) == (False, False)
        assert told["_cache_created_at"] is None
    assert action.runs == 2


async def test_failures_are_kept_when_asked_for_as_long_as_asked(caching: CacheRig) -> None:
    action = Action()
    action.failure = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        await wrap(caching, action, error_ttl=30)
    with pytest.raises(CachedFailureError, match=r"^RuntimeError: broken$") as caught:
        await wrap(caching, action, error_ttl=30)
    assert caught.value.error_type == "RuntimeError"
    assert action.runs == 1
    caching.advance(31)
    action.failure = None
    assert (await wrap(caching, action))["run"] == 2


async def test_a_reported_failure_is_kept_when_asked(caching: CacheRig) -> None:
    action = Action(lambda run: {"success": False, "error": "none"})
    await wrap(caching, action, error_ttl=30)
    told = await wrap(caching, action, error_ttl=30)
    assert (told["error"], told["_cache_hit"], action.runs) == ("none", True, 1)
    caching.advance(31)
    await wrap(caching, action)
    assert action.runs == 2


async def test_an_error_text_that_no_store_could_keep_is_kept_all_the_same(
    caching: CacheRig,
) -> None:
    action = Action()
    action.failure = RuntimeError("\0 \ud800 " + "x" * 50_000)
    with pytest.raises(RuntimeError):
        await wrap(caching, action, error_ttl=30)
    with pytest.raises(CachedFailureError):
        await wrap(caching, action, error_ttl=30)


# Results that cannot be kept


async def test_what_is_no_json_is_returned_and_not_kept(
    caching: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    action = Action(lambda run: {"when": datetime.now(UTC)})
    for _ in range(2):
        told = await wrap(caching, action)
        assert isinstance(told["when"], datetime)
        assert (told["_cache_hit"], told["_cache_created_at"]) == (False, None)
    assert action.runs == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "value has a datetime" in caplog.text


# Failures of the memory


@pytest.mark.parametrize("on_unavailable", ["raise", "degrade"])
@pytest.mark.parametrize("mode", [Mode.ERROR, Mode.LOST_REPLY, Mode.DOWN])
@pytest.mark.parametrize("at", range(5))
async def test_a_memory_that_fails_at_any_step_neither_fails_nor_repeats_the_action(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, at: int, mode: Mode, on_unavailable: str
) -> None:
    from .rigs import make_cache_rig

    caching = make_cache_rig("memory+memory", tmp_path, monkeypatch, on_unavailable=on_unavailable)
    caching.rig.faults.at, caching.rig.faults.mode = at, mode
    action = Action()
    told = await wrap(caching, action)
    assert caching.rig.faults.reached
    assert (told["run"], told["_cache_hit"], action.runs) == (1, False, 1)
    await caching.rig.aclose()


async def test_a_memory_that_hangs_holds_the_action_up_for_its_timeout_only(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(caching.rig.catalog, "get_entries_batch", hang)
    monkeypatch.setattr(caching.rig.catalog, "track_entries_batch", hang)
    action = Action()
    told = await wrap(caching, action, timeout=0.05)
    assert (told["run"], told["_cache_created_at"], action.runs) == (1, None, 1)


async def test_what_this_process_remembers_is_no_hit_while_the_catalog_is_down(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from .rigs import make_cache_rig

    caching = make_cache_rig("memory+memory", tmp_path, monkeypatch, on_unavailable="degrade")
    action = Action()
    told = await wrap(caching, action)
    caching.go_down()
    assert (await caching.rig.ltm.retrieve(told["_cache_key"])).source == "fallback"
    told = await wrap(caching, action)
    assert (told["run"], told["_cache_hit"], told["_cache_created_at"]) == (2, False, None)
    await caching.rig.aclose()


async def test_a_closed_memory_does_not_fail_the_action(
    caching: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    await caching.rig.ltm.aclose()
    assert (await wrap(caching, Action()))["run"] == 1
    assert "the backend is closed" in caplog.text


async def test_a_damaged_entry_is_a_miss_and_is_healed(caching: CacheRig) -> None:
    action = Action(lambda run: {"text": LARGE})
    await wrap(caching, action)
    for path in await caching.rig.objects():
        await caching.rig.blobs.delete([path])
    assert not (await wrap(caching, action))["_cache_hit"]
    assert (await wrap(caching, action))["_cache_hit"]
    assert action.runs == 2


async def test_a_cleanup_that_fails_or_hangs_does_not_fail_the_action(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("ltm_async.cache.answering.CLEANUP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(caching.rig.catalog, "expire_entries", hang)
    assert (await wrap(caching, Action(), cleanup_probability=1))["run"] == 1
    monkeypatch.undo()
    caching.rig.faults.at = len(caching.steps) + 4
    caching.rig.faults.mode = Mode.DOWN
    assert (await wrap(caching, Action(), cleanup_probability=1, skip_cache=True))["run"] == 1


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key_strategy": "md5"}, "key_strategy is 'md5'"),
        ({"key_strategy": "custom"}, "need each other"),
        ({"key": "k", "key_strategy": "args"}, "need each other"),
        ({"key": 5}, "key must be str or a callable"),
        ({"key_source": "city"}, "key_source is for"),
        ({"ignore": "city"}, "ignore must be a collection"),
        ({"code_version": 5}, "code_version must be str"),
        ({"name": "x" * 257}, "name has 257 bytes"),
        ({"ttl_days": 1, "ttl_hours": 1}, "exclude each other"),
        ({"ttl": 5, "ttl_hours": 1}, "exclude each other"),
        ({"ttl_days": 0}, "ttl_days is 0"),
        ({"ttl_seconds": float("nan")}, "ttl_seconds is nan"),
        ({"ttl_hours": "1"}, "ttl_hours must be a number"),
        ({"ttl_days": True}, "ttl_days must be a number"),
        ({"ttl": -1}, "ttl is -1 s"),
        ({"ttl": "5"}, "ttl must be seconds"),
        ({"jitter": 1.1}, "jitter is 1.1"),
        ({"jitter": None}, "jitter must be a number"),
        ({"fresh_for": 0}, "fresh_for is 0 s"),
        ({"stale_for": 5}, "count from the end of fresh_for"),
        ({"stale_if_error": 5}, "count from the end of fresh_for"),
        ({"stale_for": None}, "stale_for must be seconds"),
        ({"early_refresh": 101}, "early_refresh is 101"),
        ({"error_ttl": 0}, "error_ttl is 0 s"),
        ({"lease": 0}, "lease is 0 s"),
        ({"lease": 0.1}, "lease is 0.1 s, it must be above 0.1"),
        ({"lease_wait": -1}, "lease_wait is -1 s"),
        ({"refresh_timeout": 0}, "refresh_timeout is 0 s"),
        ({"single_flight": 1}, "single_flight must be True or False"),
        ({"cleanup_probability": 2}, "cleanup_probability is 2"),
        ({"cleanup_limit": 0}, "cleanup_limit is 0"),
        ({"timeout": 0}, "timeout is 0 s"),
        ({"defer": 5}, "defer must be a callable"),
        ({"stale": 5}, "no option 'stale'"),
    ],
)
async def test_a_bad_option_is_refused_before_anything_is_done(
    caching: CacheRig, options: dict[str, Any], said: str
) -> None:
    action = Action()
    with pytest.raises(ConfigError, match=said):
        await wrap(caching, action, **options)
    assert (action.runs, caching.steps) == (0, [])


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"a": {1, 2}}, "metadata has a set"),
        ({"_cache_action": "x"}, "names in _cache_ are the cache's"),
        ({"a": "x" * 16_300}, "metadata has"),
        ([1], "metadata must be a mapping"),
    ],
)
async def test_bad_metadata_is_refused_before_anything_is_done(
    caching: CacheRig, metadata: Any, said: str
) -> None:
    action = Action()
    with pytest.raises(InvalidEntryError, match=said):
        await wrap(caching, action, metadata=metadata)
    assert (action.runs, caching.steps) == (0, [])


@pytest.mark.parametrize("args", [[1], "city", {1: 2}])
async def test_arguments_have_names(caching: CacheRig, args: Any) -> None:
    with pytest.raises(InvalidEntryError, match="args must be a mapping"):
        await caching.cache.wrap(Action().run, args)


async def test_a_cache_needs_a_backend_and_an_action_a_name(caching: CacheRig) -> None:
    for wrong in (SyncLTMBackend("memory:", "memory:"), "memory:"):
        with pytest.raises(ConfigError, match="ltm must be an LTMBackend"):
            Cache(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="prefix has 65 bytes"):
        Cache(LTMBackend("memory:", "memory:"), prefix="x" * 65)
    with pytest.raises(ConfigError, match="no option 'tll', did you mean 'ttl'"):
        Cache(LTMBackend("memory:", "memory:"), tll=5)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="action must be a callable"):
        await caching.cache.wrap("action")  # type: ignore[arg-type]
