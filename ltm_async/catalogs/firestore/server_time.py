"""The server's time: of each reply, and reckoned between two."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import layout
from .documents import Documents
from .layout import ENTRIES, Range

AHEAD_US = 1_000_000
"""By how much the server's clock may be ahead of what is reckoned."""


class ServerTime:
    """The catalog's now, which *clock* gives for the server's."""

    def __init__(self, clock: Callable[[int], int]) -> None:
        self._clock = clock
        self._known: tuple[int, float] | None = None

    def of(self, server_us: int) -> int:
        """The catalog's now, for what a reply said of the server's."""
        if server_us:
            self._known = server_us, time.monotonic()
        return self._clock(server_us)

    async def now(self, documents: Documents) -> int:
        """Asked for once, and reckoned from then on."""
        if self._known is None:
            found = await documents.read({ENTRIES: ["now"]}, fields=("key",))
            return self.of(found.now_us)
        server_us, heard_at = self._known
        return self._clock(server_us + round((time.monotonic() - heard_at) * 1e6))

    async def up_to_now(self, documents: Documents, field: str, space: str) -> Range:
        """All instants of *field* that may have come; what is found has to be looked at again."""
        now_us = await self.now(documents)
        return Range(field, layout.first_of(space), layout.instant(space, now_us + AHEAD_US))
