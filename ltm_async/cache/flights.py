"""Calls of one key that share one piece of work, in a process and an event loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ..backend import LTMBackend
from ..transfer import PerLoop

T = TypeVar("T")


class Flight(Generic[T]):
    """Work under way, and how many wait for it."""

    def __init__(self, work: Callable[[Flight[T]], Coroutine[Any, Any, T]]) -> None:
        self.waiting = 0
        self.outdated = False
        """What it works on was invalidated meanwhile: its result is not to be kept."""
        self.task = asyncio.get_running_loop().create_task(work(self))


class Flights(Generic[T]):
    """The flights of one event loop by key.

    A flight belongs to all who wait for it: it goes on when any of them is cancelled, and when
    the last one is, it is cancelled and its end awaited. So none outlives the calls it serves.
    """

    def __init__(self) -> None:
        self._flying: dict[str, Flight[T]] = {}

    async def follow(self, key: str) -> T | None:
        """What the flight of *key* gives or raises, if there is one."""
        flight = self._flying.get(key)
        return None if flight is None else await self._landed(key, flight)

    async def join(self, key: str, work: Callable[[Flight[T]], Coroutine[Any, Any, T]]) -> T:
        """What the flight of *key* gives or raises, to all the same; *work* starts one.

        It runs in a task with the context variables of the call that started it.
        """
        flight = self._flying.get(key)
        if flight is None:
            flight = self._flying[key] = Flight(lambda flight: self._fly(key, flight, work))
        return await self._landed(key, flight)

    def leave_behind(self, key: str) -> None:
        """Have later calls of *key* start anew, and the present result not kept."""
        flight = self._flying.pop(key, None)
        if flight is not None:
            flight.outdated = True

    async def _fly(
        self, key: str, flight: Flight[T], work: Callable[[Flight[T]], Coroutine[Any, Any, T]]
    ) -> T:
        try:
            return await work(flight)
        finally:
            self._land(key, flight)  # at once, so that nobody joins what has ended

    async def _landed(self, key: str, flight: Flight[T]) -> T:
        flight.waiting += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._land(key, flight)
                flight.task.cancel()
                await asyncio.wait([flight.task])
            if flight.task.done() and not flight.task.cancelled():
                flight.task.exception()  # looked at, also where nobody is left to be told
        return flight.task.result()

    def _land(self, key: str, flight: Flight[T]) -> None:
        if self._flying.get(key) is flight:
            del self._flying[key]


_registries: weakref.WeakKeyDictionary[LTMBackend, PerLoop[Flights[Any]]] = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def flights_of(ltm: LTMBackend) -> Flights[Any]:
    """Those of a backend, hence of one namespace, in the running loop; shared by its caches."""
    registry = _registries.get(ltm)
    if registry is None:
        with _lock:
            registry = _registries.setdefault(ltm, PerLoop(Flights))
    return registry.get()
