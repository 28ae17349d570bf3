"""The base connection of a process: made once, its settings locked, its files in one folder."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING

from ..errors import ClosedError, ConfigError, MissingDriverError
from ..worker import aside, wait_for_asides
from .extending import load_extensions
from .options import EngineOptions
from .pool import Pool, leave_pools

if TYPE_CHECKING:
    import duckdb

CLOSE_TIMEOUT_S = 10.0


class Opening:
    """The base connection of one process, made on first use and again when it is broken."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._base: Base | None = None
        self._closed = False
        self._lock = threading.Lock()

    async def base(self) -> Base:
        base = self._base
        if base is not None and not base.broken:
            return base
        return await aside(self._make, "ltm-duckdb-open")

    async def aclose(self) -> None:
        base = await aside(self._take, "ltm-duckdb-close")
        if base is not None:
            await base.aclose()

    def _make(self) -> Base:
        with self._lock:
            if self._closed:
                raise ClosedError("the query engine is closed")
            if self._base is not None and self._base.broken:
                broken, self._base = self._base, None
                broken.abandon()
            if self._base is None:
                self._base = connect(self._options)
            return self._base

    def _take(self) -> Base | None:
        with self._lock:
            self._closed = True
            base, self._base = self._base, None
            return base


class Base:
    """One DuckDB in memory, the folder it spills to, and the threads that call it.

    Its SQL reaches no file but in that folder, no network and no setting; see
    :mod:`ltm_async.engine.checking` for what is refused before it gets there.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: str, size: int) -> None:
        import duckdb

        self.pool = Pool("ltm-duckdb", size)
        self.folder = folder
        self.pid = os.getpid()
        self.broken = False
        """It has failed inside and takes no more calls."""
        self._connection = connection
        # DuckDB 1 makes one at its import, with a thread: it is kept from children, too.
        self._default = duckdb.default_connection() if duckdb.__version__ < "2" else None
        keep_in_children(self)
        self._remove = weakref.finalize(self, _remove, folder, self.pid)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same database: temporary tables are its own, too."""
        return self._connection.cursor()

    async def aclose(self) -> None:
        await self.pool.stop(timeout_s=CLOSE_TIMEOUT_S)
        await aside(self.abandon, "ltm-duckdb-close")

    def abandon(self) -> None:
        """Close without waiting for what is still running. Blocks, so not on a loop."""
        import duckdb

        self.pool.end()
        with contextlib.suppress(duckdb.Error):  # what takes no interrupt keeps it open
            self._connection.close()
        self._remove()


def connect(options: EngineOptions) -> Base:
    """Import DuckDB and make the base connection; takes some 0.1 s, so not on a loop.

    Raises:
        MissingDriverError: DuckDB is not installed.
        ConfigError: DuckDB refuses an option, or *temp_directory* cannot be written to.
    """
    try:
        import duckdb
        import pytz  # noqa: F401  # DuckDB imports it to give an instant
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="DuckDBQueryEngine", extra="duckdb") from exc
    try:
        folder = tempfile.mkdtemp(prefix="ltm-duckdb-", dir=options.temp_directory)
    except OSError as exc:
        raise ConfigError(f"temp_directory cannot be written to: {exc.strerror}") from exc
    try:
        connection = connect_locked(options, folder)
    except duckdb.Error as exc:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"DuckDB refuses the options of the engine: {exc}") from exc
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Base(connection, folder, options.max_queries)


def connect_locked(options: EngineOptions, folder: str) -> duckdb.DuckDBPyConnection:
    """A database of its own for SQL of users, with the extensions that were asked for.

    Raises:
        ConfigError: An extension is not there.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config=settings(options, folder))
    load_extensions(connection, options.extensions, options.extension_directory)
    for statement in _LOCK:
        connection.execute(statement)
    return connection


def connect_reader(options: EngineOptions, folder: str) -> duckdb.DuckDBPyConnection:
    """A database of its own that can read this machine's files, for SQL of the library alone."""
    import duckdb

    connection = duckdb.connect(":memory:", config=settings(options, folder))
    connection.execute(_IN_UTC)
    return connection


def settings(
    options: EngineOptions, folder: str
) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "threads": options.threads,
        "memory_limit": options.memory_limit,
        "temp_directory": folder,
        "max_temp_directory_size": options.max_temp_directory_size,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        "python_enable_replacements": False,  # a table's name must not find Python's variables
    }


_IN_UTC = "SET GLOBAL TimeZone = 'UTC'"
_LOCK = (
    _IN_UTC,
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


_kept: weakref.WeakSet[object] = weakref.WeakSet()


def keep_in_children(holder: object) -> None:
    """Never destroy *holder* in a process that is forked, for what it holds of DuckDB is not whole
    there: its threads are the parent's, and to end it would abort the child."""
    _kept.add(holder)


def _keep() -> None:
    kept = list(_kept)
    if kept:
        import ctypes

        for holder in kept:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(holder))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)


def _leave() -> None:
    """End what nobody closed, or Python would end its threads in the midst of DuckDB's code, which
    aborts the process."""
    wait_for_asides()  # one may be making a base
    leave_pools()
    for holder in list(_kept):
        if isinstance(holder, Base):
            _remove(holder.folder, holder.pid)  # the finalizer's time may be over


atexit.register(_leave)


def _remove(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # in a process that was forked the folder is still its parent's
        shutil.rmtree(folder, ignore_errors=True)
