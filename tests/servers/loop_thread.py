"""An event loop in a thread of its own, so that a proxy works beside any test, async or not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Started when made; ``close`` cancels what still runs and ends the thread."""

    def __init__(self, name: str) -> None:
        self._runner = asyncio.Runner(debug=False)
        self._loop = self._runner.get_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._stop.wait())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    def call(self, function: Callable[[], object]) -> None:
        """Call it there and wait."""

        async def call() -> None:
            function()

        self.run(call())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
