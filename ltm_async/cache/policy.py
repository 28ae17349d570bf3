"""How long results are kept and served, and what else a call of the cache may do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, TypedDict

from ..config import check_names, check_timeout
from ..entry import MAX_TTL_S, shown
from ..errors import ConfigError

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
Defer: TypeAlias = Callable[[Work], object]
"""Takes work that may be done after the answer, such as ``BackgroundTasks.add_task``."""

MAX_CLEANUP = 100_000
MIN_LEASE_S = 0.1


class PolicyOptions(TypedDict, total=False):
    """The options of :class:`~ltm_async.cache.Cache`, for each call too; durations in seconds."""

    ttl: float | timedelta | None
    """How long an entry lives, by the catalog's clock: 60 days; None is for ever."""
    jitter: float
    """Shortens each life by a random part of it, up to this one: 0 to 1, by default 0."""
    fresh_for: float | timedelta | None
    """How long an entry is served as it is, by this process's clock; None is its whole life."""
    stale_for: float | timedelta
    """How much longer it is served while it is refreshed behind the answer."""
    stale_if_error: float | timedelta
    """How long after *fresh_for* it is served when the action fails."""
    early_refresh: float
    """Refresh before *fresh_for* ends, the likelier the nearer that is and the longer the action
    takes: 0 for never, 1 as in https://cseweb.ucsd.edu/~avattani/papers/cache_stampede.pdf, up to
    100."""
    error_ttl: float | timedelta | None
    """How long a failure of the action is remembered; None, the default, is not at all."""
    refresh_timeout: float | timedelta
    """How long a refresh may take: 30."""
    single_flight: bool
    """Calls of one key share one lookup and one run in this process and event loop: True."""
    lease: float | timedelta | None
    """How long the right to run the action for a key holds among processes; it is renewed while
    the action runs. 30, and above 0.1; None leaves other processes alone."""
    lease_wait: float | timedelta
    """How long a call waits for another process's run before it runs the action itself: 30, and
    at most half of what is left of a deadline of the memory around it."""
    cleanup_probability: float
    """Of a cleanup of expired entries after a miss: 0.05."""
    cleanup_limit: int
    """Entries that such a cleanup removes at most: 5."""
    timeout: float | None
    """For each call of the memory; None, the default, is the backend's own."""
    defer: Defer | None
    """Takes a refresh or a cleanup to be done after the answer, as a function to be called and
    awaited; None, the default, has both awaited before the answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """:class:`PolicyOptions`, checked, with every duration in seconds."""

    ttl: float | None = 60 * 86_400.0
    jitter: float = 0.0
    fresh_for: float | None = None
    stale_for: float = 0.0
    stale_if_error: float = 0.0
    early_refresh: float = 0.0
    error_ttl: float | None = None
    refresh_timeout: float = 30.0
    single_flight: bool = True
    lease: float | None = 30.0
    lease_wait: float = 30.0
    cleanup_probability: float = 0.05
    cleanup_limit: int = 5
    timeout: float | None = None
    defer: Defer | None = None

    def __post_init__(self) -> None:
        if self.fresh_for is None and (self.stale_for or self.stale_if_error):
            raise ConfigError("stale_for and stale_if_error count from the end of fresh_for")

    def life_s(self, draw: float) -> float | None:
        """How long an entry is kept: no longer than it can be served. *draw* is from 0 to 1."""
        served = self.ttl
        if self.fresh_for is not None:
            served = self.fresh_for + max(self.stale_for, self.stale_if_error)
            served = served if self.ttl is None else min(served, self.ttl)
        return None if served is None else served * (1 - self.jitter * draw) or served


_NAMES = tuple(field.name for field in dataclasses.fields(Policy))
_ENDLESS = ("ttl", "fresh_for", "error_ttl", "lease")
_ABOVE_0 = (*_ENDLESS, "refresh_timeout")
_DURATIONS = (*_ABOVE_0, "stale_for", "stale_if_error", "lease_wait")
_RANGES = {"jitter": 1.0, "early_refresh": 100.0, "cleanup_probability": 1.0}


def policy_of(base: Policy, options: Mapping[str, Any]) -> Policy:
    """*base* with *options*, which were not checked yet.

    Raises:
        ConfigError: An option is unknown or out of its range.
    """
    if not options:
        return base
    check_names("the cache", options, _NAMES)
    return dataclasses.replace(base, **{name: _checked(name, options[name]) for name in options})


def with_ttl(options: Mapping[str, Any], **given: float | None) -> dict[str, Any]:
    """*options*, with the ``ttl`` of ``ttl_days``, ``ttl_hours`` or ``ttl_seconds`` if given."""
    named = {name: value for name, value in given.items() if value is not None}
    if not named:
        return dict(options)
    if len(named) + ("ttl" in options) > 1:
        raise ConfigError("ttl, ttl_days, ttl_hours and ttl_seconds exclude each other")
    ((name, value),) = named.items()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, not {type(value).__name__}")
    unit_s = {"ttl_days": 86_400, "ttl_hours": 3_600, "ttl_seconds": 1}[name]
    if not 0 < value <= MAX_TTL_S / unit_s:  # NaN is not
        raise ConfigError(
            f"{name} is {shown(value)}, it must be above 0 and at most {MAX_TTL_S // unit_s}"
        )
    return {**options, "ttl": value * unit_s}


def _checked(name: str, value: Any) -> Any:
    if name in _DURATIONS:
        return _seconds(name, value)
    if name in _RANGES:
        return _number(name, value, _RANGES[name])
    if name == "single_flight" and type(value) is not bool:
        raise ConfigError(f"single_flight must be True or False, not {shown(value)}")
    if name == "cleanup_limit" and (type(value) is not int or not 1 <= value <= MAX_CLEANUP):
        raise ConfigError(
            f"cleanup_limit is {shown(value)}, it must be an int from 1 to {MAX_CLEANUP}"
        )
    if name == "timeout":
        check_timeout(value)
    if name == "defer" and not (value is None or callable(value)):
        raise ConfigError(f"defer must be a callable, not {type(value).__name__}")
    return value


def _seconds(name: str, value: Any) -> float | None:
    if value is None and name in _ENDLESS:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    low = MIN_LEASE_S if name == "lease" else 0
    least = f"above {low}" if name in _ABOVE_0 else f"at least {low}"
    if not low <= value <= MAX_TTL_S or (value == low and name in _ABOVE_0):
        raise ConfigError(f"{name} is {shown(value)} s, it must be {least} and at most {MAX_TTL_S}")
    return float(value)


def _number(name: str, value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= most:
        raise ConfigError(f"{name} is {shown(value)}, it must be 0 to {most:g}")
    return float(value)
