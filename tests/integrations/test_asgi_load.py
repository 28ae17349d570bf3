"""The FastAPI example under load from another process: nothing fails, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ltm_async import LTMBackend
from ltm_async.integrations.asgi import LTMMiddleware
from tests.databases import Console, Database
from tests.servers.process import answers, free_port

from .asgi_calls import Counted, get

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "fastapi_app.py"
LOAD = pathlib.Path(__file__).with_name("load.py")
MAX_CONNECTIONS = 10


class Server:
    """The example in a process, with what the system says it holds."""

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        self.port = free_port()
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", EXAMPLE],
                cwd=folder,
                env={**os.environ, "DATABASE_URL": url, "PORT": str(self.port)},
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: answers(self.port), self.log)

    def log(self) -> str:
        return self._log.read_text()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def load(self, requests: int, clients: int, *kind: str) -> dict[str, int]:
        done = subprocess.run(
            [sys.executable, LOAD, str(self.port), str(requests), str(clients), *kind],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.log()
        told: dict[str, int] = json.loads(done.stdout)
        return told

    def stop(self) -> int:
        """Ask it to end, as a platform does, and wait for it: its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_until(true: Callable[[], bool], why_not: Callable[[], Any], timeout_s: float = 20) -> None:
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up, why_not()
        time.sleep(0.02)


@pytest.fixture
def counted(database: Database, console: Console) -> Counted:
    return Counted(database, console)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///memory.db"
    counted: Counted = request.getfixturevalue("counted")
    return counted.url


@pytest.fixture
def server(tmp_path: pathlib.Path, url: str) -> Iterator[Server]:
    server = Server(tmp_path, url)
    yield server
    server.close()


def test_no_request_fails_under_load_and_the_server_stops_cleanly(
    server: Server, url: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    assert server.load(1_000, 25) == {"200": 1_000}
    if "postgres" in url:
        counted: Counted = request.getfixturevalue("counted")
        assert 1 <= len(counted.pids()) <= MAX_CONNECTIONS
    # uvicorn ends itself by the same signal, once it has shut down.
    assert server.stop() == -signal.SIGTERM
    assert "Application shutdown complete" in server.log()
    assert "Finished server process" in server.log()
    for bad in ("Traceback", "WARNING", "ERROR", "timeout graceful shutdown exceeded"):
        assert bad not in server.log()
    if "postgres" in url:
        counted.settle(0)
    assert asyncio.run(visits(url.replace("///", f"///{tmp_path}/"))) == 500


async def visits(url: str) -> int:
    async with LTMBackend(url, "memory:", on_unavailable="raise") as ltm:
        listed = await ltm.list_entries("visits:", limit=1_000)
        read = await ltm.retrieve_batch(entry.key for entry in listed.entries)
        return sum(hit.value for hit in read.results.values())


def test_a_thousand_requests_cancelled_by_their_client_leave_nothing(
    server: Server, url: str, request: pytest.FixtureRequest
) -> None:
    assert server.load(400, 25) == {"200": 400}
    wait_until(lambda: server.descriptors() < 40, server.log)
    before = server.descriptors()
    assert server.load(1_000, 50, "cancelled") == {"cancelled": 1_000}
    assert server.load(400, 25) == {"200": 400}
    wait_until(lambda: server.descriptors() <= before + MAX_CONNECTIONS, server.descriptors)
    assert server.threads() <= 20
    if "postgres" in url:
        counted: Counted = request.getfixturevalue("counted")
        assert len(counted.pids()) <= MAX_CONNECTIONS
    # It waits for every request that is still being served, so that one that hangs would keep it.
    assert server.stop() == -signal.SIGTERM
    assert "Traceback" not in server.log()


async def test_a_thousand_requests_cancelled_in_the_server_leave_nothing(counted: Counted) -> None:
    """As by a server that cancels a request's task when its client has gone."""
    ltm = counted.backend()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        memory = scope["state"]["ltm"]
        await memory.store(scope["path"], {"text": "x" * 2_000}, ttl=60)
        await memory.retrieve_batch([scope["path"], "/0"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    served = LTMMiddleware(app, ltm)
    await get(served)
    before = asyncio.all_tasks()
    open_before = len(os.listdir("/proc/self/fd"))
    draw = random.Random(1)
    ends = {"cancelled": 0, "answered": 0}

    async def leave_early(n: int) -> None:
        try:
            async with asyncio.timeout(draw.random() * 0.03):
                await get(served, f"/{n % 50}")
                ends["answered"] += 1
        except TimeoutError:
            ends["cancelled"] += 1

    for start in range(0, 1_000, 50):
        await asyncio.gather(*(leave_early(n) for n in range(start, start + 50)))
    assert sum(ends.values()) == 1_000 and ends["cancelled"] > 200
    assert asyncio.all_tasks() == before
    assert await get(served) == (200, b"done")
    await asyncio.to_thread(
        wait_until, lambda: len(counted.pids()) <= MAX_CONNECTIONS, counted.pids
    )
    assert len(os.listdir("/proc/self/fd")) <= open_before + MAX_CONNECTIONS
    assert (await ltm.verify()).sound
    await ltm.aclose()
