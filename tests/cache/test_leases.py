"""Processes that miss the same key at once: one runs the action, whatever becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ltm_async import LTMBackend
from ltm_async.cache import Cache
from ltm_async.cache.leases import RENEWALS, Lease, lease_key
from ltm_async.deadline import Deadline
from ltm_async.errors import LTMError
from ltm_async.testing import Faults, Mode, faulty_catalog

from ..databases import Database, wait_for
from .caller import CALLERS
from .rigs import Action, CacheRig
from .test_flights import turns

ROOT = pathlib.Path(__file__).parents[2]
KEY = "k"
PROCESSES = 4


def other_process(caching: CacheRig, **options: Any) -> Cache:
    """As good as one: a backend of its own shares no flight with ours."""
    ltm = LTMBackend(
        faulty_catalog(caching.rig.catalog, caching.rig.faults),
        caching.rig.blobs,
        on_unavailable="raise",
    )
    return Cache(ltm, cleanup_probability=0, **options)


# Real processes


@contextlib.contextmanager
def callers(
    database: Database, folder: pathlib.Path, *, hold: bool
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have connected and wait to be told."""
    command = [sys.executable, "-m", "tests.cache.caller", database.dsn, database.schema]
    started = [
        subprocess.Popen(
            [*command, str(folder), "hold" if hold else ""],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answers_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=50)
    answers: list[dict[str, Any]] = json.loads(out)
    assert len(answers) == CALLERS
    return answers


def runs_in(folder: pathlib.Path) -> list[int]:
    file = folder / "runs"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


async def test_four_processes_with_ten_callers_each_run_the_action_once(
    database: Database, tmp_path: pathlib.Path
) -> None:
    with callers(database, tmp_path, hold=False) as processes:
        for process in processes:
            tell(process)
        answers = [answer for process in processes for answer in answers_of(process)]
    runs = runs_in(tmp_path)
    assert len(runs) == 1
    assert {answer["by"] for answer in answers} == set(runs)
    assert sum(not answer["_cache_hit"] for answer in answers) == CALLERS  # all in one process


async def test_when_the_one_that_runs_it_is_killed_a_second_takes_over_at_the_lease_s_end(
    database: Database, tmp_path: pathlib.Path
) -> None:
    clock = database.clock_at(None)
    with callers(database, tmp_path, hold=True) as processes:
        for process in processes:
            tell(process)
        await wait_for(lambda: runs_in(tmp_path), timeout_s=30)
        (first,) = runs_in(tmp_path)
        os.kill(first, signal.SIGKILL)
        assert len(database.rows("SELECT FROM {}ltm_entries")) == 1  # its lease
        assert runs_in(tmp_path) == [first]
        clock.advance(31)
        await wait_for(lambda: len(runs_in(tmp_path)) == 2, timeout_s=30)
        (tmp_path / "go").touch()
        answers = [
            answer
            for process in processes
            if process.pid != first
            for answer in answers_of(process)
        ]
    runs = runs_in(tmp_path)
    assert len(runs) == 2 and runs[1] != first
    assert {answer["by"] for answer in answers} == {runs[1]}
    assert database.rows("SELECT FROM {}ltm_entries WHERE key LIKE '\\_cache/lease/%'") == []


# One process that holds the lease, and others that wait


async def test_who_waits_is_given_what_the_holder_makes(on_every_pair: CacheRig) -> None:
    action = Action()
    action.hold()
    first = asyncio.create_task(on_every_pair.cache.wrap(action.run, key=KEY))
    await action.begun.wait()
    other = asyncio.create_task(other_process(on_every_pair).wrap(action.run, key=KEY))
    looks = on_every_pair.steps.count("catalog.get_entries_batch")
    await wait_for(lambda: on_every_pair.steps.count("catalog.get_entries_batch") > looks + 2)
    action.let_go()
    assert (await first)["_cache_hit"] is False
    assert (await other)["_cache_hit"] is True
    assert action.runs == 1


async def test_who_waits_does_not_wait_for_the_lease_s_end_once_there_is_a_result(
    caching: CacheRig,
) -> None:
    assert await Lease.take(caching.rig.ltm, KEY, 600, timeout=None)
    action = Action()
    call = asyncio.create_task(caching.cache.wrap(action.run, key=KEY, lease_wait=20))
    looks = caching.steps.count("catalog.get_entries_batch")
    await wait_for(lambda: caching.steps.count("catalog.get_entries_batch") > looks + 1)
    await caching.rig.ltm.store(KEY, {"run": "theirs"})
    told = await call
    assert (told["run"], told["_cache_hit"], action.runs) == ("theirs", True, 0)


async def test_who_waits_runs_it_when_the_holder_failed(caching: CacheRig) -> None:
    action = Action()
    action.hold()
    first = asyncio.create_task(caching.cache.wrap(action.run, key=KEY))
    await action.begun.wait()
    other = asyncio.create_task(other_process(caching).wrap(Action().run, key=KEY))
    await turns()
    action.failure = RuntimeError("broken")
    action.let_go()
    with pytest.raises(RuntimeError, match="broken"):
        await first
    assert (await other)["_cache_hit"] is False


@pytest.mark.parametrize("bound", ["lease_wait", "deadline"])
async def test_a_wait_is_bounded_and_the_action_then_run_without_a_lease(
    caching: CacheRig, bound: str
) -> None:
    assert await Lease.take(caching.rig.ltm, KEY, 600, timeout=None)
    action = Action()
    if bound == "lease_wait":
        told = await caching.cache.wrap(action.run, key=KEY, lease_wait=0.01)
    else:
        async with Deadline(2):
            told = await caching.cache.wrap(action.run, key=KEY)
    assert (told["_cache_hit"], action.runs) == (False, 1)
    assert (await caching.cache.wrap(action.run, key=KEY))["_cache_hit"]


async def test_a_lease_that_ended_is_taken_over(on_every_pair: CacheRig) -> None:
    assert await Lease.take(on_every_pair.rig.ltm, KEY, 30, timeout=None)
    assert await Lease.take(on_every_pair.rig.ltm, KEY, 30, timeout=None) is None
    on_every_pair.advance(31)
    action = Action()
    told = await on_every_pair.cache.wrap(action.run, key=KEY, lease_wait=0)
    assert (told["_cache_hit"], action.runs) == (False, 1)


async def test_who_takes_the_lease_looks_again_before_it_runs(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have stored, and released its lease, between the look and the lease."""
    take = Lease.take

    async def late(ltm: LTMBackend, key: str, life_s: float, *, timeout: float | None) -> Any:
        monkeypatch.undo()
        await caching.rig.ltm.store(KEY, {"run": "theirs"})
        return await take(ltm, key, life_s, timeout=timeout)

    monkeypatch.setattr(Lease, "take", late)
    action = Action()
    told = await caching.cache.wrap(action.run, key=KEY)
    assert (told["run"], told["_cache_hit"], action.runs) == ("theirs", True, 0)
    assert not (await caching.rig.ltm.retrieve(lease_key(KEY))).found


async def test_a_long_wait_looks_at_least_once_a_second(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand looks, in no time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2_000:
            await caching.rig.ltm.store(KEY, {"run": "theirs"})

    assert await Lease.take(caching.rig.ltm, KEY, 3_600, timeout=None)
    monkeypatch.setattr("ltm_async.cache.turns.asyncio.sleep", sleep)
    told = await caching.cache.wrap(Action().run, key=KEY, lease_wait=3_600)
    assert told["run"] == "theirs"
    assert all(0.025 <= seconds <= 0.05 for seconds in slept[:1])
    assert max(slept) <= 1
    assert min(slept[10:]) >= 0.5


async def test_it_can_be_turned_off(caching: CacheRig) -> None:
    assert await Lease.take(caching.rig.ltm, KEY, 600, timeout=None)
    assert not (await caching.cache.wrap(Action().run, key=KEY, lease=None))["_cache_hit"]


# A lease


async def test_a_lease_is_an_entry_that_ends_by_itself(caching: CacheRig) -> None:
    assert await Lease.take(caching.rig.ltm, KEY, 30, timeout=None)
    held = await caching.rig.ltm.retrieve(lease_key(KEY))
    assert held.expires_at is not None and held.created_at is not None
    assert (held.expires_at - held.created_at).total_seconds() == 30
    assert list(held.value) == ["holder"]


async def test_a_lease_is_renewed_while_the_action_runs(caching: CacheRig) -> None:
    action = Action()
    action.hold()
    life_s = 0.15
    call = asyncio.create_task(caching.cache.wrap(action.run, key=KEY, lease=life_s))
    await action.begun.wait()
    versions: set[int | None] = set()

    async def seen() -> None:
        while len(versions) <= RENEWALS:
            held = await caching.rig.ltm.retrieve(lease_key(KEY))
            assert held.found
            versions.add(held.version)
            await asyncio.sleep(0.01)

    await asyncio.wait_for(seen(), 30)
    action.let_go()
    await call
    assert not (await caching.rig.ltm.retrieve(lease_key(KEY))).found


async def test_a_lease_that_another_took_is_neither_renewed_nor_released(
    caching: CacheRig,
) -> None:
    lease = await Lease.take(caching.rig.ltm, KEY, 30, timeout=None)
    assert lease is not None
    caching.advance(31)
    theirs = await Lease.take(caching.rig.ltm, KEY, 30, timeout=None)
    assert theirs is not None
    held = await caching.rig.ltm.retrieve(lease_key(KEY))
    await lease.release()
    await lease.renew(timeout=None)
    await lease.release()
    now = await caching.rig.ltm.retrieve(lease_key(KEY))
    assert (now.version, now.expires_at) == (held.version, held.expires_at)


async def test_a_memory_that_fails_gives_no_lease(caching: CacheRig) -> None:
    caching.go_down()
    with pytest.raises(LTMError):
        await Lease.take(caching.rig.ltm, KEY, 30, timeout=None)


@pytest.mark.parametrize("mode", [Mode.CANCEL_BEFORE, Mode.CANCEL_AFTER])
@pytest.mark.parametrize("at", range(5))
async def test_a_call_that_is_cancelled_anywhere_leaves_no_lease_that_was_known_to_be_held(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, at: int, mode: Mode
) -> None:
    """But where the answer that gave it never came, or the release was cut: it ends by itself."""
    from .rigs import make_cache_rig

    faults = Faults(at=at, mode=mode)
    caching = make_cache_rig("memory+memory", tmp_path, monkeypatch, faults)
    with contextlib.suppress(asyncio.CancelledError):
        await faults.run(caching.cache.wrap(Action().run, key=KEY))
    assert faults.reached
    held = await caching.rig.ltm.retrieve(lease_key(KEY))
    unknown = (at, mode) in {(1, Mode.CANCEL_AFTER), (4, Mode.CANCEL_BEFORE)}
    assert held.found is unknown
    caching.advance(31)
    assert await Lease.take(caching.rig.ltm, KEY, 30, timeout=None)
    await caching.rig.aclose()
