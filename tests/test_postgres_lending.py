"""The pool of PostgresCatalog: how connections are lent, waited for, given back and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from ltm_async import UnavailableError
from ltm_async.catalogs.postgres.lending import (
    CHECK_AFTER_IDLE_S,
    IDLE_LIFETIME_S,
    LISTEN_AFTER_IDLE_S,
    LISTEN_TURNS,
    Connection,
    Pool,
)

from .servers.postgres import Postgres


class Opened:
    """Opens connections, and remembers all that it opened."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.all: list[Connection] = []
        self.refusing = False

    async def __call__(self) -> Connection:
        if self.refusing:
            raise ConnectionRefusedError
        conn: Connection = await asyncpg.connect(self._server.dsn, connection_class=Connection)
        self.all.append(conn)
        return conn

    @property
    def open(self) -> list[Connection]:
        return [conn for conn in self.all if not conn.is_closed()]


@pytest.fixture
def opened(postgres_server: Postgres) -> Opened:
    return Opened(postgres_server)


@pytest.fixture
async def pool(opened: Opened) -> AsyncIterator[Pool]:
    """Of two connections at most."""
    pool = Pool(opened, 2)
    yield pool
    pool.terminate()
    assert opened.open == []


async def test_there_are_never_more_than_allowed_and_who_waits_gets_one_in_turn(
    pool: Pool, opened: Opened
) -> None:
    served: list[int] = []

    async def use(number: int) -> None:
        conn = await pool.lend()
        served.append(number)
        assert await conn.fetchval("SELECT 1") == 1
        pool.give_back(conn)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert len(opened.all) == 2
    assert [number for number in served if number > 1] == list(range(2, 20))


async def test_the_one_given_back_last_is_lent_first(pool: Pool, opened: Opened) -> None:
    one, other = await pool.lend(), await pool.lend()
    pool.give_back(one)
    pool.give_back(other)
    assert await pool.lend() is other
    assert await pool.lend() is one
    assert len(opened.all) == 2


async def test_one_that_its_user_closed_is_not_lent_again(pool: Pool, opened: Opened) -> None:
    one, other = await pool.lend(), await pool.lend()
    pool.give_back(other)
    one.terminate()
    pool.give_back(one)
    assert await pool.lend() is other
    assert await pool.lend() is not one
    assert len(opened.open) == 2


async def test_who_stops_waiting_takes_no_place_with_him(pool: Pool) -> None:
    held = [await pool.lend(), await pool.lend()]
    waiting = [asyncio.create_task(pool.lend()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    pool.give_back(held.pop())
    waiting[1].cancel()  # whose turn it is at this moment
    assert await waiting[2] is not None
    pool.give_back(held.pop())
    assert await pool.lend() is not None


@pytest.mark.parametrize("idle_s", [LISTEN_AFTER_IDLE_S, CHECK_AFTER_IDLE_S])
async def test_who_stops_while_his_connection_is_looked_at_loses_none(
    pool: Pool, opened: Opened, idle_s: float
) -> None:
    for turns in range(LISTEN_TURNS + 3):
        conn = await pool.lend()
        pool.give_back(conn)
        monotonic, wall = conn._used_at
        conn._used_at = monotonic - idle_s, wall - idle_s
        looking = asyncio.create_task(pool.lend())
        for _ in range(turns):
            await asyncio.sleep(0)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        if not looking.cancelled():
            pool.give_back(looking.result())
    assert len(opened.open) <= 1
    assert {await pool.lend()} >= {*opened.open}


async def test_a_connection_that_cannot_be_opened_takes_no_place(
    pool: Pool, opened: Opened
) -> None:
    opened.refusing = True
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await pool.lend()
    opened.refusing = False
    assert await pool.lend() is not await pool.lend()


async def test_it_opens_at_once_what_it_is_to_keep(pool: Pool, opened: Opened) -> None:
    await pool.fill(2)
    assert len(opened.open) == 2
    assert {await pool.lend(), await pool.lend()} == {*opened.all}


async def test_closing_waits_for_what_is_lent_and_refuses_who_comes_late(
    pool: Pool, opened: Opened
) -> None:
    conn, other = await pool.lend(), await pool.lend()
    pool.give_back(other)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="closed"):
        await pool.lend()
    assert await conn.fetchval("SELECT 1") == 1
    assert not closing.done()
    pool.give_back(conn)
    await closing
    assert opened.open == []


async def test_who_waited_when_it_was_closed_is_refused(pool: Pool) -> None:
    held = [await pool.lend(), await pool.lend()]
    waiting = asyncio.create_task(pool.lend())
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    for conn in held:
        pool.give_back(conn)
    with pytest.raises(UnavailableError, match="closed"):
        await waiting
    await closing


async def test_what_nobody_needed_for_long_is_ended_and_the_rest_stays(
    pool: Pool, opened: Opened
) -> None:
    one, other = await pool.lend(), await pool.lend()
    pool.give_back(one)
    pool.give_back(other)
    monotonic, wall = one._used_at
    one._used_at = monotonic - IDLE_LIFETIME_S, wall - IDLE_LIFETIME_S
    assert pool._ending is not None
    pool._ending.cancel()
    pool._end_idle()  # as its timer does
    assert opened.open == [other]
    assert pool._ending is not None
    assert pool._ending.when() > asyncio.get_running_loop().time() + IDLE_LIFETIME_S - 5
