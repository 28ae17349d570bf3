"""One pool or client for each event loop, shared by all who need the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from .worker import PerProcess

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_inherited: list[object] = []
"""Not even collected: many drivers take that for a wish to close."""


class _Slot(Generic[K, T]):
    """The resource of one loop and key, while it is open."""

    __slots__ = ("leaving", "life", "lock", "loop", "pid", "resource", "users")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.resource: T | None = None
        self.life: AsyncGenerator[T, None] | None = None
        self.users: weakref.WeakSet[Share[K, T]] = weakref.WeakSet()
        self.leaving: set[asyncio.Task[None]] = set()
        # Holds for "not open, so open it" and for "the last user, so close it".
        self.lock = asyncio.Lock()

    async def leave(self, user: Share[K, T]) -> None:
        async with self.lock:
            self.users.discard(user)
            if not self.users and self.life is not None:
                await self.life.aclose()

    def leave_later(self, user: Share[K, T]) -> None:
        """For ``call_soon_threadsafe``: another thread's user leaves."""
        task = self.loop.create_task(self.leave(user))
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)


class Shared(Generic[K, T]):
    """Resources that belong to the loop they were made in: one for each process, loop and key.

    A resource is opened once, however many tasks ask for it at the same time, and closed when its
    last user releases it or, at the latest, when ``asyncio.run`` ends its loop. One whose loop
    was closed in another way is dropped; one inherited over a fork is left untouched.

    Args:
        connect: Opens the resource of a key.
        close: Closes it, in bounded time. Neither may be an asynchronous generator, nor a context
            manager made of one: the end of a loop would close that by itself, at the same time.
    """

    def __init__(
        self, connect: Callable[[K], Awaitable[T]], close: Callable[[T], Awaitable[None]]
    ) -> None:
        self._connect = connect
        self._close = close
        self._slots: PerProcess[dict[tuple[int, K], _Slot[K, T]]] = PerProcess(dict)

    def share(self, key: K) -> Share[K, T]:
        """A user of the resource of *key*; nothing is opened yet."""
        return Share(self, key)

    @property
    def inherited(self) -> bool:
        """A parent process had some open when it forked this one."""
        here = os.getpid()
        return any(
            slot.resource is not None
            for pid, slots in self._slots.made.items()
            if pid != here
            for slot in slots.values()
        )

    def _slot(self, key: K) -> _Slot[K, T]:
        loop = asyncio.get_running_loop()
        slots = self._slots.get()
        slot = slots.get((id(loop), key))
        if slot is not None and slot.loop is loop:  # an id is used again after its loop is gone
            return slot
        for name, other in list(slots.items()):
            if other.loop.is_closed():
                slots.pop(name, None)
        slot = slots[id(loop), key] = _Slot(loop)
        return slot

    async def _open(self, slot: _Slot[K, T], key: K) -> T:
        """Open the resource of *slot*, whose lock the caller holds."""
        life = self._live(slot, key)
        resource = await anext(life)
        slot.life, slot.resource = life, resource
        return resource

    async def _live(self, slot: _Slot[K, T], key: K) -> AsyncGenerator[T, None]:
        """Open, and close when told: by its ``aclose``, which the end of a loop calls too."""
        resource = await self._connect(key)
        try:
            yield resource
        finally:
            slot.resource = slot.life = None
            if slot.pid == os.getpid():
                await self._close(resource)
            else:  # a child ends a copy of the loop: what it says would be said for its parent
                _inherited.append(resource)


class Share(Generic[K, T]):
    """One user's part in a shared resource, in whatever loops it runs."""

    def __init__(self, shared: Shared[K, T], key: K) -> None:
        self._shared = shared
        self._key = key
        self._held: dict[tuple[int, int], _Slot[K, T]] = {}

    async def get(self) -> T:
        """The resource of the running loop, opened if it is not."""
        loop = asyncio.get_running_loop()
        place = os.getpid(), id(loop)
        slot = self._held.get(place)
        if slot is not None and slot.loop is loop and slot.resource is not None:
            return slot.resource
        for other, held in list(self._held.items()):
            if held.loop.is_closed():
                self._held.pop(other, None)
        slot = self._held[place] = self._shared._slot(self._key)
        async with slot.lock:
            resource = slot.resource
            if resource is None:
                resource = await self._shared._open(slot, self._key)
            slot.users.add(self)
            return resource

    async def release(self) -> None:
        """Give it back; the last user closes it. One held in another loop is closed there."""
        loop, pid = asyncio.get_running_loop(), os.getpid()
        held, self._held = self._held, {}
        for (owner, _), slot in held.items():
            if owner != pid or slot.loop.is_closed():
                continue
            if slot.loop is loop:
                await slot.leave(self)
            else:
                with contextlib.suppress(RuntimeError):  # it was closed just now
                    slot.loop.call_soon_threadsafe(slot.leave_later, self)
