"""Answering a call: from the memory, or by the action, once, whatever the memory does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from time import monotonic
from typing import Any

from ..backend import LTMBackend
from ..errors import CachedFailureError, LTMError
from ..results import Failure
from .entries import Found, failure_of, metadata_of, now_text
from .flights import Flight, Rest, flights_of
from .freshness import Freshness, judge, serves_on_error
from .leases import Lease
from .outcomes import Answer, Call, Outcome, is_failure
from .policy import Policy, Work
from .turns import take_turn

logger = logging.getLogger(__name__)

CLEANUP_TIMEOUT_S = 2.0
WARN_EVERY_S = 60.0
_REFRESH = "\0refresh:"
"""Before the key of a refresh's flight; no key has a NUL."""


class Answering:
    """Answers the calls of one backend's caches; a failure of the memory is a miss, and logged."""

    def __init__(self, ltm: LTMBackend) -> None:
        self.ltm = ltm
        self._warned_at = -WARN_EVERY_S

    async def answer(self, call: Call) -> Answer:
        """From the memory, where it has a result that may be served, else by the action."""
        if call.policy.single_flight:
            flights = flights_of(self.ltm)
            outcome = await flights.join(call.key, lambda flight: self._looked(call, flight))
        else:
            looked = await self._looked(call, None)
            outcome = await looked.work() if isinstance(looked, Rest) else looked
        return await self._told(call, outcome)

    async def answer_anew(self, call: Call) -> Answer:
        """By the action; the result replaces what the memory has."""
        return await self._told(call, await self._ran(call, None, None))

    def warn(self, exc: Exception) -> None:
        """The memory failed, and the call goes on; told at most once a minute."""
        now = monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            logger.warning("going on without the cache: %s: %s", type(exc).__name__, exc)

    async def _told(self, call: Call, outcome: Outcome) -> Answer:
        value, first = outcome.take()
        if first:
            await self._follow_up(call, outcome)
        if outcome.failure is not None:
            raise CachedFailureError(
                f"{outcome.failure.error_type}: {outcome.failure.error}",
                error_type=outcome.failure.error_type,
            )
        return Answer(value, outcome.hit, call.key, outcome.created_at)

    async def _looked(self, call: Call, flight: Flight[Outcome] | None) -> Outcome | Rest[Outcome]:
        """What was found, where it can be served at once; else what is to be done."""
        found = await self._recall(call)
        if found is not None and found.usable:
            freshness = judge(found, call.policy, random.random())
            behind = freshness is Freshness.STALE and call.policy.defer is not None
            if behind or freshness is Freshness.FRESH:
                return _for_all(flight, Outcome.of(found, refresh=behind))
            if freshness is Freshness.STALE:
                return _rest(flight, lambda: self._refreshed_now(call, found, flight))
        return _rest(flight, lambda: self._missed(call, found, flight))

    async def _missed(
        self, call: Call, last: Found | None, flight: Flight[Outcome] | None
    ) -> Outcome:
        refreshed = await flights_of(self.ltm).follow(_REFRESH + call.key)
        if isinstance(refreshed, Outcome):
            return refreshed
        turn = await self._turn(call)
        if isinstance(turn, Found):
            return Outcome.of(turn)
        async with _held(turn):
            return await self._ran(call, last, flight)

    async def _turn(self, call: Call) -> Lease | Found | None:
        """None: run it without a lease."""
        policy = call.policy
        if policy.lease is None:
            return None
        try:
            return await take_turn(
                self.ltm,
                call.key,
                policy.lease,
                policy,
                recall=lambda: self._recall(call),
                serves=lambda found: (
                    found.usable and judge(found, policy, 1.0) is not Freshness.OVER
                ),
            )
        except LTMError as exc:
            self.warn(exc)
            return None

    async def _ran(self, call: Call, last: Found | None, flight: Flight[Outcome] | None) -> Outcome:
        """What the action gives, kept; where it fails, *last* if that may still be served."""
        began = monotonic()
        try:
            value = await call.run()
        except Exception as exc:
            if last is not None and serves_on_error(last, call.policy):
                logger.warning("serving what is stale: the action failed: %s", type(exc).__name__)
                return Outcome.of(last)
            if call.policy.error_ttl is not None:
                took_s = monotonic() - began
                await self._keep(call, None, took_s, call.policy.error_ttl, flight, failure_of(exc))
            raise
        took_s = monotonic() - began
        life_s = call.policy.life_s(random.random())
        if is_failure(value):
            if last is not None and serves_on_error(last, call.policy):
                logger.warning("serving what is stale: the action reported a failure")
                return Outcome.of(last)
            if call.policy.error_ttl is None:
                return Outcome(value, None)
            life_s = call.policy.error_ttl
        return Outcome(value, await self._keep(call, value, took_s, life_s, flight))

    async def _refreshed_now(
        self, call: Call, found: Found, flight: Flight[Outcome] | None
    ) -> Outcome:
        """There is no place for work behind the answer, so what it gives is the answer."""
        try:
            async with asyncio.timeout(call.policy.refresh_timeout):
                return await self._refreshed(call, found, flight) or Outcome.of(found)
        except Exception as exc:  # noqa: BLE001  # there is a result that may be served
            logger.warning("a refresh failed: %s", type(exc).__name__)
            return Outcome.of(found)

    async def _refresh_behind(self, call: Call, found: Found) -> None:
        async def refresh(flight: Flight[Outcome | None]) -> Rest[Outcome | None]:
            return Rest(lambda: self._refreshed(call, found, flight))

        try:
            async with asyncio.timeout(call.policy.refresh_timeout):
                await flights_of(self.ltm).join(_REFRESH + call.key, refresh)
        except Exception as exc:  # noqa: BLE001  # nobody is left to be told
            logger.warning("a refresh failed: %s", type(exc).__name__)

    async def _refreshed(
        self, call: Call, seen: Found, flight: Flight[Any] | None
    ) -> Outcome | None:
        """A new result, unless another process is making it; None also when the action failed."""
        lease: Lease | None = None
        if call.policy.lease is not None:
            try:
                lease = await Lease.take(
                    self.ltm, call.key, call.policy.lease, timeout=call.policy.timeout
                )
                if lease is None:
                    return None
            except LTMError as exc:
                self.warn(exc)
        async with _held(lease):
            found = await self._recall(call)
            if found is not None and found.usable and found.hit.version != seen.hit.version:
                return Outcome.of(found)
            began = monotonic()
            value = await call.run()
            if is_failure(value):
                return None
            took_s, life_s = monotonic() - began, call.policy.life_s(random.random())
            return Outcome(value, await self._keep(call, value, took_s, life_s, flight))

    async def _recall(self, call: Call) -> Found | None:
        try:
            hit = await self.ltm.retrieve(call.key, timeout=call.policy.timeout)
        except LTMError as exc:
            self.warn(exc)
            return None
        return Found(hit) if hit.found else None

    async def _keep(
        self,
        call: Call,
        value: Any,
        took_s: float,
        life_s: float | None,
        flight: Flight[Any] | None,
        failure: Failure | None = None,
    ) -> str | None:
        """Store a result; when it was made, or None when it is not in the memory."""
        if flight is not None and flight.outdated:
            return None
        created_at = now_text()
        try:
            stored = await self.ltm.store(
                call.key,
                value,
                metadata=metadata_of(call.metadata, call.action, created_at, took_s, failure),
                ttl=life_s,
                timeout=call.policy.timeout,
            )
            if stored.stored and flight is not None and flight.outdated:
                await self.ltm.delete(call.key, if_version=stored.version)
                return None
        except LTMError as exc:
            self.warn(exc)
            return None
        return created_at if stored.stored else None

    async def _follow_up(self, call: Call, outcome: Outcome) -> None:
        if outcome.refresh is not None:
            found = outcome.refresh
            await _deferred(call.policy, lambda: self._refresh_behind(call, found))
        elif not outcome.hit and random.random() < call.policy.cleanup_probability:
            await _deferred(call.policy, lambda: self._clean_up(call.policy.cleanup_limit))

    async def _clean_up(self, limit: int) -> None:
        try:
            await self.ltm.cleanup_expired(limit, timeout=CLEANUP_TIMEOUT_S)
        except LTMError as exc:
            self.warn(exc)


def _for_all(flight: Flight[Outcome] | None, outcome: Outcome) -> Outcome:
    """*outcome*, to be handed out to all who wait for it."""
    if flight is not None and flight.waiting > 1:
        outcome.prepare_copies()
    return outcome


def _rest(
    flight: Flight[Outcome] | None, work: Callable[[], Coroutine[Any, Any, Outcome]]
) -> Rest[Outcome]:
    async def rest() -> Outcome:
        return _for_all(flight, await work())

    return Rest(rest)


async def _deferred(policy: Policy, work: Work) -> None:
    if policy.defer is None:
        await work()
        return

    async def behind() -> None:  # what is handed out is a plain coroutine function
        await work()

    try:
        accepted = policy.defer(behind)
        if inspect.isawaitable(accepted):
            await accepted
    except Exception:  # the answer is there, and is not lost for this
        logger.exception("what defer was given is not done")


@contextlib.asynccontextmanager
async def _held(lease: Lease | None) -> AsyncIterator[None]:
    if lease is None:
        yield
    else:
        async with lease.held():
            yield
