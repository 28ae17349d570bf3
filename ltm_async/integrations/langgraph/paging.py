"""Going through many entries, page by page, with what is needed of them kept in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ltm_async.backend import LTMBackend
from ltm_async.entry import shown
from ltm_async.errors import CorruptError, InvalidEntryError
from ltm_async.listing import MAX_PAGE
from ltm_async.results import ListResult

T = TypeVar("T")


class First(Generic[T]):
    """The first *count* of all that is added, in the order of *rank*."""

    def __init__(self, count: int, rank: Callable[[T], Any]) -> None:
        self._count = count
        self._rank = rank
        self._kept: list[T] = []
        self._last: Any = None

    def add(self, item: T) -> None:
        if self.admits(item):
            self._kept.append(item)
            if len(self._kept) >= 2 * self._count:
                self._cut()

    def admits(self, item: T) -> bool:
        """Whether adding it could make a difference."""
        return self._count > 0 and (self._last is None or self._rank(item) < self._last)

    def ranked(self) -> list[T]:
        self._cut()
        return self._kept

    def _cut(self) -> None:
        self._kept.sort(key=self._rank)
        del self._kept[self._count :]
        if self._kept and len(self._kept) == self._count:
            self._last = self._rank(self._kept[-1])


async def page_after(ltm: LTMBackend, prefix: str, cursor: str | None) -> ListResult:
    """The next page, whole.

    Raises:
        StoreError: The catalog failed, or an entry of the page is damaged.
    """
    page = (await ltm.list_entries(prefix, cursor=cursor, limit=MAX_PAGE)).raise_for_error()
    for key, failure in page.errors.items():
        raise CorruptError(f"the entry {shown(key)} is damaged: {failure.error}")
    return page


def check_window(limit: object, offset: object) -> None:
    for name, number in (("limit", limit), ("offset", offset)):
        if type(number) is not int or number < 0:
            raise InvalidEntryError(f"{name} is {shown(number)}, it must be an int of at least 0")
