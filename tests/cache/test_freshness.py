"""Fresh, stale and over: what is served, what is refreshed, before the answer or behind it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ltm_async.cache.flights import flights_of

from .rigs import Action, CacheRig
from .test_flights import tasks_but_this, turns

Work = Callable[[], Awaitable[None]]
FRESH = 10.0
STALE: dict[str, Any] = {"fresh_for": FRESH, "stale_for": 20.0, "ttl": 100}
ON_ERROR: dict[str, Any] = {"fresh_for": FRESH, "stale_if_error": 20.0, "ttl": 100}


class Place:
    """Where a platform takes work to be done after the answer."""

    def __init__(self) -> None:
        self.work: list[Work] = []

    def add(self, work: Work) -> None:
        self.work.append(work)

    async def run(self) -> None:
        while self.work:
            await self.work.pop(0)()


async def wrap(caching: CacheRig, action: Action, **options: Any) -> tuple[int, bool]:
    told = await caching.cache.wrap(action.run, key="k", **options)
    return told["run"], told["_cache_hit"]


async def hold_the_lease(caching: CacheRig) -> None:
    """As another process does that runs the action."""
    from ltm_async.cache.leases import Lease

    assert await Lease.take(caching.rig.ltm, "k", 30, timeout=None)


async def test_an_entry_is_served_while_fresh_and_made_anew_after(on_every_pair: CacheRig) -> None:
    action = Action()
    await wrap(on_every_pair, action, fresh_for=FRESH, stale_if_error=50)
    on_every_pair.advance(FRESH - 0.1)
    assert await wrap(on_every_pair, action, fresh_for=FRESH, stale_if_error=50) == (1, True)
    on_every_pair.advance(0.1)
    assert await wrap(on_every_pair, action, fresh_for=FRESH, stale_if_error=50) == (2, False)


async def test_a_stale_entry_is_served_at_once_and_refreshed_behind(
    on_every_pair: CacheRig,
) -> None:
    place, action = Place(), Action()
    await wrap(on_every_pair, action, defer=place.add, **STALE)
    on_every_pair.advance(FRESH)
    assert await wrap(on_every_pair, action, defer=place.add, **STALE) == (1, True)
    assert (action.runs, len(place.work)) == (1, 1)
    await place.run()
    assert action.runs == 2
    assert await wrap(on_every_pair, action, defer=place.add, **STALE) == (2, True)
    assert place.work == []


async def test_what_is_handed_to_defer_is_a_coroutine_function(caching: CacheRig) -> None:
    """Starlette and its like look before they call; others await what it gives."""
    handed: list[Any] = []

    async def wait_until(work: Work) -> None:
        handed.append(work)
        await work()

    action = Action()
    await wrap(caching, action, defer=wait_until, **STALE)
    caching.advance(FRESH)
    assert await wrap(caching, action, defer=wait_until, **STALE) == (1, True)
    assert inspect.iscoroutinefunction(handed[0])
    assert action.runs == 2


async def test_without_defer_the_refresh_is_awaited_and_is_the_answer(caching: CacheRig) -> None:
    action = Action()
    before = tasks_but_this()
    await wrap(caching, action, **STALE)
    caching.advance(FRESH)
    assert await wrap(caching, action, **STALE) == (2, False)
    assert await wrap(caching, action, **STALE) == (2, True)
    assert tasks_but_this() == before


async def test_after_its_stale_time_an_entry_is_made_anew(caching: CacheRig) -> None:
    place, action = Place(), Action()
    options = {**STALE, "stale_if_error": 60.0}
    await wrap(caching, action, defer=place.add, **options)
    caching.advance(FRESH + 20)
    assert await wrap(caching, action, defer=place.add, **options) == (2, False)
    assert place.work == []


async def test_many_stale_hits_are_refreshed_once(caching: CacheRig) -> None:
    """Whether their refreshes run together or one after the other."""
    place, action = Place(), Action()
    await wrap(caching, action, defer=place.add, **STALE)
    caching.advance(FRESH)
    for _ in range(3):
        answers = await asyncio.gather(
            *(wrap(caching, action, defer=place.add, **STALE) for _ in range(10))
        )
        assert answers == [(1, True)] * 10
    assert place.work
    await asyncio.gather(*(work() for work in place.work))
    assert action.runs == 2
    await place.run()
    assert action.runs == 2


async def test_a_refresh_that_another_process_makes_is_left_to_it(caching: CacheRig) -> None:
    place, action = Place(), Action()
    await wrap(caching, action, defer=place.add, **STALE)
    caching.advance(FRESH)
    await wrap(caching, action, defer=place.add, **STALE)
    await hold_the_lease(caching)
    await place.run()
    assert action.runs == 1
    assert await wrap(caching, action, **STALE) == (1, True)  # nor waited for before the answer


async def test_a_miss_joins_a_refresh_that_is_under_way(caching: CacheRig) -> None:
    place, action = Place(), Action()
    await wrap(caching, action, defer=place.add, **STALE)
    caching.advance(FRESH)
    await wrap(caching, action, defer=place.add, **STALE)
    action.hold()
    refresh = asyncio.ensure_future(place.work[0]())
    await turns()
    assert action.runs == 2
    await caching.rig.ltm.delete("k")
    miss = asyncio.create_task(wrap(caching, action, defer=place.add, lease=None, **STALE))
    await turns()
    action.let_go()
    assert await miss == (2, False)
    await refresh
    assert action.runs == 2


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize("deferred", [False, True])
async def test_a_refresh_that_fails_leaves_the_stale_entry(
    caching: CacheRig, reported: bool, deferred: bool
) -> None:
    place = Place()
    action = Action(lambda run: {"run": run, "success": run == 1 or not reported})
    options = {**STALE, "error_ttl": 5, "defer": place.add if deferred else None}
    await wrap(caching, action, **options)
    caching.advance(FRESH)
    action.failure = None if reported else RuntimeError("broken")
    assert await wrap(caching, action, **options) == (1, True)
    await place.run()
    assert action.runs == 2
    assert (await caching.cache.get("k")).value["run"] == 1


@pytest.mark.parametrize("deferred", [False, True])
async def test_a_refresh_that_hangs_ends_with_its_timeout(
    caching: CacheRig, deferred: bool
) -> None:
    place, action = Place(), Action()
    options = {**STALE, "refresh_timeout": 0.5, "defer": place.add if deferred else None}
    await wrap(caching, action, **options)
    caching.advance(FRESH)
    action.hold()
    before = tasks_but_this()
    assert await wrap(caching, action, **options) == (1, True)
    await place.run()
    assert (action.runs, action.ended) == (2, 2)
    assert tasks_but_this() == before
    assert flights_of(caching.rig.ltm)._flying == {}


# When the action fails


@pytest.mark.parametrize("reported", [False, True])
async def test_a_stale_entry_stands_in_for_an_action_that_fails(
    on_every_pair: CacheRig, reported: bool
) -> None:
    action = Action(lambda run: {"run": run, "success": run == 1 or not reported})
    await wrap(on_every_pair, action, **ON_ERROR)
    action.failure = None if reported else RuntimeError("broken")
    on_every_pair.advance(FRESH + 19.9)
    assert await wrap(on_every_pair, action, **ON_ERROR) == (1, True)
    assert action.runs == 2
    on_every_pair.advance(0.1)
    if reported:
        assert await wrap(on_every_pair, action, **ON_ERROR) == (3, False)
    else:
        with pytest.raises(RuntimeError, match="broken"):
            await wrap(on_every_pair, action, **ON_ERROR)


async def test_it_may_do_so_while_the_catalog_is_down_too(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what this process remembers."""
    from .rigs import make_cache_rig

    caching = make_cache_rig("memory+memory", tmp_path, monkeypatch, on_unavailable="degrade")
    action = Action()
    await wrap(caching, action, **ON_ERROR)
    caching.go_down()
    action.failure = RuntimeError("broken")
    assert await wrap(caching, action, **ON_ERROR) == (1, True)
    assert action.runs == 2
    await caching.rig.aclose()


# Before it is stale


@pytest.mark.parametrize("options", [{"ttl": 100}, {"fresh_for": 100, "ttl": 500}])
async def test_an_early_refresh_is_likelier_near_the_end_and_for_a_long_run(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The run took 10 s; a draw of 1/e looks 10 s ahead."""
    place, action = Place(), Action()
    now = [0.0]
    monkeypatch.setattr("ltm_async.cache.answering.monotonic", lambda: now[0])

    async def slow(**_: Any) -> dict[str, int]:
        now[0] += 10
        action.runs += 1
        return {"run": action.runs}

    monkeypatch.setattr(action, "run", slow)
    draw = [0.9]
    monkeypatch.setattr("ltm_async.cache.answering.random.random", lambda: draw[0])
    options = {**options, "early_refresh": 1, "defer": place.add}
    await wrap(caching, action, **options)
    for advance, drawn, refreshes in (
        (89, 0.367, 0),
        (1, 0.369, 0),
        (0, 0.367, 1),
        (0, 1.0, 1),
        (0, 0.0, 2),
    ):
        caching.advance(advance)
        draw[0] = drawn
        assert await wrap(caching, action, **options) == (1, True)
        assert len(place.work) == refreshes, drawn
    await place.run()
    assert action.runs == 2
    assert await wrap(caching, action, **{**options, "early_refresh": 0}) == (2, True)


async def test_a_clock_that_is_behind_makes_nothing_stale(caching: CacheRig) -> None:
    action = Action()
    await wrap(caching, action, **STALE)
    caching.rig.clock.advance(-2 * FRESH)
    assert await wrap(caching, action, **STALE) == (1, True)


async def test_durations_may_be_timedeltas(caching: CacheRig) -> None:
    action = Action()
    options: dict[str, Any] = {
        "fresh_for": timedelta(seconds=10),
        "stale_for": timedelta(seconds=5),
        "ttl": timedelta(seconds=12),
    }
    await wrap(caching, action, **options)
    caching.advance(11)
    assert await wrap(caching, action, **options) == (2, False)


async def test_a_cleanup_is_deferred_too(caching: CacheRig) -> None:
    place = Place()
    await wrap(caching, Action(), defer=place.add, cleanup_probability=1)
    assert "catalog.expire_entries" not in caching.steps
    await place.run()
    assert "catalog.expire_entries" in caching.steps


async def test_a_defer_that_fails_does_not_lose_the_answer(
    caching: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(work: Work) -> None:
        raise RuntimeError("the response has been sent")

    assert await wrap(caching, Action(), defer=closed, cleanup_probability=1) == (1, False)
    assert "what defer was given is not done" in caplog.text


async def test_deferred_work_does_not_raise_when_the_memory_is_gone(caching: CacheRig) -> None:
    place, action = Place(), Action()
    await wrap(caching, action, defer=place.add, **STALE)
    caching.advance(FRESH)
    await wrap(caching, action, defer=place.add, **STALE)
    await caching.rig.ltm.aclose()
    await place.run()
    with contextlib.suppress(RuntimeError):
        assert action.runs == 2
