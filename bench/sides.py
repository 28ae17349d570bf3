"""What takes part in a race: the library, and whatever does the same work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ltm_async import LTMBackend

Entries: TypeAlias = Sequence[Mapping[str, Any]]
"""Mappings with ``key`` and ``value``."""
OneEntry: TypeAlias = tuple[str, Any]
"""A key and its value."""


class Side(Protocol):
    """Stores and retrieves JSON values, in a place that is its own; every call has to succeed."""

    async def store_batch(self, entries: Entries, /) -> None: ...

    async def retrieve_batch(self, keys: Sequence[str], /) -> dict[str, Any]:
        """The values that are there."""

    async def store(self, key: str, value: Any, /) -> None: ...

    async def retrieve(self, key: str, /) -> Any: ...


class Ours:
    """The library."""

    def __init__(self, ltm: LTMBackend) -> None:
        self.ltm = ltm

    async def store_batch(self, entries: Entries) -> None:
        done = await self.ltm.store_batch(entries)
        assert done.raise_for_error().stored == len(entries)

    async def retrieve_batch(self, keys: Sequence[str]) -> dict[str, Any]:
        read = await self.ltm.retrieve_batch(keys)
        assert read.raise_for_error().found == len(keys)
        return {key: entry.value for key, entry in read.results.items()}

    async def store(self, key: str, value: Any) -> None:
        assert (await self.ltm.store(key, value)).raise_for_error().stored

    async def retrieve(self, key: str) -> Any:
        read = (await self.ltm.retrieve(key)).raise_for_error()
        assert read.found
        return read.value


def one_call(side: Side, verb: str) -> Callable[[OneEntry], Awaitable[object]]:
    """``store`` or ``retrieve`` of *side*, for a race."""
    if verb == "store":
        return lambda work: side.store(*work)
    return lambda work: side.retrieve(work[0])


def batch_call(side: Side, verb: str) -> Callable[[Entries], Awaitable[object]]:
    """``store_batch`` or ``retrieve_batch`` of *side*, for a race; both are given entries."""
    if verb == "store":
        return side.store_batch
    return lambda work: side.retrieve_batch([entry["key"] for entry in work])
