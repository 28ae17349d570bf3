"""Temporary tables, each on a cursor of its own, which no other cursor can see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..errors import ClosedError, UnavailableError
from .connecting import Base, keep_in_children
from .failing import STORE, translating

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


class Table:
    """One cursor and what was put into its temporary table, for one statement after another.

    Args:
        make: What makes the cursor, on a thread; else it is one of *base*.
    """

    def __init__(
        self, base: Base, make: Callable[[], duckdb.DuckDBPyConnection] | None = None
    ) -> None:
        self.base = base
        self._make = make or base.cursor
        self._pid = os.getpid()
        keep_in_children(self)
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._turn = asyncio.Lock()
        self._busy = False
        self._released = False
        self._unclean = False
        self._lock = threading.Lock()  # of what is busy and what is released

    async def run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What *work* gives, on a thread; cancelling interrupts what its cursor is doing."""
        if os.getpid() != self._pid:
            raise ClosedError("these entries were loaded before a fork, by the parent process")
        async with self._turn:
            return await self.base.pool.run(lambda: self._run(work), self._interrupt)

    def release(self) -> None:
        """Drop the table, at once or when what a cancelled call has begun ends. Does not wait."""
        with self._lock:
            if self._released or os.getpid() != self._pid:
                return
            self._released = True
            if self._busy or self._cursor is None:
                return
        self.base.pool.later(self._close)

    def _run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with self._lock:
            if self._released:
                raise ClosedError("these entries are no longer loaded")
            if self._busy:
                raise UnavailableError("a query that was cancelled has not ended yet", store=STORE)
            self._busy = True
        try:
            with translating(self.base):
                if self._cursor is None:
                    self._cursor = self._make()
                if self._unclean:
                    self._roll_back(self._cursor)
                self._unclean = True
                result = work(self._cursor)
                self._unclean = False
                return result
        finally:
            self._end()

    def _roll_back(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """What was interrupted may have left a transaction, for its rollback is, too."""
        import duckdb

        with contextlib.suppress(duckdb.Error):  # there is none
            cursor.execute("ROLLBACK")

    def _end(self) -> None:
        with self._lock:
            self._busy = False
            if not self._released:
                return
        self._close()

    def _interrupt(self) -> None:
        import duckdb

        cursor = self._cursor
        if cursor is not None:
            with contextlib.suppress(duckdb.Error):  # it has just been closed
                cursor.interrupt()

    def _close(self) -> None:
        import duckdb

        if self._cursor is not None:
            with contextlib.suppress(duckdb.Error):
                self._cursor.close()
