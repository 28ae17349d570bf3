"""An HTTP proxy on loopback that answers some requests itself, as a store in trouble does."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import itertools
from collections.abc import Callable, Mapping
from typing import Self

import aiohttp
import yarl
from aiohttp import web

from .loop_thread import LoopThread

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request that came in."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: Mapping[str, str]
    byte_size: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the client gets instead of the server's own answer."""

    status: int = 0
    """Of an answer of our own, which the server never hears of; 0 passes the request on."""
    body: bytes = b""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cut_after: int | None = None
    """So many bytes of the server's body are passed on, then the connection is closed."""
    lost: bool = False
    """The server does as it is asked, and the connection is closed instead of its answer."""
    hangs: bool = False
    """The server never hears of it, and there is no answer until the proxy is closed."""


def error(status: int, code: str, **headers: str) -> Answer:
    """An error as S3 writes it; header names are given with underscores."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>a test says so</Message></Error>"
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=body.encode(), headers=named)


Plan = Callable[[int, Asked], Answer | None]
"""From the number of a request, from 0, to what it gets; None passes it on unharmed."""


class HttpProxy:
    """Passes on to *port* of this machine what comes to its own, unless ``plan`` says otherwise.

    Host and signature headers pass unchanged. It works in a thread of its own; ``plan`` may be
    set from any, and setting it starts counting at 0 again.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[Asked] = []
        """Every request since the plan was set."""
        self._plan: Plan | None = None
        self._numbers = itertools.count()
        self._target = f"http://127.0.0.1:{port}"
        self._thread = LoopThread("ltm-test-http-proxy")
        self.port = self._thread.run(self._start())

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def plan(self) -> Plan | None:
        return self._plan

    @plan.setter
    def plan(self, plan: Plan | None) -> None:
        self.asked = []
        self._numbers = itertools.count()
        self._plan = plan

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.run(self._close())
        self._thread.close()

    async def _start(self) -> int:
        self._closing = asyncio.Event()
        self._upstream = aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=["User-Agent", "Accept", "Content-Type"]
        )
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _close(self) -> None:
        self._closing.set()
        await self._runner.cleanup()
        await self._upstream.close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if "Expect" in request.headers and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.content.read()
        asked = Asked(request.method, request.raw_path, dict(request.headers), len(body))
        self.asked.append(asked)
        number, plan = next(self._numbers), self._plan
        answer = (plan(number, asked) if plan else None) or Answer()
        if answer.hangs:
            await self._closing.wait()
            return _cut_off(request)
        if answer.status:
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        return await self._pass_on(request, body, answer)

    async def _pass_on(
        self, request: web.BaseRequest, body: bytes, answer: Answer
    ) -> web.StreamResponse:
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in HOP_BY_HOP
        ]
        url = yarl.URL(self._target + request.raw_path, encoded=True)
        async with self._upstream.request(
            request.method,
            url,
            headers=headers,
            data=io.BytesIO(body) if body else None,
            allow_redirects=False,
        ) as reply:
            content = await reply.read()
            if answer.lost:
                return _cut_off(request)
            response = web.StreamResponse(status=reply.status, reason=reply.reason)
            for name, value in reply.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            size = reply.headers.get("Content-Length", str(len(content)))
            response.content_length = int(size)
            await response.prepare(request)
            if request.method != "HEAD":
                await response.write(content[: answer.cut_after])
            if answer.cut_after is not None and request.transport is not None:
                request.transport.close()
            return response


def _cut_off(request: web.BaseRequest) -> web.Response:
    """Reset the connection; the answer is for a client that is gone."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
