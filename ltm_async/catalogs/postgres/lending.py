"""Connections of one loop, lent and given back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

from ...errors import UnavailableError
from ...transfer import fan_out
from .failures import NAME

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


class Connection(asyncpg.Connection):
    """Knows since when it has been idle."""

    _used_at = (0.0, 0.0)

    def used(self) -> None:
        # Neither clock goes on in every kind of sleep.
        self._used_at = time.monotonic(), time.time()

    def idle_s(self) -> float:
        monotonic, wall = self._used_at
        return max(time.monotonic() - monotonic, time.time() - wall)

    async def is_alive(self) -> bool:
        """Whether its server has not ended it meanwhile; if it has, it is closed."""
        idle_s = self.idle_s()
        if idle_s < LISTEN_AFTER_IDLE_S:
            return not self.is_closed()
        for _ in range(LISTEN_TURNS):
            await asyncio.sleep(0)
        if self.is_closed() or idle_s < CHECK_AFTER_IDLE_S:
            return not self.is_closed()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self.execute("SELECT 1")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self.terminate()
            return False
        except BaseException:
            self.terminate()
            raise
        return True


class Pool:
    """At most *size* connections of one loop; the one given back last is lent first.

    asyncpg's own takes three turns of the loop to be given one back: as long as a small statement.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._connect = connect
        self._size = size
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._ending: asyncio.TimerHandle | None = None
        self._closed = False

    async def fill(self, count: int) -> None:
        """Open *count* connections."""

        async def open_one(_: int) -> None:
            self._take_back(await self._connect())

        await fan_out(range(count), open_one, count=count)

    async def lend(self) -> Connection:
        """A connection that answers, for one user until it is given back."""
        self._check_open()
        await self._free.acquire()
        conn: Connection | None = None
        try:
            self._check_open()
            conn = self._idle.pop() if self._idle else None
            if conn is None or not await conn.is_alive():
                conn = await self._connect()
        except BaseException:
            if conn is not None:
                self._put_aside(conn)  # cancelled while it was looked at
            self._free.release()
            raise
        self._lent.add(conn)
        return conn

    def give_back(self, conn: Connection) -> None:
        """Take *conn* from its user, who may have closed it."""
        self._lent.discard(conn)
        if not conn.is_closed():
            self._take_back(conn)
        self._free.release()

    def _put_aside(self, conn: Connection) -> None:
        """Keep *conn*, which nobody has used since it was taken from the idle ones."""
        if self._closed:
            conn.terminate()
        elif not conn.is_closed():
            self._idle.append(conn)

    def _take_back(self, conn: Connection) -> None:
        conn.used()
        self._idle.append(conn)
        if self._ending is None:
            self._end_idle_in(IDLE_LIFETIME_S)

    def _end_idle_in(self, wait_s: float) -> None:
        self._ending = asyncio.get_running_loop().call_later(wait_s, self._end_idle)

    def _end_idle(self) -> None:
        """End those that nobody needed for long."""
        self._ending = None
        while self._idle:
            left_s = IDLE_LIFETIME_S - self._idle[0].idle_s()
            if left_s > 0:
                self._end_idle_in(left_s)
                return
            self._idle.pop(0).terminate()

    async def close(self) -> None:
        """Lend none any more, wait for those that are lent, and end all."""
        self._closed = True
        for _ in range(self._size):
            await self._free.acquire()
        if self._ending is not None:
            self._ending.cancel()
        while self._idle:
            await self._idle.pop().close()

    def terminate(self) -> None:
        """Cut all connections."""
        self._closed = True
        for conn in (*self._idle, *self._lent):
            conn.terminate()
        self._idle.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"{NAME}: the pool is closed", store=NAME)
