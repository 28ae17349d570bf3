"""Blobs up and down side by side, bounded by their number and by their bytes."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Gate:
    """Admits transfers, in order, while their number and their bytes are within the limits.

    One that is larger than the byte limit by itself runs alone.
    """

    def __init__(self, *, count: int, size: int) -> None:
        self._free_count = count
        self._free_size = self._size = size
        self._waiting: collections.deque[tuple[int, asyncio.Future[None]]] = collections.deque()

    def admit(self, size: int) -> Admission:
        """An async context manager that holds *size* bytes of the gate."""
        return Admission(self, min(size, self._size))

    async def _enter(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._take(size)
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, admitted))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.cancelled():
                self._admit_next()  # the next may fit where this one did not
            else:
                self._leave(size)  # admitted and cancelled in the same turn
            raise

    def _leave(self, size: int) -> None:
        self._free_count += 1
        self._free_size += size
        self._admit_next()

    def _admit_next(self) -> None:
        while self._waiting:
            size, admitted = self._waiting[0]
            if not admitted.cancelled():
                if not self._fits(size):
                    return
                self._take(size)
                admitted.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int) -> bool:
        return self._free_count > 0 and size <= self._free_size

    def _take(self, size: int) -> None:
        self._free_count -= 1
        self._free_size -= size


class Admission:
    __slots__ = ("_gate", "_size")

    def __init__(self, gate: Gate, size: int) -> None:
        self._gate = gate
        self._size = size

    async def __aenter__(self) -> None:
        await self._gate._enter(self._size)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gate._leave(self._size)


async def fan_out(
    items: Sequence[T], transfer: Callable[[T], Awaitable[None]], *, count: int
) -> None:
    """Run *transfer* for every item, at most *count* at once; the first failure ends the rest.

    Raises:
        BaseException: The first failure itself, its group as the cause.
    """
    todo = iter(items)

    async def work() -> None:
        for item in todo:
            await transfer(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(count, len(items))):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def both(one: Coroutine[Any, Any, object], other: Coroutine[Any, Any, object]) -> None:
    """Run two side by side; the first failure ends the other, and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(one)
            group.create_task(other)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures


class PerLoop(Generic[T]):
    """A value for each running loop, dropped after the loop was closed.

    Futures belong to the loop that made them; a backend may be used by several.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[asyncio.AbstractEventLoop, T]] = {}

    def get(self) -> T:
        loop = asyncio.get_running_loop()
        made = self._made.get(id(loop))
        if made is not None and made[0] is loop:  # an id is used again after its loop is gone
            return made[1]
        for key, (other, _) in list(self._made.items()):
            if other.is_closed():
                self._made.pop(key, None)
        value = self._make()
        self._made[id(loop)] = (loop, value)
        return value


def chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
