"""The faults that a campaign can have: of workers, of the servers, and of what leads to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from ..servers import grpc_proxy
from ..servers.grpc_proxy import GrpcProxy
from ..servers.http_proxy import Answer, HttpProxy, Plan
from ..servers.process import Server
from ..servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpFaults, TcpProxy

Fault: TypeAlias = Callable[[random.Random, Sequence[int]], AbstractAsyncContextManager[None]]
"""There inside the context, and healed behind it; the numbers are the workers' processes."""
Refuse: TypeAlias = Callable[[int], Answer]
"""A server's own answer of an HTTP status, as it writes it."""

TIMEOUT_S = 3.0
"""Of the clients' calls."""
LEASE_S = 1.5
FULL = 4_096
"""So long may a file be on a full disk: what is longer already cannot be written to."""


# Of workers


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


OF_WORKERS: Mapping[str, Fault] = {"worker killed": _killed, "worker frozen": _frozen}


@contextlib.asynccontextmanager
async def disk_full(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
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


# Of servers, and of what leads to them


def between(strike: Callable[[random.Random], None], heal: Callable[[], None]) -> Fault:
    """There from *strike* to *heal*, either of which may block."""

    @contextlib.asynccontextmanager
    async def fault(seeded: random.Random, workers: Sequence[int]) -> AsyncIterator[None]:
        await asyncio.to_thread(strike, seeded)
        try:
            yield
        finally:
            await asyncio.to_thread(heal)

    return fault


def restarted(server: Server, stop_with: signal.Signals) -> Fault:
    return between(lambda seeded: server.restart(stop_with), lambda: None)


def frozen(server: Server) -> Fault:
    """Until its clients have given up; then it does what it was asked meanwhile."""

    def freeze(seeded: random.Random) -> None:
        server.kill(signal.SIGSTOP)
        time.sleep(TIMEOUT_S)

    return between(freeze, lambda: server.kill(signal.SIGCONT))


def of_wire(
    wire: TcpProxy, *, after_silence: Callable[[], None] = lambda: None
) -> dict[str, Fault]:
    """Of a catalog whose clients come by *wire*."""

    def broken(*choices: TcpFaults, healed: Callable[[], None] = lambda: None) -> Fault:
        def strike(seeded: random.Random) -> None:
            wire.faults = seeded.choice(choices)

        def heal() -> None:
            wire.faults = NO_FAULTS
            healed()

        return between(strike, heal)

    return {
        "catalog: reset": broken(
            TcpFaults(reset_up_after=0), TcpFaults(reset_up_after=300), TcpFaults(refuse=True)
        ),
        "catalog: reply lost": broken(LOST_REPLY, TcpFaults(reset_down_after=40)),
        "catalog: silent": broken(BLACK_HOLE, TcpFaults(swallow_down=True), healed=after_silence),
        "catalog: slow": broken(TcpFaults(latency_s=0.2)),
    }


def of_web(store: str, web: HttpProxy, refuse: Refuse) -> dict[str, Fault]:
    """Of a *store*, the catalog or the storage, whose clients come by *web*."""

    def answering(plan: Plan) -> Fault:
        def strike(seeded: random.Random) -> None:
            web.plan = plan

        def heal() -> None:
            web.plan = None

        return between(strike, heal)

    def always(answer: Answer) -> Plan:
        return lambda number, asked: answer

    def every_other(answer: Answer) -> Plan:
        return lambda number, asked: answer if number % 2 else None

    return {
        f"{store}: 500": answering(always(refuse(500))),
        f"{store}: 503": answering(always(refuse(503))),
        f"{store}: 429": answering(every_other(refuse(429))),
        f"{store}: cut bodies": answering(every_other(Answer(cut_after=100))),
        f"{store}: reply lost": answering(every_other(Answer(lost=True))),
        f"{store}: silent": answering(every_other(Answer(hangs=True))),
    }


def of_grpc(api: GrpcProxy) -> dict[str, Fault]:
    """Of a catalog whose clients come by *api*."""

    def answering(*answers: grpc_proxy.Answer) -> Fault:
        def strike(seeded: random.Random) -> None:
            turns = itertools.count()
            api.choose = lambda method: seeded.choice(answers) if next(turns) % 4 == 3 else None

        def heal() -> None:
            api.choose = lambda method: None
            api.calls.clear()
            api.headers.clear()

        return between(strike, heal)

    def refusing(status: str) -> Fault:
        return answering(grpc_proxy.Answer(status=status, after=False))

    return {
        "catalog: ABORTED": refusing("ABORTED"),
        "catalog: RESOURCE_EXHAUSTED": refusing("RESOURCE_EXHAUSTED"),
        "catalog: UNAVAILABLE": answering(
            grpc_proxy.Answer(status="UNAVAILABLE", after=False),
            grpc_proxy.Answer(status="UNAVAILABLE", after=True),
            grpc_proxy.Answer(status="INTERNAL", after=True),
        ),
    }
