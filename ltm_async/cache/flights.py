"""Calls of one key that share one look and one piece of work, in a process and an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

from ..backend import LTMBackend
from ..transfer import PerLoop

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Rest(Generic[T]):
    """What is still to be done after a look that was not enough."""

    work: Callable[[], Coroutine[Any, Any, T]]


class Flight(Generic[T]):
    """A look, and then work, under way; and how many wait for what they give."""

    def __init__(self) -> None:
        self.waiting = 0
        self.outdated = False
        """What it works on was invalidated meanwhile: its result is not to be kept."""
        self.task: asyncio.Task[T] | None = None
        self.found: tuple[T] | None = None
        """What the look gave, if that was enough."""
        self._followers: list[asyncio.Future[None]] = []

    async def looked(self) -> None:
        """Until the look has ended, one way or the other."""
        # One for each, since cancelling a task cancels the future that it waits for.
        follower = asyncio.get_running_loop().create_future()
        self._followers.append(follower)
        await follower

    def wake(self) -> None:
        for follower in self._followers:
            if not follower.done():
                follower.set_result(None)


Look: TypeAlias = Callable[[Flight[T]], Awaitable[T | Rest[T]]]


class Flights(Generic[T]):
    """The flights of one event loop by key.

    The first caller looks by itself; when it is cancelled, another looks. Work belongs to all who
    wait for it: it goes on when any of them is cancelled, and when the last one is, it is cancelled
    and its end awaited. So none outlives the calls it serves.
    """

    def __init__(self) -> None:
        self._flying: dict[str, Flight[T]] = {}

    async def join(self, key: str, look: Look[T]) -> T:
        """What the flight of *key* gives or raises, to all the same; *look* starts one.

        Work runs in a task with the context variables of the call that looked.
        """
        while True:
            flight = self._flying.get(key)
            looks = flight is None
            if flight is None:
                flight = self._flying[key] = Flight()
            flight.waiting += 1
            try:
                if looks:
                    await self._look(key, flight, look)
                elif flight.task is None:
                    await flight.looked()
                if flight.found is not None:
                    return flight.found[0]
                if flight.task is not None:
                    await asyncio.wait([flight.task])
                    return flight.task.result()
            finally:
                flight.waiting -= 1
                await self._leave(key, flight)

    async def follow(self, key: str) -> T | None:
        """What the work under way for *key* gives or raises, if there is any."""
        flight = self._flying.get(key)
        if flight is None or flight.task is None:
            return None
        flight.waiting += 1
        try:
            await asyncio.wait([flight.task])
            return flight.task.result()
        finally:
            flight.waiting -= 1
            await self._leave(key, flight)

    def leave_behind(self, key: str) -> None:
        """Have later calls of *key* start anew, and the present result not kept."""
        flight = self._flying.pop(key, None)
        if flight is not None:
            flight.outdated = True

    async def _look(self, key: str, flight: Flight[T], look: Look[T]) -> None:
        try:
            found = await look(flight)
        except BaseException:
            self._land(key, flight)
            flight.wake()  # and one of them looks
            raise
        if isinstance(found, Rest):
            work = self._fly(key, flight, found.work)
            flight.task = asyncio.get_running_loop().create_task(work)
        else:
            self._land(key, flight)
            flight.found = (found,)
        flight.wake()

    async def _fly(
        self, key: str, flight: Flight[T], work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        try:
            return await work()
        finally:
            self._land(key, flight)  # at once, so that nobody joins what has ended

    async def _leave(self, key: str, flight: Flight[T]) -> None:
        task = flight.task
        if task is None:
            return
        if not flight.waiting and not task.done():
            self._land(key, flight)
            task.cancel()
            await asyncio.wait([task])
        if task.done() and not task.cancelled():
            task.exception()  # looked at, also where nobody is left to be told

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
