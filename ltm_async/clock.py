"""The clock of the machine, for stores that live on it."""

from __future__ import annotations

import time


def system_clock() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000
