"""A connection and the one thread that uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar, cast

from ...errors import AccessDeniedError, CorruptError, StoreError, UnavailableError
from ...worker import Call, Worker

T = TypeVar("T")

CLOSE_TIMEOUT_S = 5.0

_ERRORS = {
    sqlite3.SQLITE_BUSY: UnavailableError,
    sqlite3.SQLITE_LOCKED: UnavailableError,
    sqlite3.SQLITE_FULL: UnavailableError,
    sqlite3.SQLITE_NOMEM: UnavailableError,
    sqlite3.SQLITE_IOERR: UnavailableError,
    sqlite3.SQLITE_CANTOPEN: UnavailableError,
    sqlite3.SQLITE_READONLY: AccessDeniedError,
    sqlite3.SQLITE_PERM: AccessDeniedError,
    sqlite3.SQLITE_AUTH: AccessDeniedError,
    sqlite3.SQLITE_CORRUPT: CorruptError,
    sqlite3.SQLITE_NOTADB: CorruptError,
}


Job = Callable[["Call[Job]", sqlite3.Connection], object]


class Lane:
    """Runs jobs in order on a connection that is opened by the first and closed at the end."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._conn: sqlite3.Connection | None = None
        self._worker: Worker[Job] = Worker(name, self._serve, self._close)

    async def run(self, job: Callable[[Call[Job], sqlite3.Connection], T]) -> T:
        return cast("T", await self._worker.run(job))

    async def aclose(self) -> None:
        await self._worker.stop(timeout_s=CLOSE_TIMEOUT_S)

    def _serve(self, calls: list[Call[Job]]) -> None:
        for call in calls:
            if call.withdrawn:
                continue
            try:
                if self._conn is None:
                    self._conn = self._connect()
                result = call.payload(call, self._conn)
            except sqlite3.Error as exc:
                call.fail(_translated(exc))
            except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
                call.fail(exc)
            else:
                call.answer(result)

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def is_undecodable(exc: sqlite3.Error) -> bool:
    """A row holds text that is no UTF-8; the exception quotes it, so it must go no further."""
    return "decode to UTF-8" in str(exc)


def _translated(exc: sqlite3.Error) -> StoreError:
    if is_undecodable(exc):
        return CorruptError("sqlite: a row holds text that is not UTF-8", store="sqlite")
    code = getattr(exc, "sqlite_errorcode", None)
    error = StoreError if code is None else _ERRORS.get(code & 0xFF, StoreError)
    ours = error(f"sqlite: {exc}", store="sqlite")
    ours.__cause__ = exc
    return ours
