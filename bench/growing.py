"""What is done with tables of many rows, on both sides."""

from __future__ import annotations

import abc
import random
from collections.abc import Awaitable, Callable

from bench.sides import Entries, Ours, Side
from bench.workloads import document

COPIES_OF = 1_000
"""Documents that the library stores; SQL multiplies them, under keys of their own."""
IN_2100 = 4_102_444_800_000_000
"""When the rows end, in microseconds: all are in the index of expiry."""
NEEDLE = "needle"
NEEDLES = 100
COMMON = "refund"
"""In every document."""


class Grown(abc.ABC):
    """One table of ours and a bare one, with the same rows."""

    def __init__(self, ours: Ours, bare: Side, rows: int) -> None:
        self.ours = ours
        self.bare = bare
        self._copies = rows // COPIES_OF - 1
        self._since = ""

    def keys(self, turn: int, count: int) -> list[str]:
        """Of *count* rows all over the table."""
        chosen = random.Random(turn).sample(range(COPIES_OF * self._copies), count)
        return [f"doc:{n % COPIES_OF:04}:{n // COPIES_OF + 1}" for n in chosen]

    async def mark_moment(self) -> None:
        """Changes are those since now."""
        made = (await self.ours.ltm.create_snapshot("now")).raise_for_error()
        assert made.id is not None
        self._since = made.id

    async def cleanup(self, limit: int) -> None:
        done = await self.ours.ltm.cleanup_expired(limit)
        assert done.raise_for_error().deleted == limit

    async def changes(self, limit: int) -> None:
        page = await self.ours.ltm.get_changed_entries(self._since, limit=limit)
        assert len(page.raise_for_error().changes) == limit

    async def search(self, word: str, limit: int) -> None:
        found = await self.ours.ltm.search(word, limit=limit)
        assert len(found.raise_for_error().results) == limit

    @abc.abstractmethod
    async def bare_cleanup(self, limit: int) -> None: ...

    @abc.abstractmethod
    async def bare_changes(self, limit: int) -> None:
        """One page since the moment; no look at what was deleted."""

    @abc.abstractmethod
    async def bare_search(self, word: str, limit: int) -> None:
        """In the library's own index; counts nothing and reads no entry."""


Call = Callable[[Grown], Awaitable[object]]


def documents() -> Entries:
    """The thousand."""
    return [{"key": key, "value": document(key, n)} for n, key in enumerate(_names())]


def search_docs() -> Entries:
    """Those that have a word that no other has, and another of theirs each."""
    return [
        {"key": f"needle:{n:04}", "value": {"text": f"{NEEDLE} of the haystack{n}"}}
        for n in range(NEEDLES)
    ]


def _names() -> list[str]:
    return [f"doc:{n:04}" for n in range(COPIES_OF)]
