"""What a campaign runs on, and the faults that it can have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from ltm_async.schema import postgres_script

from ..databases import Console
from ..servers.http_proxy import Answer, HttpProxy, Plan, error
from ..servers.ministack import MiniStack
from ..servers.postgres import Postgres
from ..servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpFaults, TcpProxy

Fault = Callable[[random.Random, Sequence[int]], AbstractAsyncContextManager[None]]
"""There inside the context, and healed behind it; the numbers are the workers' processes."""

TIMEOUT_S = 3.0
LEASE_S = 1.5
FULL = 4_096
"""So long may a file be on a full disk: what is longer already cannot be written to."""


class Setup(NamedTuple):
    """One catalog and one blob store, as clients reach them and as a judge does."""

    settings: Mapping[str, Any]
    """Of the clients, through what can be broken."""
    direct: Mapping[str, Any]
    faults: Mapping[str, Fault]
    clock_off_s: float
    """How wrong the clocks of clients are. SQLite has no other clock than theirs."""


def _settings(
    catalog: Mapping[str, Any], storage: Mapping[str, Any], timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    return {
        "catalog": catalog,
        "storage": storage,
        "on_unavailable": "raise",
        "timeout": timeout_s,
    }


@contextlib.asynccontextmanager
async def _killed(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
    os.kill(seeded.choice(workers), signal.SIGKILL)
    yield


@contextlib.asynccontextmanager
async def _frozen(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
    """Beyond the lease of what it uploads, and then it goes on with the same line."""
    worker = seeded.choice(workers)
    os.kill(worker, signal.SIGSTOP)
    try:
        await asyncio.sleep(LEASE_S + 0.5)
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _disk_full(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
    """No process of theirs can make a file any longer."""
    unlimited = resource.RLIM_INFINITY
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (FULL, unlimited))
    try:
        yield
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(worker, resource.RLIMIT_FSIZE, (unlimited, unlimited))


OF_WORKERS: Mapping[str, Fault] = {"worker killed": _killed, "worker frozen": _frozen}


@contextlib.contextmanager
def postgres_and_s3() -> Iterator[Setup]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Postgres())
        s3 = stack.enter_context(MiniStack())
        wire = stack.enter_context(TcpProxy(server.port))
        web = stack.enter_context(HttpProxy(s3.port))
        console = Console(server.dsn)
        console.run(postgres_script("public"))
        console.close()
        storage = {
            "uri": f"s3://{s3.new_bucket()}/chaos/",
            "region": s3.region,
            "access_key_id": s3.key.access_key_id,
            "secret_access_key": s3.key.secret_access_key,
        }
        proxied = server.dsn.replace(f":{server.port}/", f":{wire.port}/")

        def catalog(dsn: str) -> dict[str, Any]:
            return {"type": "postgres", "dsn": dsn, "install": False}

        yield Setup(
            _settings(catalog(proxied), {**storage, "endpoint_url": web.endpoint_url}),
            _settings(catalog(server.dsn), {**storage, "endpoint_url": s3.endpoint_url}, 60),
            {**OF_WORKERS, **_of_postgres(server, wire), **_of_storage(web)},
            clock_off_s=86_400.0,
        )


def _of_postgres(server: Postgres, wire: TcpProxy) -> dict[str, Fault]:
    def on_the_wire(*choices: TcpFaults) -> Fault:
        @contextlib.asynccontextmanager
        async def broken(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
            wire.faults = seeded.choice(choices)
            try:
                yield
            finally:
                wire.faults = NO_FAULTS

        return broken

    @contextlib.asynccontextmanager
    async def restarted(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
        await asyncio.to_thread(server.restart, signal.SIGQUIT)  # without a checkpoint
        yield

    @contextlib.asynccontextmanager
    async def read_only(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
        await asyncio.to_thread(_alter, server, "SET default_transaction_read_only = on")
        try:
            yield
        finally:
            await asyncio.to_thread(_alter, server, "RESET default_transaction_read_only")

    return {
        "catalog: reset": on_the_wire(
            TcpFaults(reset_up_after=0), TcpFaults(reset_up_after=300), TcpFaults(refuse=True)
        ),
        "catalog: reply lost": on_the_wire(LOST_REPLY, TcpFaults(reset_down_after=40)),
        "catalog: silent": on_the_wire(BLACK_HOLE, TcpFaults(swallow_down=True)),
        "catalog: slow": on_the_wire(TcpFaults(latency_s=0.2)),
        "catalog: restarted": restarted,
        "catalog: read-only": read_only,
    }


def _of_storage(web: HttpProxy) -> dict[str, Fault]:
    def answering(*plans: Plan) -> Fault:
        @contextlib.asynccontextmanager
        async def broken(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
            web.plan = seeded.choice(plans)
            try:
                yield
            finally:
                web.plan = None

        return broken

    def always(answer: Answer) -> Plan:
        return lambda number, asked: answer

    def every_other(answer: Answer) -> Plan:
        return lambda number, asked: answer if number % 2 else None

    return {
        "storage: 500": answering(always(error(500, "InternalError"))),
        "storage: 503": answering(always(error(503, "SlowDown"))),
        "storage: 429": answering(every_other(error(429, "TooManyRequests"))),
        "storage: cut bodies": answering(every_other(Answer(cut_after=100))),
        "storage: reply lost": answering(every_other(Answer(lost=True))),
    }


@contextlib.contextmanager
def sqlite_and_local(folder: pathlib.Path) -> Iterator[Setup]:
    file = folder / "chaos.db"
    settings = _settings({"type": "sqlite", "path": str(file)}, {"uri": str(folder / "blobs")})

    @contextlib.asynccontextmanager
    async def locked(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
        holder = await asyncio.to_thread(_lock, file)
        try:
            yield
        finally:
            holder.close()

    yield Setup(
        settings,
        settings,
        {**OF_WORKERS, "catalog: locked": locked, "disk full": _disk_full},
        clock_off_s=0.0,
    )


def _lock(file: pathlib.Path) -> sqlite3.Connection:
    conn = sqlite3.connect(file, timeout=10, isolation_level=None, check_same_thread=False)
    conn.execute("BEGIN IMMEDIATE")
    return conn


def _alter(server: Postgres, change: str) -> None:
    console = Console(server.dsn)
    console.run("SET default_transaction_read_only = off")
    console.run(f"ALTER SYSTEM {change}")
    console.run("SELECT pg_reload_conf()")
    console.close()
