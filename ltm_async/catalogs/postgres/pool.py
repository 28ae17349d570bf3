"""One pool of connections, from its first connection with an up-to-date schema to its end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import asyncpg

from ...dsn import Address
from ...errors import ConfigError
from ...schema import VERSION, postgres_script
from ...tls import default_context
from ...worker import aside
from .failures import commanding, connecting
from .options import PoolKey

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
LISTEN_AFTER_IDLE_S = 0.05
LISTEN_TURNS = 5
"""Of the loop, which may have stood still meanwhile: the server's last words are read in one, its
end in the next, and passed on in another."""
CHECK_AFTER_IDLE_S = 5.0
"""By a round trip: a link that is gone says no end."""
CHECK_TIMEOUT_S = 2.0
IDLE_LIFETIME_S = 240.0
"""Below the 350 s after which load balancers of clouds drop a connection silently
(https://docs.aws.amazon.com/elasticloadbalancing/latest/network/update-idle-timeout.html)."""
CACHEABLE_STATEMENT = 1_000
"""Longer statements are not prepared by name: the probe is one, so that it works anywhere."""

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Borrowed: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""Errors that are no answer to a command, or the last word; after others a connection is good."""


class _Connection(asyncpg.Connection):
    """Knows since when it has been idle."""

    _used_at = (0.0, 0.0)

    def used(self) -> None:
        # Neither clock goes on in every kind of sleep.
        self._used_at = time.monotonic(), time.time()

    def idle_s(self) -> float:
        monotonic, wall = self._used_at
        return max(time.monotonic() - monotonic, time.time() - wall)


class Connections:
    """The pool, as the catalog uses it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def fetch(
        self,
        query: str,
        arguments: Sequence[Any],
        keys: Sequence[str],
        versions: Sequence[int | None],
    ) -> list[Any]:
        """The rows that *query* gives; *keys* and *versions* are for a conflict's error."""
        with commanding(keys, versions):
            async with borrow(self._pool) as conn:
                return await conn.fetch(query, *arguments)

    async def aclose(self) -> None:
        await close_pool(self._pool)


async def open_pool(key: PoolKey) -> Pool:
    """A pool whose database is ready."""
    with connecting():
        tls = await _tls(key.address)
        pool = await _create(key, tls, named_statements=key.pooler is not True)
        try:
            if key.install or key.pooler is None:
                behind_pooler = await _prepare(pool, key)
                if behind_pooler and key.pooler is None:
                    await close_pool(pool)
                    pool = await _create(key, tls, named_statements=False)
        except BaseException:
            pool.terminate()
            raise
    return pool


async def close_pool(pool: Pool) -> None:
    """Close it, cutting what is still in use after ``CLOSE_TIMEOUT_S``."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


@contextlib.asynccontextmanager
async def borrow(pool: Pool) -> AsyncIterator[Borrowed]:
    """A connection that answers. One that is cut in a command is not given back."""
    with connecting():
        try:
            conn = await pool.acquire()
        except _LostWhileIdleError:
            conn = await pool.acquire()  # its place in the pool is empty now, so this connects
    try:
        yield conn
    except BaseException as exc:
        if not isinstance(exc, asyncpg.PostgresError) or isinstance(exc, _BROKEN):
            # Anything else waits for a cancellation to be confirmed, over a link that may be dead.
            with contextlib.suppress(asyncpg.InterfaceError):  # it is already
                conn.terminate()
        raise
    else:
        cast("_Connection", conn).used()
    finally:
        await pool.release(conn)


async def _tls(address: Address) -> ssl.SSLContext | Literal[False] | None:
    """Verified, unless the URL says otherwise itself or no byte leaves the machine."""
    if "sslmode" in address.parameters:
        return None  # asyncpg reads it
    return False if address.is_local else await default_context()


async def _create(key: PoolKey, tls: Any, *, named_statements: bool) -> Pool:
    settings = {} if "application_name" in key.address.parameters else {"application_name": "ltm"}
    pool: Pool = asyncpg.create_pool(
        key.address.dsn,
        min_size=key.min_size,
        max_size=key.max_size,
        max_inactive_connection_lifetime=IDLE_LIFETIME_S,
        connection_class=_Connection,
        init=_mark_used,
        setup=_check_idle,
        reset=_keep,
        ssl=tls,
        timeout=CONNECT_TIMEOUT_S,
        statement_cache_size=100 if named_statements else 0,
        max_cacheable_statement_size=CACHEABLE_STATEMENT,
        server_settings=settings,
    )
    try:
        return await pool
    except BaseException:
        pool.terminate()
        raise


async def _mark_used(conn: Any) -> None:
    conn.used()


async def _keep(conn: Any) -> None:
    """Instead of asyncpg's reset, a round trip: no session state is ever made."""


class _LostWhileIdleError(OSError):
    """A connection was found dead before it was used."""


async def _check_idle(conn: Any) -> None:
    """Refuse a connection that its server has ended meanwhile."""
    idle_s = conn.idle_s()
    if idle_s < LISTEN_AFTER_IDLE_S:
        return
    for _ in range(LISTEN_TURNS):
        await asyncio.sleep(0)
    if conn.is_closed():
        raise _LostWhileIdleError("an idle connection was lost")
    if idle_s < CHECK_AFTER_IDLE_S:
        return
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await conn.execute("SELECT 1")
    except asyncio.CancelledError:
        conn.terminate()
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        conn.terminate()
        raise _LostWhileIdleError("an idle connection was lost") from exc


async def _prepare(pool: Pool, key: PoolKey) -> bool:
    """Bring the schema up to date; say whether a pooler stands before the server."""
    async with borrow(pool) as conn:
        try:
            version, server_pid = await _probe(conn, key.schema)
        except asyncpg.UndefinedTableError:
            version, server_pid = 0, None
        if key.install and version != VERSION:
            if version > VERSION:
                raise ConfigError(
                    f"the catalog has schema version {version}, this release knows up to "
                    f"{VERSION}: upgrade ltm-async"
                )
            await conn.execute(await aside(partial(postgres_script, key.schema)))
        if server_pid is None:
            server_pid = await conn.fetchval(_unnamed("SELECT pg_backend_pid()"))
        # A pooler makes up the number that it tells its clients, for they share its servers.
        return bool(server_pid != conn.get_server_pid())


async def _probe(conn: Borrowed, schema: str) -> tuple[int, int]:
    query = f'SELECT max(version), pg_backend_pid() FROM "{schema}".ltm_schema'  # noqa: S608
    row = await conn.fetchrow(_unnamed(query))
    if row is None:
        raise AssertionError("an aggregate gives a row")
    return row[0] or 0, row[1]


def _unnamed(query: str) -> str:
    """*query* as one that asyncpg does not prepare by a name, which a pooler would mix up."""
    return query.ljust(CACHEABLE_STATEMENT + 1)
