"""The clock of the machine, for stores that live on it, and those of servers elsewhere."""

from __future__ import annotations

import time


def system_clock() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def header_date_us(text: str | None) -> int | None:
    """The instant in an HTTP header, in microseconds since the epoch; None if it is none."""
    import email.utils  # is slow, and most need it never

    try:
        return round(email.utils.parsedate_to_datetime(text or "").timestamp() * 1e6)
    except (ValueError, OverflowError, TypeError):  # as a time zone beyond all calendars gives
        return None
