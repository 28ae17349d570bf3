"""A connection and the one thread that uses it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar, cast

from ...errors import (
    AccessDeniedError,
    CorruptError,
    OutcomeUnknownError,
    StoreError,
    UnavailableError,
)
from ...worker import Call, Worker
from .database import patiently

T = TypeVar("T")
Job: TypeAlias = Callable[[sqlite3.Connection], object]

CLOSE_TIMEOUT_S = 5.0
LOCK_TIMEOUT_S = 60.0
"""For callers without a deadline; others withdraw when theirs ends."""
WRITES_TOGETHER = 64

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


class Lane:
    """Runs jobs in order on a connection that is opened by the first and closed at the end.

    *serve* is :func:`one_by_one` or :func:`together`.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        serve: Callable[[sqlite3.Connection, Sequence[Call[Job]]], None],
    ) -> None:
        self._connect = connect
        self._serve_calls = serve
        self._conn: sqlite3.Connection | None = None
        self._worker: Worker[Job] = Worker(name, self._serve, self._close)

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return cast("T", await self._worker.run(job))

    async def aclose(self) -> None:
        await self._worker.stop(timeout_s=CLOSE_TIMEOUT_S)

    def _serve(self, calls: list[Call[Job]]) -> None:
        try:
            if self._conn is None:
                self._conn = self._connect()
        except BaseException as exc:  # noqa: BLE001  # belongs to the callers, not to this thread
            _fail(calls, exc)
        else:
            self._serve_calls(self._conn, calls)

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def one_by_one(conn: sqlite3.Connection, calls: Sequence[Call[Job]]) -> None:
    """For reading: each job is a statement, which sees one moment."""
    for call in calls:
        if call.withdrawn:
            continue
        try:
            result = call.payload(conn)
        except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
            call.fail(translated(exc))
        else:
            call.answer(result)


def together(conn: sqlite3.Connection, calls: Sequence[Call[Job]]) -> None:
    """For writing: jobs that wait at the same time share a commit, and so one sync to the disk.

    Each is answered after the commit. When one of them fails, all are undone and each is done
    again by itself, so a job must have no effects but those on the connection.
    """
    for start in range(0, len(calls), WRITES_TOGETHER):
        _transact(conn, calls[start : start + WRITES_TOGETHER])


def _transact(conn: sqlite3.Connection, calls: Sequence[Call[Job]]) -> None:
    def somebody_waits() -> bool:
        return not all(call.withdrawn for call in calls)

    if not somebody_waits():
        return
    try:
        patiently(
            lambda: conn.execute("BEGIN IMMEDIATE"),
            timeout_s=LOCK_TIMEOUT_S,
            wanted=somebody_waits,
        )
    except BaseException as exc:  # noqa: BLE001  # belongs to the callers, not to this thread
        _fail(calls, exc)
        return
    try:
        # Those whose caller went while they waited for the lock are not done.
        done = [(call, call.payload(conn)) for call in calls if not call.withdrawn]
    except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
        _rollback(conn)
        if len(calls) == 1:
            _fail(calls, exc)
        else:
            for call in calls:
                _transact(conn, [call])
        return
    try:
        _commit(conn)
    except BaseException as exc:  # noqa: BLE001  # belongs to the callers, not to this thread
        _rollback(conn)
        _fail(calls, exc)
        return
    for call, result in done:
        call.answer(result)


def _fail(calls: Sequence[Call[Job]], exc: BaseException) -> None:
    for call in calls:
        call.fail(translated(exc))


def _rollback(conn: sqlite3.Connection) -> None:
    if conn.in_transaction:
        conn.execute("ROLLBACK")


def _commit(conn: sqlite3.Connection) -> None:
    try:
        conn.execute("COMMIT")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
            # What a failed sync left on the disk may yet be recovered as committed.
            raise OutcomeUnknownError(f"sqlite: {exc}", store="sqlite") from exc
        raise


def is_undecodable(exc: sqlite3.Error) -> bool:
    """A row holds text that is no UTF-8; the exception quotes it, so it must go no further."""
    return "decode to UTF-8" in str(exc)


def translated(exc: BaseException) -> BaseException:
    """An exception of ours for one of SQLite; any other as it is."""
    if isinstance(exc, OutcomeUnknownError):
        return OutcomeUnknownError(str(exc), store=exc.store)  # each caller gets its own
    if not isinstance(exc, sqlite3.Error):
        return exc
    if is_undecodable(exc):
        return CorruptError("sqlite: a row holds text that is not UTF-8", store="sqlite")
    code = getattr(exc, "sqlite_errorcode", None)
    error = StoreError if code is None else _ERRORS.get(code & 0xFF, StoreError)
    ours = error(f"sqlite: {exc}", store="sqlite")
    ours.__cause__ = exc
    return ours
