"""One pool of connections, from its first connection with an up-to-date schema to its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal

import asyncpg

from ...dsn import Address
from ...errors import ConfigError
from ...schema import VERSION, postgres_script
from ...tls import default_context
from ...worker import aside
from .failures import COMMANDING, CONNECTING, connecting, not_answered, not_connected
from .lending import Connection, Pool
from .options import PoolKey

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
CACHEABLE_STATEMENT = 1_000
"""Longer statements are not prepared by name: the probe is one, so that it works anywhere."""


_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""Errors that are no answer to a command, or the last word; after others a connection is good."""


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
        try:
            async with Borrowed(self._pool) as conn:
                return await conn.fetch(query, *arguments)
        except COMMANDING as exc:
            not_answered(exc, keys, versions)

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


class Borrowed:
    """A connection of *pool* that answers. One that is cut in a command is not lent again.

    A class, for as a generator it would take as long as all else that is done to borrow.
    """

    __slots__ = ("_conn", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        try:
            self._conn = await self._pool.lend()
        except CONNECTING as exc:
            not_connected(exc)
        return self._conn

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if exc is not None and (
                not isinstance(exc, asyncpg.PostgresError) or isinstance(exc, _BROKEN)
            ):
                # Else it waits for a cancellation to be confirmed, over a link that may be dead.
                self._conn.terminate()
        finally:
            self._pool.give_back(self._conn)


async def _tls(address: Address) -> ssl.SSLContext | Literal[False] | None:
    """Verified, unless the URL says otherwise itself or no byte leaves the machine."""
    if "sslmode" in address.parameters:
        return None  # asyncpg reads it
    return False if address.is_local else await default_context()


async def _create(key: PoolKey, tls: Any, *, named_statements: bool) -> Pool:
    settings = {} if "application_name" in key.address.parameters else {"application_name": "ltm"}

    async def connect() -> Connection:
        conn: Connection = await asyncpg.connect(
            key.address.dsn,
            connection_class=Connection,
            ssl=tls,
            timeout=CONNECT_TIMEOUT_S,
            statement_cache_size=100 if named_statements else 0,
            max_cacheable_statement_size=CACHEABLE_STATEMENT,
            server_settings=settings,
        )
        return conn

    pool = Pool(connect, key.max_size)
    try:
        await pool.fill(key.min_size)
    except BaseException:
        pool.terminate()
        raise
    return pool


async def _prepare(pool: Pool, key: PoolKey) -> bool:
    """Bring the schema up to date; say whether a pooler stands before the server."""
    async with Borrowed(pool) as conn:
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


async def _probe(conn: Connection, schema: str) -> tuple[int, int]:
    query = f'SELECT max(version), pg_backend_pid() FROM "{schema}".ltm_schema'  # noqa: S608
    row = await conn.fetchrow(_unnamed(query))
    if row is None:
        raise AssertionError("an aggregate gives a row")
    return row[0] or 0, row[1]


def _unnamed(query: str) -> str:
    """*query* as one that asyncpg does not prepare by a name, which a pooler would mix up."""
    return query.ljust(CACHEABLE_STATEMENT + 1)
