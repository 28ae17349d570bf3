"""A clock that moves when told, for catalogs and blob stores that take one."""

from __future__ import annotations

from ..clock import system_clock


class ManualClock:
    """Stands still until :meth:`advance`; called, it gives microseconds since the epoch."""

    def __init__(self) -> None:
        self._now = system_clock()

    def __call__(self) -> int:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on, or back when negative, as clocks that are set do."""
        self._now += round(seconds * 1_000_000)
