"""One line of the report, and how it is made of measured times."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the report; ``value`` is a median, ``low`` and ``high`` are quartiles.

    Together ``store``, ``what`` and ``over`` name it, from one run to the next.
    """

    store: str
    """Which catalog or blob store, or which part of the library."""
    what: str
    over: str = ""
    """The rival that *value* is a ratio to; empty where there is none."""
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    """The budget: *value* should be at most this."""
    ours_ms: float | None = None
    """Medians of both sides of a ratio."""
    theirs_ms: float | None = None
    rounds: int = 0
    size: int = 0
    """Entries of a call, or rows of the table, where that is what grows."""
    note: str = ""
    """How the rival's work differs."""

    @property
    def name(self) -> str:
        return f"{self.store}: {self.what}" + (f", over {self.over}" if self.over else "")

    @property
    def is_over(self) -> bool:
        return self.limit is not None and self.value > self.limit


def spread(
    store: str,
    what: str,
    spent_ms: Sequence[float],
    *,
    limit: float | None = None,
    unit: str = "ms",
) -> Figure:
    low, middle, high = statistics.quantiles(spent_ms)
    return Figure(
        store=store,
        what=what,
        value=middle,
        unit=unit,
        low=low,
        high=high,
        limit=limit,
        rounds=len(spent_ms),
    )


def ratio(
    store: str,
    what: str,
    spent_ms: Mapping[str, Sequence[float]],
    over: str,
    *,
    ours: str = "ours",
    limit: float | None = None,
    size: int = 0,
    note: str = "",
) -> Figure:
    """The median, over all rounds, of our time divided by that of *over* in the same round."""
    pairs = zip(spent_ms[ours], spent_ms[over], strict=True)
    low, middle, high = statistics.quantiles([mine / theirs for mine, theirs in pairs])
    return Figure(
        store=store,
        what=what,
        over=over,
        value=middle,
        unit="×",
        low=low,
        high=high,
        limit=limit,
        ours_ms=statistics.median(spent_ms[ours]),
        theirs_ms=statistics.median(spent_ms[over]),
        rounds=len(spent_ms[over]),
        size=size,
        note=note,
    )
