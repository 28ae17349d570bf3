"""Faults at one chosen step: around a catalog and a blob store, before or after its effect.

::

    faults = Faults(at=2, mode=Mode.LOST_REPLY)
    ltm = LTMBackend(faulty_catalog(catalog, faults), faulty_blob_store(blobs, faults))
    await faults.run(ltm.store("key", "value"))
    faults.steps      # ["catalog.reserve_blobs", "blobs.put", …]
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from ..errors import LTMError, OutcomeUnknownError, UnavailableError
from ..protocols import BlobStore, Catalog

T = TypeVar("T")

_NO_STEPS = frozenset({"name", "batch_bytes", "uri", "open", "aclose"})


class Mode(enum.Enum):
    """What happens at the chosen step."""

    ERROR = "error before"
    """It is refused, once."""
    LOST_REQUEST = "lost request"
    """It never takes effect, once, and the caller hears that the outcome is unknown."""
    LATE = "late request"
    """The same, but it takes effect all the same once the operation has ended."""
    LOST_REPLY = "lost reply"
    """It takes effect, once, and the caller hears that the outcome is unknown."""
    CANCEL_BEFORE = "cancel before"
    """The task that runs the operation is cancelled before it takes effect."""
    CANCEL_AFTER = "cancel after"
    """The same after it took effect, before the caller hears of it."""
    KILL_BEFORE = "kill before"
    """SIGKILL for this process before it takes effect."""
    KILL_AFTER = "kill after"
    DOWN = "error from here on"
    """This and every later step is refused."""


class Faults:
    """Counts the steps of both stores and does *mode* at step number *at*, from 0.

    Without *at* it only counts.
    """

    def __init__(self, *, at: int | None = None, mode: Mode = Mode.ERROR) -> None:
        self.at = at
        self.mode = mode
        self.steps: list[str] = []
        """The names of the steps so far, such as ``"blobs.put"``."""
        self.steps_begun = 0
        """How many steps had begun when the reply of the chosen one was lost."""
        self._victim: asyncio.Task[Any] | None = None
        self._late: Callable[[], Awaitable[Any]] | None = None

    @property
    def reached(self) -> bool:
        return self.at is not None and len(self.steps) > self.at

    async def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run *operation* in the task that the modes of cancellation cancel.

        A late request arrives when it has ended, and what the store says to it is lost.
        """
        task = asyncio.create_task(operation)
        self._victim = task
        try:
            return await task
        finally:
            if self._late is not None:
                with contextlib.suppress(LTMError):
                    await self._late()

    async def step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        number = len(self.steps)
        self.steps.append(name)
        chosen = self.at is not None and (
            number == self.at or (number > self.at and self.mode is Mode.DOWN)
        )
        if chosen:
            if self.mode is Mode.LATE:
                self._late = call
            await self._before(name)
        result = await call()
        if chosen:
            await self._after(name)
        return result

    async def _before(self, name: str) -> None:
        match self.mode:
            case Mode.ERROR | Mode.DOWN:
                raise UnavailableError(f"{name} was refused by a test", store="faults")
            case Mode.LOST_REQUEST | Mode.LATE:
                raise OutcomeUnknownError(f"{name} was lost in a test", store="faults")
            case Mode.KILL_BEFORE:
                os.kill(os.getpid(), signal.SIGKILL)
            case Mode.CANCEL_BEFORE:
                await self._cancel()

    async def _after(self, name: str) -> None:
        match self.mode:
            case Mode.LOST_REPLY:
                self.steps_begun = len(self.steps)
                raise OutcomeUnknownError(f"{name} lost its reply in a test", store="faults")
            case Mode.KILL_AFTER:
                os.kill(os.getpid(), signal.SIGKILL)
            case Mode.CANCEL_AFTER:
                await self._cancel()

    async def _cancel(self) -> None:
        if self._victim is None:
            raise RuntimeError("only an operation started by Faults.run can be cancelled")
        self._victim.cancel()
        await asyncio.get_running_loop().create_future()  # until the cancellation arrives


def faulty_catalog(catalog: Catalog, faults: Faults) -> Catalog:
    return cast("Catalog", _Faulty(catalog, "catalog", faults))


def faulty_blob_store(blobs: BlobStore, faults: Faults) -> BlobStore:
    return cast("BlobStore", _Faulty(blobs, "blobs", faults))


class _Faulty:
    """Passes everything on, through a step each."""

    def __init__(self, inner: object, label: str, faults: Faults) -> None:
        self._inner = inner
        self._label = label
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if name in _NO_STEPS:
            return inner
        step = f"{self._label}.{name}"
        if inspect.isasyncgenfunction(inner):

            async def scan(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                items = await self._faults.step(step, lambda: _all(inner(*args, **kwargs)))
                for item in items:
                    yield item

            return scan

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._faults.step(step, lambda: inner(*args, **kwargs))

        return call


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]
