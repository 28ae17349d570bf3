"""The checks of histories take what an order explains, and refuse what none does."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import random
from collections.abc import Callable
from typing import Any

import pytest

from ltm_async import ConflictError, LTMBackend, MemoryBlobStore, MemoryCatalog, OutcomeUnknownError
from ltm_async.testing import (
    Faults,
    Mode,
    Recorder,
    Step,
    check_history,
    check_versions,
    faulty_catalog,
    read_history,
)

SEEDS = range(15)


def step(kind: str, begins: int, ends: int, **fields: Any) -> Step:
    given = {"client": "c", "key": "k", "status": "ok", **fields}
    return Step(kind=kind, invoked_ns=begins, returned_ns=ends, **given)


def judged(*steps: Step) -> tuple[bool, bool]:
    """Whether the exact and the cheap check find nothing."""
    return check_history(steps) == [], check_versions(steps) == []


def simulated(seed: int, *, count: int = 60, clients: int = 6) -> list[Step]:
    """What clients are told by a store whose calls each take effect at one moment."""
    seeded = random.Random(seed)
    free_at = [0.0] * clients
    moments: list[tuple[float, float, float]] = []
    for _ in range(count):
        client = min(range(clients), key=lambda number: free_at[number])
        begins = free_at[client] + seeded.random() * 0.1
        effect = begins + seeded.random()
        ends = effect + seeded.random()
        free_at[client] = ends
        moments.append((effect, begins, ends))
    value: str | None = None
    version = 0
    steps = []
    for number, (_, begins, ends) in enumerate(sorted(moments)):
        kind = seeded.choice(["store", "store", "retrieve", "retrieve", "swap", "touch", "delete"])
        made = step(kind, round(begins * 1e6), round(ends * 1e6))
        match kind:
            case "retrieve":
                made.value, made.version = value, None if value is None else version
            case "delete":
                made.done, value = value is not None, None
            case "touch":
                made.done = value is not None
                version += made.done
                made.version = version if made.done else None
            case _:
                if kind == "swap":
                    now = 0 if value is None else version
                    made.if_version = now if seeded.random() < 0.7 else version + 1
                    made.done = made.if_version == now
                made.kind, made.value = "store", f"v{number}"
                if made.done:
                    version += 1
                    value, made.version = made.value, version
        if seeded.random() < 0.08 and made.kind != "retrieve":
            made.status, made.returned_ns, made.version, made.done = "unknown", None, None, True
        steps.append(made)
    return steps


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_of_calls_that_take_effect_at_one_moment_is_accepted(seed: int) -> None:
    assert judged(*simulated(seed)) == (True, True)


def stale(steps: list[Step], seeded: random.Random) -> None:
    """A read gives what an earlier one gave, and a write that is over has replaced."""
    reads = [s for s in steps if s.kind == "retrieve" and s.value]
    early, late = reads[0], reads[-1]
    late.value, late.version = early.value, early.version


def lost(steps: list[Step], seeded: random.Random) -> None:
    """What was stored over all else, and acknowledged, is not there for those who come after."""
    end = max(s.returned_ns or s.invoked_ns for s in steps)
    before = next(s for s in steps if s.kind == "retrieve" and s.value)
    highest = max(s.version or 0 for s in steps)
    store = step("store", end + 1, end + 2, value="new", version=highest + 9)
    read = step("retrieve", end + 3, end + 4, value=before.value, version=before.version)
    steps += [store, read]


def resurrected(steps: list[Step], seeded: random.Random) -> None:
    """A delete was acknowledged, and the entry is there again, as it was."""
    end = max(s.returned_ns or s.invoked_ns for s in steps)
    version = max(s.version or 0 for s in steps) + 9
    steps += [
        step("store", end + 1, end + 2, value="new", version=version),
        step("delete", end + 3, end + 4),
        step("retrieve", end + 5, end + 6, value="new", version=version),
    ]


def swapped_twice(steps: list[Step], seeded: random.Random) -> None:
    """Two clients replace the same version."""
    end = max(s.returned_ns or s.invoked_ns for s in steps)
    version = max(s.version or 0 for s in steps) + 9
    steps += [
        step("store", end + 1, end + 2, value="new", version=version),
        step("store", end + 3, end + 9, value="a", version=version + 1, if_version=version),
        step("store", end + 3, end + 9, value="b", version=version + 2, if_version=version),
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", [stale, lost, resurrected, swapped_twice])
def test_a_fault_in_a_good_history_is_found(
    fault: Callable[[list[Step], random.Random], None], seed: int
) -> None:
    steps = simulated(seed)
    fault(steps, random.Random(seed))
    (violation,) = check_history(steps)
    assert violation.key == "k" and violation.steps


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", [stale, lost])
def test_the_cheap_check_finds_versions_that_go_back(
    fault: Callable[[list[Step], random.Random], None], seed: int
) -> None:
    steps = simulated(seed)
    fault(steps, random.Random(seed))
    assert "a version lower than one seen before" in {v.what for v in check_versions(steps)}


STORE = step("store", 1, 2, value="a", version=1)


def test_a_read_beside_a_write_may_give_the_old_or_the_new() -> None:
    write = step("store", 3, 9, value="b", version=2)
    old, new = ({"value": "a", "version": 1}, {"value": "b", "version": 2})
    for seen in (old, new):
        assert judged(STORE, write, step("retrieve", 4, 5, **seen)) == (True, True)
    first, second = step("retrieve", 4, 5, **new), step("retrieve", 6, 7, **old)
    assert judged(STORE, write, first, second) == (False, False)


def test_a_write_whose_outcome_is_unknown_may_happen_late_or_never() -> None:
    write = step("store", 3, 4, value="b", status="unknown")
    old = step("retrieve", 5, 6, value="a", version=1)
    new = step("retrieve", 7, 8, value="b", version=2)
    assert judged(STORE, write, old) == (True, True)
    assert judged(STORE, write, old, new) == (True, True)
    back = step("retrieve", 9, 10, value="a", version=1)
    assert judged(STORE, write, old, new, back) == (False, False)


def test_a_write_that_failed_for_certain_is_never_seen() -> None:
    write = step("store", 3, 4, value="b", status="failed")
    seen = step("retrieve", 5, 6, value="b", version=2)
    assert check_history([STORE, write, seen])


def test_an_entry_that_nobody_deleted_is_there() -> None:
    gone = step("retrieve", 5, 6)
    assert judged(STORE, gone) == (False, False)
    assert judged(STORE, step("delete", 5, 7), gone) == (True, True)
    assert judged(step("delete", 0, 0), STORE, gone) == (False, False)
    assert judged(STORE, step("delete", 3, 4, status="unknown"), gone) == (True, True)
    assert judged(STORE, step("delete", 7, 8), gone) == (False, False)


def test_an_entry_with_an_end_may_be_gone_and_stays_gone() -> None:
    store = dataclasses.replace(STORE, mortal=True)
    there = step("retrieve", 5, 6, value="a", version=1)
    gone = step("retrieve", 7, 8)
    assert judged(store, there, gone) == (True, True)
    assert check_history([store, step("retrieve", 3, 4), there])
    assert judged(store, gone, step("touch", 9, 10, done=False)) == (True, True)
    forever = step("touch", 3, 4, version=2)
    assert check_history([store, forever, gone])


def test_a_refused_swap_needs_another_version() -> None:
    refused = step("store", 3, 4, value="b", if_version=1, done=False)
    assert check_history([STORE, refused])
    assert check_history([STORE, dataclasses.replace(refused, if_version=7)]) == []
    assert check_history([STORE, dataclasses.replace(refused, if_version=0)]) == []
    assert check_history([dataclasses.replace(refused, if_version=0)])


def test_two_writes_or_values_with_one_version_are_found() -> None:
    again = step("store", 1, 9, value="b", version=1)
    assert {v.what for v in check_versions([STORE, again])} == {
        "two values with one version",
        "two writes with one version",
    }
    assert check_history([STORE, again])


def test_an_update_that_missed_a_write_is_found() -> None:
    write = step("store", 3, 4, value="b", version=2)
    update = step("update", 5, 6, value="c", version=3, replaced="b", mortal=None)
    assert judged(STORE, write, update) == (True, True)
    assert check_history([STORE, write, dataclasses.replace(update, replaced="a")])
    assert check_history([STORE, write, dataclasses.replace(update, replaced=None)])


def test_keys_are_judged_apart() -> None:
    other = dataclasses.replace(STORE, key="other")
    gone = step("retrieve", 3, 4)
    assert [v.key for v in check_history([STORE, other, gone])] == ["k"]


def backend(faults: Faults | None = None) -> LTMBackend:
    catalog = faulty_catalog(MemoryCatalog(), faults or Faults())
    return LTMBackend(catalog, MemoryBlobStore(), on_unavailable="raise")


async def test_a_recorder_keeps_what_each_client_was_told() -> None:
    log = io.StringIO()
    recorder = Recorder(log=log)
    ltm = backend()
    client = recorder.client("one", ltm)
    stored = await client.store("k", 1, ttl=60)
    with pytest.raises(ConflictError):
        await client.store("k", 2, if_absent=True)
    await client.update("k", 3)
    await client.update("new", 4)
    await client.touch("k")
    hit = await client.retrieve("k")
    await client.delete("k")
    await client.delete("k")
    await client.store_batch([{"key": "a", "value": 5}, {"key": "b", "value": 6, "ttl": 9}])
    await client.retrieve_batch(["a", "c"])
    await client.delete_batch(["a", "c"])
    history = recorder.history()
    told = [(s.key, s.kind, s.status, s.done, s.mortal) for s in history]
    assert told == [
        ("k", "store", "ok", True, True),
        ("k", "store", "ok", False, False),
        ("k", "update", "ok", True, None),
        ("new", "update", "ok", True, None),
        ("k", "touch", "ok", True, False),
        ("k", "retrieve", "ok", True, False),
        ("k", "delete", "ok", True, False),
        ("k", "delete", "ok", False, False),
        ("a", "store", "ok", True, False),
        ("b", "store", "ok", True, True),
        ("a", "retrieve", "ok", True, False),
        ("c", "retrieve", "ok", True, False),
        ("a", "delete", "ok", True, False),
        ("c", "delete", "ok", False, False),
    ]
    assert (history[0].version, history[1].if_version) == (stored.version, 0)
    assert (history[2].replaced, history[3].replaced) == (history[0].value, None)
    assert (history[5].value, history[5].version) == (hit.content_hash, hit.version)
    assert history[11].value is None
    assert judged(*history) == (True, True)
    assert read_history([io.StringIO(log.getvalue())]) == history


async def test_a_lost_reply_and_a_cancelled_call_are_unknown_and_a_refusal_is_failed() -> None:
    for mode, status, error in (
        (Mode.DOWN, "failed", "UnavailableError"),
        (Mode.CANCEL_AFTER, "unknown", "CancelledError"),
    ):
        faults = Faults(at=0, mode=mode)
        client = Recorder().client("one", backend(faults))
        with pytest.raises((Exception, asyncio.CancelledError)):
            await faults.run(client.store("k", 1))
        (made,) = client._recorder.history()
        assert (made.status, made.error) == (status, error)


async def test_what_degraded_and_may_have_happened_is_not_kept_as_having_found_nothing() -> None:
    class Lost(Faults):
        async def step(self, name: str, call: Callable[[], Any]) -> Any:
            raise OutcomeUnknownError("lost in a test", store="faults")

    recorder = Recorder()
    catalog = faulty_catalog(MemoryCatalog(), Lost())
    client = recorder.client("one", LTMBackend(catalog, MemoryBlobStore()))
    await client.delete("k")
    await client.touch("k")
    assert [(s.status, s.done) for s in recorder.history()] == [("unknown", True)] * 2


async def test_a_history_is_read_from_what_killed_processes_left() -> None:
    log = io.StringIO()
    client = Recorder(log=log).client("one", backend())
    await client.store("k", 1)
    await client.retrieve("k")
    lines = log.getvalue().splitlines(keepends=True)
    cut = io.StringIO("".join(lines[:3]) + lines[3][:20])
    other = io.StringIO()
    await Recorder(log=other).client("two", backend()).store("k", 2)
    first, second, third = read_history([cut, io.StringIO(other.getvalue())])
    assert (first.status, second.status, second.returned_ns) == ("ok", "unknown", None)
    assert (third.client, third.status) == ("two", "ok")


def test_a_search_that_would_never_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm_async.testing.checking.MAX_STATES", 1_000)
    steps = [step("store", 0, 99, value=f"v{n}", status="unknown") for n in range(20)]
    with pytest.raises(RuntimeError, match="more than 1000 states of 'k'"):
        check_history([*steps, step("retrieve", 100, 101, value="v99", version=1)])
