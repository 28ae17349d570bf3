"""An emulator of Firestore with room in it.

It keeps every version of every document that was ever written, those of deleted projects too, in a
heap of 512 MiB: some 170,000 writes of ours fill it, and a full one answers no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tests.servers.firestore import Firestore

FULL_MIB = 420
"""Resident; a benchmark adds less than a hundred."""


class Emulators:
    """One after the other, each until it is full; with it the last one ends."""

    def __init__(self) -> None:
        self._running: Firestore | None = None

    def with_room(self) -> Firestore:
        if self._running is not None and _resident_mib(self._running.pid) > FULL_MIB:
            self._end()
        if self._running is None:
            self._running = Firestore().start()
        return self._running

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close()


def _resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024
