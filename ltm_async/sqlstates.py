"""What the SQLSTATE of a refusal by our SQL functions means, by whichever way it came."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import (
    AccessDeniedError,
    ConflictError,
    FencedError,
    OutcomeUnknownError,
    StoreError,
    UnavailableError,
    WatermarkExpiredError,
)

CONFLICT = "LT001"
_FENCED = "LT002"
_PRUNED = "LT004"
_FOREIGN = "LT005"
RESTORED = "LT006"
"""The rows are of another cluster, whose transactions have other numbers."""
_UNAVAILABLE = ("40001", "40P01", "53", "55", "57014", "57P03", "25006")
"""Serialization, deadlock, resources, locks, a cancelled statement, starting up, read-only."""
_UNKNOWN = ("08", "57P01", "57P02")
"""The connection broke, or the server went down, which it may have done after committing."""
_DENIED = ("28", "42501")
_NO_SCHEMA = ("42P01", "42883", "3F000")


def meaning(state: str) -> type[StoreError]:
    """The error for *state*; a plain StoreError for those whose text may quote what was sent."""
    for states, ours in (
        (_UNKNOWN, OutcomeUnknownError),
        (_UNAVAILABLE, UnavailableError),
        (_DENIED, AccessDeniedError),
        (_FENCED, FencedError),
    ):
        if state.startswith(states):
            return ours
    return StoreError


def lacks_schema(state: str) -> bool:
    """Tables or functions are not there."""
    return state in _NO_SCHEMA


def conflict(
    detail: str | None, keys: Sequence[str], versions: Sequence[int | None]
) -> ConflictError:
    """The error for CONFLICT; *keys* and *versions* as they were sent."""
    place, found = map(int, (detail or "1 0").split())
    return ConflictError.between(keys[place - 1], versions[place - 1] or 0, found or None)


def expired(state: str | None) -> WatermarkExpiredError | None:
    """The error for a watermark that is of no use any more."""
    if state == _PRUNED:
        return WatermarkExpiredError.pruned()
    return WatermarkExpiredError.foreign() if state == _FOREIGN else None
