"""A GCS of our own, since no real one can be had.

``python -m tests.servers.gcs [LATENCY_MS]`` serves one in a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from ltm_async.clock import system_clock

from .gcs_http import OBJECTS, Api, error_body
from .gcs_objects import Buckets, StoredObject
from .http_proxy import Answer
from .loop_thread import LoopThread


class GcsServer:
    """Keeps its objects in memory, and works in a thread of its own.

    It breaks nothing by itself: for that it is reached through a proxy.
    """

    def __init__(self) -> None:
        self._buckets = Buckets(system_clock)
        self._api = Api(self._buckets)
        self._thread = LoopThread("ltm-test-gcs")
        self._runner, self.port = self._thread.run(_listen(self._api.serve))

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def clock(self) -> Callable[[], int]:
        """Microseconds since the epoch: the Date of answers, and when objects were made."""
        return self._buckets.clock

    @clock.setter
    def clock(self, clock: Callable[[], int]) -> None:
        self._buckets.clock = clock

    @property
    def requests(self) -> Counter[str]:
        """How often each method was called, such as ``"objects.list"``; clear it to begin again."""
        return self._api.requests

    def new_bucket(self, *, public: bool = True) -> str:
        """The name of a new, empty bucket; in a public one anybody may do everything."""
        name = f"test-{uuid.uuid4().hex}"
        self._buckets.create(name)
        if not public:
            self._api.private.add(name)
        return name

    def new_token(self, *permissions: str) -> str:
        """An access token with these permissions; without any, all there are on objects."""
        return self.grant(f"ya29.{uuid.uuid4().hex}", *permissions)

    def grant(self, token: str, *permissions: str) -> str:
        """The same with a token that is given."""
        self._api.grants[token] = frozenset(permissions) or OBJECTS
        return token

    def revoke(self, token: str) -> None:
        del self._api.grants[token]

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Store an object around every client."""
        self._buckets.put(bucket, data, {"name": name}, {})

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object around every client."""
        self._buckets.delete(bucket, name, {})

    def stored(self, bucket: str, name: str) -> StoredObject | None:
        """An object, looked at around every client; None when there is none."""
        return self._buckets.look(bucket).get(name)

    def names(self, bucket: str) -> list[str]:
        return sorted(self._buckets.look(bucket))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.run(self._runner.cleanup())
        self._thread.close()


Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def _listen(serve: Serve) -> tuple[web.ServerRunner, int]:
    """What calls *serve*, and on which port."""
    runner = web.ServerRunner(web.Server(serve), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    return runner, int(runner.addresses[0][1])


def refusal(status: int, reason: str, message: str = "a test says so", **headers: str) -> Answer:
    """An error as GCS writes it, for a proxy; header names are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=error_body(status, reason, message), headers=named)


async def _main(latency_s: float = 0.0) -> None:
    """Serve until stdin ends; the port is printed."""
    api = Api(Buckets(system_clock))

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(latency_s)
        return await api.serve(request)

    runner, port = await _listen(serve if latency_s else api.serve)
    print(port, flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main(*(float(argument) / 1e3 for argument in sys.argv[1:])))
