"""Fifty concurrent misses run an action once, and a cancelled caller takes nobody along."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from ltm_async import LTMBackend
from ltm_async.cache import Cache
from ltm_async.cache.flights import flights_of

from .rigs import Action, CacheRig

CALLERS = 50


async def turns(number: int = 50) -> None:
    """Let everybody else go on for a while; no time needs to pass."""
    for _ in range(number):
        await asyncio.sleep(0)


def tasks_but_this() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


@pytest.mark.parametrize("lease", [None, 30])
async def test_fifty_concurrent_misses_run_the_action_once(
    on_every_pair: CacheRig, lease: float | None
) -> None:
    action = Action()
    answers = await asyncio.gather(
        *(on_every_pair.cache.wrap(action.run, {"a": 1}, lease=lease) for _ in range(CALLERS))
    )
    assert action.runs == 1
    assert {answer["run"] for answer in answers} == {1}
    assert on_every_pair.steps.count("catalog.get_entries_batch") == (1 if lease is None else 2)


async def test_fifty_misses_that_come_at_any_moment_run_the_action_once(
    on_every_pair: CacheRig,
) -> None:
    """While the first looks, runs, stores and releases."""
    action = Action()

    async def late(number: int) -> None:
        await turns(number)
        await on_every_pair.cache.wrap(action.run, {"a": 1}, lease=None)

    await asyncio.gather(*(late(number) for number in range(CALLERS)))
    assert action.runs == 1


async def test_two_caches_of_one_backend_share_their_flights(caching: CacheRig) -> None:
    action = Action()
    other = Cache(caching.rig.ltm)
    await asyncio.gather(
        caching.cache.wrap(action.run), other.wrap(action.run), caching.cache.wrap(action.run)
    )
    assert action.runs == 1


async def test_other_namespaces_and_keys_have_their_own(caching: CacheRig) -> None:
    action = Action()
    other = Cache(LTMBackend(caching.rig.catalog, caching.rig.blobs, namespace="other"))
    await asyncio.gather(
        caching.cache.wrap(action.run, {"a": 1}),
        caching.cache.wrap(action.run, {"a": 2}),
        other.wrap(action.run, {"a": 1}),
    )
    assert action.runs == 3


async def test_it_can_be_turned_off(caching: CacheRig) -> None:
    action = Action()
    action.hold()
    calls = [
        asyncio.create_task(caching.cache.wrap(action.run, single_flight=False, lease=None))
        for _ in range(3)
    ]
    await turns()
    assert action.runs == 3
    action.let_go()
    await asyncio.gather(*calls)


async def test_each_caller_has_a_value_of_its_own(caching: CacheRig) -> None:
    """Of a run, and of a hit."""
    action = Action(lambda run: {"list": []})
    for _ in range(2):
        answers = await asyncio.gather(*(caching.cache.wrap(action.run) for _ in range(5)))
        for number, answer in enumerate(answers):
            answer["list"].append(number)
        assert [answer["list"] for answer in answers] == [[0], [1], [2], [3], [4]]
    assert action.runs == 1


async def test_what_is_no_json_goes_to_all_callers(caching: CacheRig) -> None:
    thing = object()
    action = Action(lambda run: thing)
    answers = await asyncio.gather(*(caching.cache.wrap(action.run) for _ in range(5)))
    assert [answer["result"] for answer in answers] == [thing] * 5
    assert action.runs == 1


async def test_all_callers_get_the_same_exception(caching: CacheRig) -> None:
    action = Action()
    action.failure = RuntimeError("broken")
    answers = await asyncio.gather(
        *(caching.cache.wrap(action.run) for _ in range(CALLERS)), return_exceptions=True
    )
    assert answers == [action.failure] * CALLERS
    assert action.runs == 1


async def test_the_action_has_the_context_of_the_first_caller(caching: CacheRig) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    async def ask() -> str:
        return who.get()

    who.set("me")
    assert (await caching.cache.wrap(ask))["result"] == "me"


# Cancellation


@pytest.mark.parametrize("cancelled", [[0], [3], [0, 1, 2, 3], [1, 2, 3, 4]])
async def test_a_cancelled_caller_takes_nobody_along(
    caching: CacheRig, cancelled: list[int]
) -> None:
    """Not even the first: its run goes on for the others."""
    action = Action()
    action.hold()
    calls = [asyncio.create_task(caching.cache.wrap(action.run)) for _ in range(5)]
    await action.begun.wait()
    await turns()
    for number in cancelled:
        calls[number].cancel()
    await turns()
    action.let_go()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number in cancelled:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert isinstance(answer, dict) and answer["run"] == 1
    assert action.runs == 1
    assert (await caching.cache.wrap(action.run))["_cache_hit"]


async def test_when_the_caller_that_looks_is_cancelled_another_looks(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = caching.rig.catalog.get_entries_batch
    free = asyncio.Event()

    async def held(*args: Any) -> Any:
        await free.wait()
        return await look(*args)

    monkeypatch.setattr(caching.rig.catalog, "get_entries_batch", held)
    action = Action()
    calls = [asyncio.create_task(caching.cache.wrap(action.run, lease=None)) for _ in range(5)]
    await turns()
    calls[0].cancel()
    calls[3].cancel()
    await turns()
    assert len(caching.steps) == 2
    free.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, dict) for answer in answers] == [False, True, True, False, True]
    assert action.runs == 1
    assert flights_of(caching.rig.ltm)._flying == {}


async def test_the_last_cancelled_caller_cancels_the_run_and_waits_for_its_end(
    caching: CacheRig,
) -> None:
    action = Action()
    action.hold()
    before = tasks_but_this()
    calls = [asyncio.create_task(caching.cache.wrap(action.run)) for _ in range(5)]
    await action.begun.wait()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (action.runs, action.ended) == (1, 1)
    assert tasks_but_this() == before
    action.let_go()
    told = await caching.cache.wrap(action.run, lease_wait=0)
    assert (told["run"], told["_cache_hit"]) == (2, False)


async def test_a_cancelled_run_gives_its_lease_back(caching: CacheRig) -> None:
    action = Action()
    action.hold()
    call = asyncio.create_task(caching.cache.wrap(action.run))
    await action.begun.wait()
    assert [entry.key[:13] for entry in (await caching.rig.ltm.list_entries()).entries] == [
        "_cache/lease/"
    ]
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (await caching.rig.ltm.list_entries()).entries == []


async def test_a_call_that_comes_after_a_cancelled_run_starts_anew(caching: CacheRig) -> None:
    action = Action()
    action.hold()
    call = asyncio.create_task(caching.cache.wrap(action.run, lease=None))
    await action.begun.wait()
    call.cancel()
    later = asyncio.create_task(caching.cache.wrap(action.run, lease=None))
    action.let_go()
    assert (await later)["run"] == 2
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_nothing_is_left_when_calls_have_ended(caching: CacheRig) -> None:
    before = tasks_but_this()
    action = Action()
    await asyncio.gather(
        *(caching.cache.wrap(action.run, {"n": n % 3}) for n in range(20)),
        return_exceptions=True,
    )
    assert tasks_but_this() == before
    assert flights_of(caching.rig.ltm)._flying == {}


def test_a_cache_serves_one_event_loop_after_another(tmp_path: Any) -> None:
    action_runs = []

    async def find(n: int) -> int:
        action_runs.append(n)
        return n

    cache = Cache(LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs"))

    async def main() -> None:
        await asyncio.gather(*(cache.wrap(find, {"n": 1}) for _ in range(5)))

    for _ in range(2):
        asyncio.run(main())
    assert action_runs == [1]


# Invalidation meanwhile


async def test_a_result_that_was_invalidated_while_it_was_made_is_not_kept(
    caching: CacheRig,
) -> None:
    action = Action()
    action.hold()
    old = asyncio.create_task(caching.cache.wrap(action.run, key="k", lease=None))
    await action.begun.wait()
    await caching.cache.invalidate("k")
    new = asyncio.create_task(caching.cache.wrap(action.run, key="k", lease=None))
    await turns()
    action.let_go()
    told = await old
    assert (told["run"], told["_cache_created_at"]) == (1, None)
    assert (await new)["run"] == 2
    assert (await caching.cache.wrap(action.run, key="k"))["run"] == 2


async def test_a_call_after_an_invalidation_never_joins_a_look_from_before_it(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = Action()
    await caching.cache.wrap(action.run, key="k", lease=None)
    look, delete = caching.rig.catalog.get_entries_batch, caching.rig.ltm.delete
    free = asyncio.Event()
    early: list[asyncio.Task[dict[str, Any]]] = []

    async def looks_and_is_held(*args: Any) -> Any:
        rows = await look(*args)
        await free.wait()
        return rows

    async def meanwhile(*args: Any, **kwargs: Any) -> Any:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(caching.rig.catalog, "get_entries_batch", looks_and_is_held)
            early.append(asyncio.create_task(caching.cache.wrap(action.run, key="k", lease=None)))
            await turns()
        return await delete(*args, **kwargs)

    monkeypatch.setattr(caching.rig.ltm, "delete", meanwhile)
    await caching.cache.invalidate("k")
    assert (await caching.cache.wrap(action.run, key="k", lease=None))["run"] == 2
    free.set()
    assert (await early[0])["run"] == 1


async def test_what_was_made_after_an_invalidation_is_not_replaced_by_what_was_made_before(
    caching: CacheRig,
) -> None:
    before, after = Action(lambda run: "before"), Action(lambda run: "after")
    before.hold()
    old = asyncio.create_task(caching.cache.wrap(before.run, key="k", lease=None))
    await before.begun.wait()
    await caching.cache.invalidate("k")
    await caching.cache.wrap(after.run, key="k", lease=None)
    before.let_go()
    assert (await old)["result"] == "before"
    assert (await caching.rig.ltm.retrieve("k")).value == "after"


async def test_an_invalidation_during_the_store_removes_what_was_stored(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = caching.rig.ltm.store

    async def invalidated(*args: Any, **kwargs: Any) -> Any:
        stored = await store(*args, **kwargs)
        flights_of(caching.rig.ltm).leave_behind("k")
        return stored

    monkeypatch.setattr(caching.rig.ltm, "store", invalidated)
    told = await caching.cache.wrap(Action().run, key="k", lease=None)
    assert told["_cache_created_at"] is None
    assert not (await caching.rig.ltm.retrieve("k")).found
