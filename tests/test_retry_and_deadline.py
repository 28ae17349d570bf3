"""Trying again, and ending in time, on a loop whose clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import contextvars
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from ltm_async import (
    AccessDeniedError,
    ConflictError,
    CorruptError,
    DeadlineError,
    FencedError,
    InvalidEntryError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryPolicy,
    StoreError,
    UnavailableError,
)
from ltm_async.calling import FAILURES_TO_OPEN, Caller
from ltm_async.deadline import Deadline, remaining_s

T = TypeVar("T")


def caller(**options: Any) -> Caller:
    return Caller("catalog", RetryPolicy(**options))


class JumpingLoop(asyncio.SelectorEventLoop):
    """Where there is nothing to do but to wait, the time is over at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self._loop.now += max(timeout, 0)
        return ready


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


class Store:
    """Raises what it is given, then answers; notes when it was called."""

    def __init__(self, *errors: BaseException, takes_s: float = 0) -> None:
        self._errors = list(errors)
        self._takes_s = takes_s
        self.called_at: list[float] = []

    async def call(self) -> str:
        self.called_at.append(now())
        await asyncio.sleep(self._takes_s)
        if self._errors:
            raise self._errors.pop(0)
        return "answer"

    @property
    def waits(self) -> list[float]:
        pairs = zip(self.called_at, self.called_at[1:], strict=False)
        return [later - sooner for sooner, later in pairs]


def away(times: int) -> list[UnavailableError]:
    return [UnavailableError(f"try {number}") for number in range(1, times + 1)]


# How often


@pytest.mark.parametrize("attempts", [1, 2, 4, 100])
def test_the_last_attempt_s_error_is_raised(attempts: int) -> None:
    errors = away(attempts + 1)
    store = Store(*errors)
    with pytest.raises(UnavailableError) as caught:
        run(caller(attempts=attempts).refused(store.call))
    assert caught.value is errors[attempts - 1]
    assert len(store.called_at) == attempts


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_an_answer_ends_the_trying(failures: int) -> None:
    store = Store(*away(failures))
    assert run(caller(attempts=4).refused(store.call)) == "answer"
    assert len(store.called_at) == failures + 1


def test_arguments_are_passed_on_each_time() -> None:
    seen: list[tuple[int, str]] = []

    async def call(number: int, *, text: str) -> int:
        seen.append((number, text))
        if len(seen) < 3:
            raise UnavailableError("away")
        return number

    assert run(caller().unanswered(call, 7, text="x")) == 7
    assert seen == [(7, "x")] * 3


@pytest.mark.parametrize("error", [OutcomeUnknownError, DeadlineError])
def test_a_lost_reply_is_asked_again_only_where_that_is_harmless(error: type[StoreError]) -> None:
    store = Store(error("lost"))
    with pytest.raises(error):
        run(caller().refused(store.call))
    assert len(store.called_at) == 1
    store = Store(error("lost"), UnavailableError("away"))
    assert run(caller().unanswered(store.call)) == "answer"
    assert len(store.called_at) == 3


@pytest.mark.parametrize(
    "error",
    [
        AccessDeniedError("x"),
        FencedError("x"),
        CorruptError("x"),
        StoreError("x"),
        ConflictError("x"),
        InvalidEntryError("x"),
        ValueError("x"),
        TimeoutError("x"),
        ConnectionError("x"),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
def test_nothing_else_is_tried_again(error: BaseException) -> None:
    for name in ("refused", "unanswered"):
        store = Store(error, error)
        with pytest.raises(type(error)):
            run(getattr(caller(), name)(store.call))
        assert len(store.called_at) == 1


# How patiently


@pytest.mark.parametrize(
    ("error", "first_s"), [(UnavailableError("x"), 0.05), (RateLimitedError("x"), 0.5)]
)
def test_waits_are_drawn_evenly_below_a_limit_that_doubles(
    error: StoreError, first_s: float
) -> None:
    random.seed(20240229)
    policy = RetryPolicy(attempts=12)
    limits = [min(5.0, first_s * 2**number) for number in range(11)]
    shares: list[list[float]] = [[] for _ in limits]
    for _ in range(400):
        store = Store(*[error] * 11)
        run(Caller("catalog", policy).refused(store.call))
        for share, wait, limit in zip(shares, store.waits, limits, strict=True):
            share.append(wait / limit)
    for share in shares:
        assert 0 <= min(share) < 0.05
        assert 0.95 < max(share) <= 1 + 1e-6
        assert 0.44 < sum(share) / len(share) < 0.56  # 4 standard errors around one half


def test_the_wait_s_limits_are_the_policy_s() -> None:
    random.seed(1)
    policy = RetryPolicy(attempts=6, base_s=10, throttled_base_s=1000, cap_s=25)
    for tried, limit in ((1, 10), (2, 20), (3, 25), (99, 25)):
        waits = [policy.wait_s(tried, UnavailableError("x")) for _ in range(500)]
        assert 0.95 * limit < max(waits) <= limit
        assert 0 <= min(waits) < 0.05 * limit
    waits = [policy.wait_s(1, RateLimitedError("x")) for _ in range(500)]
    assert 0.95 * 25 < max(waits) <= 25


@pytest.mark.parametrize("retry_after_s", [0.0, 0.01, 60.0])
def test_the_wait_that_a_store_asks_for_wins(retry_after_s: float) -> None:
    """Over the base and over the cap."""
    store = Store(*[RateLimitedError("x", retry_after_s=retry_after_s)] * 3)
    assert run(caller().refused(store.call)) == "answer"
    assert store.waits == pytest.approx([retry_after_s] * 3)


# Within the deadline


async def within(timeout_s: float | None, call: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    began = now()
    async with Deadline(timeout_s):
        result = await call()
    return result, now() - began


@pytest.mark.parametrize(("retry_after_s", "tries"), [(0.5, 2), (0.99, 2), (1.0, 1), (60, 1)])
def test_a_wait_that_the_deadline_does_not_allow_is_not_begun(
    retry_after_s: float, tries: int
) -> None:
    async def main() -> float:
        began = now()
        with pytest.raises(RateLimitedError):
            async with Deadline(1.0):
                await caller(attempts=2).refused(store.call)
        return now() - began

    store = Store(*[RateLimitedError("x", retry_after_s=retry_after_s)] * 3)
    took = run(main())
    assert len(store.called_at) == tries
    assert took == pytest.approx(retry_after_s if tries == 2 else 0)


def test_no_try_begins_after_the_deadline() -> None:
    async def main() -> tuple[float, float]:
        began = now()
        with pytest.raises((UnavailableError, DeadlineError)):
            async with Deadline(1.0):
                await caller(attempts=100).refused(store.call)
        return began, now()

    for seed in range(50):
        random.seed(seed)
        store = Store(*away(100), takes_s=0.05)
        began, ended = run(main())
        assert ended - began <= 1.0 + 1e-6
        assert max(store.called_at) < began + 1.0
        assert len(store.called_at) > 1


def test_without_a_deadline_every_attempt_is_made() -> None:
    store = Store(*[RateLimitedError("x", retry_after_s=3600)] * 3)
    answer, took = run(within(None, lambda: caller().refused(store.call)))
    assert answer == "answer"
    assert took == pytest.approx(3 * 3600)


# Deadline


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_deadline_cancels_what_runs_and_raises() -> None:
    async def main() -> None:
        began = now()
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append(now() - began)
            raise

    cancelled: list[float] = []
    with pytest.raises(DeadlineError, match=r"^no answer within 2.5 s$") as caught:
        run(within(2.5, main))
    assert cancelled == [pytest.approx(2.5)]
    assert isinstance(caught.value, (OutcomeUnknownError, TimeoutError))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_what_ends_in_time_is_left_alone() -> None:
    answer, took = run(within(1.0, lambda: asyncio.sleep(0.9, "done")))
    assert answer == "done"
    assert took == pytest.approx(0.9)


@pytest.mark.parametrize("error", [LookupError("x"), TimeoutError("x"), UnavailableError("x")])
def test_an_error_inside_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        run(within(1.0, Store(error).call))
    assert caught.value is error


def test_a_cancellation_from_outside_stays_one() -> None:
    async def main() -> None:
        task = asyncio.create_task(within(60.0, forever))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.parametrize(
    ("outer", "inner", "ends"),
    [(1.0, 5.0, 1.0), (5.0, 1.0, 1.0), (None, 1.0, 1.0), (1.0, None, 1.0)],
)
def test_of_two_deadlines_the_earlier_counts(
    outer: float | None, inner: float | None, ends: float
) -> None:
    async def both() -> None:
        async with Deadline(outer), Deadline(inner):
            assert remaining_s() == pytest.approx(ends)
            await forever()

    async def main() -> float:
        began = now()
        with pytest.raises(DeadlineError, match=rf"^no answer within {ends} s$"):
            await both()
        return now() - began

    assert run(main()) == pytest.approx(ends)


def test_the_outer_deadline_goes_on_after_an_inner_one_has_ended() -> None:
    async def outer() -> None:
        with pytest.raises(DeadlineError, match=r"^no answer within 1 s$"):
            await within(1, forever)
        assert remaining_s() == pytest.approx(2)
        await forever()

    async def main() -> float:
        began = now()
        with pytest.raises(DeadlineError, match=r"^no answer within 3 s$"):
            await within(3, outer)
        return now() - began

    assert run(main()) == pytest.approx(3)


def test_none_sets_no_limit() -> None:
    async def main() -> None:
        assert remaining_s() is None
        async with Deadline(None):
            assert remaining_s() is None
            await asyncio.sleep(10**6)

    run(main())


async def until_over(deadline: Deadline, left_s: float) -> None:
    async with deadline:
        assert remaining_s() == pytest.approx(left_s)
        await forever()


def test_a_deadline_may_have_begun_earlier() -> None:
    async def main() -> float:
        began = now()
        await asyncio.sleep(2)
        with pytest.raises(DeadlineError, match=r"^no answer within 3 s$"):
            await until_over(Deadline(3, since=began), 1)
        return now() - began

    assert run(main()) == pytest.approx(3)


def test_a_deadline_that_is_over_ends_at_the_first_wait() -> None:
    async def main() -> float:
        began = now()
        with pytest.raises(DeadlineError):
            await until_over(Deadline(1, since=began - 5), -4)
        return now() - began

    assert run(main()) == pytest.approx(0)


def test_the_time_left_shrinks_and_is_forgotten_outside() -> None:
    async def main() -> None:
        async with Deadline(10):
            await asyncio.sleep(4)
            assert remaining_s() == pytest.approx(6)
            # A task made here belongs to this call; one with a context of its own does not.
            assert await asyncio.create_task(left()) == pytest.approx(6)
            alone = asyncio.create_task(left(), context=contextvars.Context())
            assert await alone is None
        assert remaining_s() is None

    async def left() -> float | None:
        return remaining_s()

    run(main())


def test_two_calls_at_once_have_their_own_deadlines() -> None:
    async def main() -> list[float]:
        began = now()

        async def ends(timeout_s: float) -> float:
            with pytest.raises(DeadlineError):
                await within(timeout_s, forever)
            return now() - began

        return [*await asyncio.gather(ends(3), ends(1), ends(2))]

    assert run(main()) == pytest.approx([3, 1, 2])


# What calls leave to those that follow


def test_a_call_cut_at_its_deadline_counts_against_the_store_and_one_cut_before_does_not() -> None:
    async def main() -> None:
        asked = caller()
        asked._breaker._clock = lambda: 0.0  # it does not cool down meanwhile

        async def hang() -> None:
            await asyncio.get_running_loop().create_future()

        async def give_up(timeout_s: float) -> None:
            async with Deadline(1.0):
                try:
                    async with asyncio.timeout(timeout_s):
                        await asked.unanswered(hang)
                except TimeoutError:
                    return

        for _ in range(FAILURES_TO_OPEN):
            await give_up(0.9)
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(DeadlineError):
                await give_up(2.0)
        with pytest.raises(UnavailableError, match="has not answered lately"):
            await asked.unanswered(Store().call)

    run(main())


def test_a_hundred_retries_are_paid_for_and_ten_calls_that_succeed_pay_for_one_more() -> None:
    async def main() -> None:
        asked = caller(attempts=100)
        with pytest.raises(UnavailableError):
            await asked.unanswered(Store(*away(100)).call)  # 99 retries
        assert await asked.unanswered(Store(*away(1)).call) == "answer"
        with pytest.raises(UnavailableError):
            await asked.unanswered(Store(*away(1)).call)
        for _ in range(10):
            await asked.unanswered(Store().call)
        assert await asked.unanswered(Store(*away(1)).call) == "answer"

    run(main())
