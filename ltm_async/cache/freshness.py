"""Whether what was found is served as it is, served and refreshed, or made anew."""

from __future__ import annotations

import enum
import math

from .entries import Found
from .policy import Policy


class Freshness(enum.Enum):
    FRESH = "served as it is"
    STALE = "served, and refreshed"
    OVER = "made anew"


def judge(found: Found, policy: Policy, draw: float) -> Freshness:
    """*draw*, evenly from 0 to 1, decides on an early refresh.

    By this process's clock, which no safety hangs on: that an entry has expired the catalog says.
    """
    end_s = policy.ttl if policy.fresh_for is None else policy.fresh_for
    if end_s is None or found.failure is not None:
        return Freshness.FRESH
    age_s = found.age_s
    if policy.fresh_for is not None and age_s >= policy.fresh_for + policy.stale_for:
        return Freshness.OVER
    early_s = 0.0
    if policy.early_refresh:
        early_s = -found.took_s * policy.early_refresh * math.log(max(draw, 1e-300))
    late = policy.fresh_for is not None and age_s >= policy.fresh_for
    return Freshness.STALE if late or (early_s and age_s + early_s >= end_s) else Freshness.FRESH


def serves_on_error(found: Found | None, policy: Policy) -> bool:
    """Whether *found* may stand in for a run that failed."""
    if found is None or found.failure is not None or policy.fresh_for is None:
        return False
    return found.age_s < policy.fresh_for + max(policy.stale_for, policy.stale_if_error)
