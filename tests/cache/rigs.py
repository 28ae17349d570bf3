"""A cache over stores that count, fail and keep time as told, and actions that count their runs."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ltm_async.cache import Cache, entries
from ltm_async.testing import Faults, Mode

from ..backends import Rig, make_rig

if TYPE_CHECKING:
    import pytest


@dataclasses.dataclass(frozen=True, slots=True)
class CacheRig:
    cache: Cache
    rig: Rig

    @property
    def steps(self) -> list[str]:
        """The calls of the stores so far, such as ``"catalog.get_entries_batch"``."""
        return self.rig.faults.steps

    def advance(self, seconds: float) -> None:
        """For the catalog, and for the process that judges freshness."""
        self.rig.clock.advance(seconds)

    def go_down(self) -> None:
        self.rig.faults.at, self.rig.faults.mode = len(self.steps), Mode.DOWN


def make_cache_rig(
    pair: str,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: Faults | None = None,
    on_unavailable: str = "raise",
    **options: Any,
) -> CacheRig:
    """Never cleans up, unless *options* say otherwise."""
    rig = make_rig(pair, folder, faults, on_unavailable=on_unavailable)
    monkeypatch.setattr(entries, "system_clock", rig.clock)
    return CacheRig(Cache(rig.ltm, **{"cleanup_probability": 0.0, **options}), rig)


class Action:
    """An async action that counts its runs, and can be held, or told to fail."""

    def __init__(self, give: Callable[[int], Any] = lambda run: {"run": run}) -> None:
        self.runs = 0
        self.ended = 0
        self.failure: Exception | None = None
        self.begun = asyncio.Event()
        self._give = give
        self._free = asyncio.Event()
        self._free.set()

    def hold(self) -> None:
        self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    async def run(self, **arguments: Any) -> Any:
        self.runs += 1
        run = self.runs
        self.begun.set()
        try:
            await self._free.wait()
        finally:
            self.ended += 1
        if self.failure is not None:
            raise self.failure
        return self._give(run)
