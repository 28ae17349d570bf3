"""Calling a store: again while that helps, and not at all while it is known to be down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from . import telemetry
from .deadline import remaining_s
from .errors import OutcomeUnknownError, StoreError, UnavailableError
from .retry import RetryPolicy

P = ParamSpec("P")
T = TypeVar("T")

FAILURES_TO_OPEN = 5
COOL_DOWN_S = 0.5
COOL_DOWN_CAP_S = 2.0
"""Healthy within five seconds, even when a probe has just missed the end of an outage."""
RETRY_TOKENS = 100.0
TOKENS_PER_SUCCESS = 0.1

_DOWN = (UnavailableError, OutcomeUnknownError)


class Breaker:
    """Refuses calls to a store after five calls in a row have failed, with all their retries.

    After a cool-down of 0.5 s, doubling to 2 s, one call is let through as a probe: its success
    closes the breaker, its failure starts the next cool-down.
    """

    def __init__(self, store: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._failures = 0
        self._cool_down_s = COOL_DOWN_S
        self._open_until: float | None = None
        self._probing = False

    def admit(self) -> None:
        """Let a call through, or raise UnavailableError at once."""
        if self._open_until is None:
            return
        if self._probing or self._clock() < self._open_until:
            raise UnavailableError(
                f"the {self._store} has not answered lately, so it was not asked",
                store=self._store,
            )
        self._probing = True

    def succeeded(self) -> None:
        self._failures = 0
        self._cool_down_s = COOL_DOWN_S
        self._open_until = None
        self._probing = False

    def failed(self) -> None:
        self._failures += 1
        if self._probing or self._failures == FAILURES_TO_OPEN:
            self._open_until = self._clock() + self._cool_down_s
            self._cool_down_s = min(2 * self._cool_down_s, COOL_DOWN_CAP_S)
        self._probing = False

    def undecided(self) -> None:
        """The call was cancelled before the store could show itself up or down."""
        self._probing = False


class Caller:
    """How one backend calls one store.

    The retries of all calls together draw on one budget that successes refill, so that an outage
    is not met with several times the usual traffic.
    """

    def __init__(self, store: str, policy: RetryPolicy) -> None:
        self._store = store
        self._policy = policy
        self._breaker = Breaker(store)
        self._tokens = RETRY_TOKENS

    async def refused(
        self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """*call*, again while it certainly had no effect: for what must not happen twice."""
        return await self._guarded(lambda: call(*args, **kwargs), (UnavailableError,))

    async def unanswered(
        self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """*call*, again also when its reply was lost: for what is harmless to repeat."""
        return await self._guarded(lambda: call(*args, **kwargs), _DOWN)

    async def _guarded(
        self, call: Callable[[], Awaitable[T]], errors: tuple[type[StoreError], ...]
    ) -> T:
        """One call with its retries counts once for the breaker."""
        try:
            self._breaker.admit()
        except UnavailableError:
            await asyncio.sleep(0)  # who tries again at once must not keep the probe from ending
            raise
        try:
            result = await self._again(call, errors)
        except _DOWN:
            self._breaker.failed()
            raise
        except StoreError:
            self._breaker.succeeded()  # it answered, if not what was hoped for
            raise
        except asyncio.CancelledError:
            remaining = remaining_s()
            if remaining is not None and remaining <= 0:
                self._breaker.failed()  # it hung until the deadline
            else:
                self._breaker.undecided()
            raise
        except BaseException:
            self._breaker.undecided()
            raise
        self._breaker.succeeded()
        self._tokens = min(RETRY_TOKENS, self._tokens + TOKENS_PER_SUCCESS)
        return result

    async def _again(
        self, call: Callable[[], Awaitable[T]], errors: tuple[type[StoreError], ...]
    ) -> T:
        tried = 0
        while True:
            telemetry.called(self._store)
            try:
                return await call()
            except errors as exc:
                tried += 1
                wait_s = self._policy.wait_s(tried, exc)
                remaining = remaining_s()
                too_late = remaining is not None and remaining <= wait_s
                if tried == self._policy.attempts or too_late or self._tokens < 1:
                    raise
            self._tokens -= 1
            telemetry.retried(self._store)
            await asyncio.sleep(wait_s)
