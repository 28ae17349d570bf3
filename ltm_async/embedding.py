"""Asking the caller's embedding function: on the loop or beside it, and trusting no answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

from .errors import StoreError, UnavailableError
from .transfer import PerLoop
from .vectors import EMBED, FLOAT_BYTES, MAX_DIMENSIONS, Embed, check_count, to_unit
from .worker import aside

AT_ONCE = 4
"""Calls of a plain function, each on a thread of its own, in one loop."""
PAUSE_EVERY_BYTES = 40_000
"""Vectors are checked on the loop, in turns of about a millisecond."""


class Embedder:
    """Calls one function, async or plain; a plain one never blocks the loop."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._runs_on_loop = inspect.iscoroutinefunction(embed) or inspect.iscoroutinefunction(
            getattr(embed, "__call__", None)  # noqa: B004  # of an object that is called
        )
        self._turns = PerLoop(lambda: asyncio.Semaphore(AT_ONCE))
        self._bytes_seen: int | None = None

    @property
    def vector_bytes(self) -> int:
        """What a vector takes, or may take at most before one was seen."""
        return self._bytes_seen or MAX_DIMENSIONS * FLOAT_BYTES

    async def vectors(self, texts: list[str]) -> list[bytes]:
        """One vector for each of *texts*, by one call.

        Raises:
            UnavailableError: The function failed.
            StoreError: What it gave cannot be used.
        """
        count = len(texts)  # which the function may change
        answer = await self._ask(texts)
        made: list[bytes] = []
        since_pause = 0
        for place in range(count):
            made.append(_checked(answer, place, count, made))
            since_pause += len(made[0])
            if since_pause >= PAUSE_EVERY_BYTES:
                since_pause = 0
                await asyncio.sleep(0)
        self._bytes_seen = len(made[0])
        return made

    async def _ask(self, texts: list[str]) -> object:
        try:
            if self._runs_on_loop:
                return await self._embed(texts)
            async with self._turns.get():
                answer = await aside(lambda: self._plain(texts), "ltm-embed")
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as exc:  # whatever a caller's function fails with
            # Its text may hold what must not be logged, such as a key or the texts themselves.
            raise UnavailableError(f"embed failed with {type(exc).__name__}", store=EMBED) from exc

    def _plain(self, texts: list[str]) -> Any:
        try:
            return self._embed(texts)
        except StopIteration as exc:  # which no future takes
            raise RuntimeError("StopIteration") from exc


def _checked(answer: Any, place: int, count: int, made: Sequence[bytes]) -> bytes:
    """The vector at *place* of an *answer* for *count* texts, as long as those *made* before."""
    try:
        if place == 0:
            check_count(answer, count)
        return to_unit(answer[place], len(made[0]) // FLOAT_BYTES if made else None)
    except StoreError:
        raise
    except Exception as exc:  # whatever an object of a stranger's class fails with
        raise StoreError(
            f"embed must give a sequence of vectors, not {type(answer).__name__}", store=EMBED
        ) from exc
