"""Every crash point of an operation in turn: each step, stopped in a mode, and recovered from."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from ...retry import RetryPolicy
from ..clock import ManualClock
from ..faults import Faults, Mode
from .attempts import AGAIN, ONCE, Attempt, Told, attempt
from .operations import OPERATIONS, Operation
from .places import Pair
from .recovery import Look, check_recovery, look_at
from .state import EXPIRED, prepare

KILLS = (Mode.KILL_BEFORE, Mode.KILL_AFTER)
CANCELS = (Mode.CANCEL_BEFORE, Mode.CANCEL_AFTER)
IN_PROCESS = tuple(mode for mode in Mode if mode not in KILLS)
COLLECTION = next(operation for operation in OPERATIONS if operation.name == "collect with audit")


class Prepared(NamedTuple):
    """A pair of stores in the prepared state, for one run."""

    pair: Pair
    now_us: int
    before: Look


class Scene(Protocol):
    """Gives the prepared state as often as it is asked for."""

    def copy(self) -> contextlib.AbstractAsyncContextManager[Prepared]: ...


class PreparedEachTime(Scene):
    """Fills what *make* gives, two empty places, for each run anew."""

    def __init__(self, make: Callable[[], Pair]) -> None:
        self._make = make

    @contextlib.asynccontextmanager
    async def copy(self) -> AsyncIterator[Prepared]:
        pair = self._make()
        clock = pair.catalog.clock_at(ManualClock()())
        await prepare(pair, clock)
        yield Prepared(pair, clock(), await look_at(pair))


class Broken(NamedTuple):
    """A crash point after which something did not hold."""

    point: str
    """The mode, and the number and name of the step."""
    violation: str


async def run(
    prepared: Prepared, operation: Operation, faults: Sequence[Faults], retry: RetryPolicy = ONCE
) -> Attempt:
    """One attempt at *operation* through *faults*, the last of which counts first.

    Raises:
        AssertionError: What a fresh backend finds then is not what the caller may expect.
    """
    pair, now_us, before = prepared
    ended = await attempt(pair, operation, faults, now_us, retry)
    await check_recovery(pair, before, operation, ended, now_us)
    return ended


async def steps_of(
    scene: Scene, operation: Operation, *lost: Faults, retry: RetryPolicy = ONCE
) -> list[str]:
    """The steps that *operation* takes, with faults before them if there are any."""
    counting = Faults()
    async with scene.copy() as prepared:
        ended = await run(prepared, operation, [*lost, counting], retry)
    assert lost or ended.told is Told.DONE, f"unharmed, and told {ended.told.value}"
    return counting.steps


async def stop_at(
    prepared: Prepared,
    operation: Operation,
    at: int,
    mode: Mode,
    *,
    lost_at: int | None = None,
    retry: RetryPolicy = ONCE,
) -> None:
    """Stop *operation* at step *at* in this process, and judge what is told and what is left.

    Raises:
        AssertionError: Something does not hold, or the step was not reached.
    """
    fault = Faults(at=at, mode=mode)
    faults = [fault] if lost_at is None else [Faults(at=lost_at, mode=Mode.LOST_REPLY), fault]
    ended = await run(prepared, operation, faults, retry)
    assert fault.reached, "the step was not reached"
    if mode in CANCELS:
        assert ended.told is Told.CANCELLED, f"I4: cancelled, and told {ended.told.value}"
    elif retry is AGAIN and lost_at is None and _is_made_up_for(operation, mode, ended):
        assert ended.told is Told.DONE, f"I4: {mode.value} once, and told {ended.told.value}"


def _is_made_up_for(operation: Operation, mode: Mode, ended: Attempt) -> bool:
    """Trying again, or settling it by the blobs' reservations, leads to success."""
    if mode in {Mode.LOST_REQUEST, Mode.LATE}:
        return "blobs.put" in ended.steps
    if mode is Mode.LOST_REPLY:
        # Of an expired entry that is gone nobody can tell who removed it.
        return not operation.keeps_house and not operation.removes & EXPIRED
    return mode is Mode.ERROR


async def stop_and_stop_the_collection(
    prepared: Prepared, operation: Operation, fault: Faults, then: Faults
) -> Attempt:
    """*operation* meets *fault*, and the collection of whoever comes next meets *then*.

    Raises:
        AssertionError: Something does not hold afterwards.
    """
    pair, now_us, before = prepared
    ended = await attempt(pair, operation, [fault], now_us, ONCE)
    await attempt(pair, COLLECTION, [then], now_us, ONCE)
    await check_recovery(pair, before, operation, ended, now_us)
    return ended


def why(violation: AssertionError) -> str:
    """Its message, without what pytest adds."""
    return str(violation).partition("\n")[0]


async def stop_at_each(scene: Scene, operation: Operation, modes: Iterable[Mode]) -> list[Broken]:
    """Stop *operation* at each of its steps in each of *modes*; what did not hold is returned."""
    names = await steps_of(scene, operation)
    broken: list[Broken] = []
    for mode in modes:
        for at, name in enumerate(names):
            try:
                async with scene.copy() as prepared:
                    await stop_at(prepared, operation, at, mode)
            except AssertionError as exc:
                broken.append(Broken(f"{mode.value} at {at} {name}", why(exc)))
    return broken
