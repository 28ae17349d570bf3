"""A backend in ASGI apps: Starlette, FastAPI, and bare ones, with or without lifespan.

::

    ltm = LTMBackend("postgresql://…", "s3://…")
    app = FastAPI(lifespan=lifespan(ltm))
    app.add_middleware(LTMMiddleware, ltm=ltm)

    @app.get("/")
    async def index(request: Request) -> Any:
        return (await request.state.ltm.retrieve("greeting")).value
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, TypeAlias

from ltm_async.backend import LTMBackend
from ltm_async.config import check_timeout

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Lifespan: TypeAlias = Callable[[Any], contextlib.AbstractAsyncContextManager[Mapping[str, Any]]]
Stateless: TypeAlias = Callable[[Any], contextlib.AbstractAsyncContextManager[None]]
Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

STATE = "ltm"
"""The name of the backend in a request's state."""

logger = logging.getLogger(__name__)


class _Waiting:
    """What the request now served has deferred, until its response is sent."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self.over = False


_waiting: contextvars.ContextVar[_Waiting | None] = contextvars.ContextVar(
    "ltm_waiting", default=None
)


def lifespan(ltm: LTMBackend, app_lifespan: Lifespan | Stateless | None = None) -> Lifespan:
    """The ``lifespan=`` of a Starlette or FastAPI app: connects before the first request.

    The backend is then ``request.state.ltm``. When the app has stopped, its connections are closed
    by :meth:`LTMBackend.release`, so that the app may be started again, as tests do.

    Args:
        ltm: The process's backend.
        app_lifespan: The app's own lifespan, which starts after the backend and ends before it;
            the state it yields is kept.

    Raises:
        StoreError: From the app's start, if a store failed and ``on_unavailable`` is ``"raise"``.
    """

    @contextlib.asynccontextmanager
    async def connected(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        try:
            await ltm.open()
            if app_lifespan is None:
                yield {STATE: ltm}
            else:
                async with app_lifespan(app) as state:
                    yield {**(state or {}), STATE: ltm}
        finally:
            await ltm.release()

    return connected


def defer(work: Work) -> Coroutine[Any, Any, object] | None:
    """Have *work* called and awaited after the response that is being made; for ``defer=``.

    Where :class:`LTMMiddleware` serves no request, or its response is sent already, it gives the
    coroutine back, to be awaited now: a frozen function has no later.
    """
    waiting = _waiting.get()
    if waiting is None or waiting.over:  # a task may outlive the request that started it
        return work()
    waiting.works.append(work)
    return None


class LTMMiddleware:
    """Gives each request the backend, and does what was deferred once its response is sent.

    Pure ASGI: it works for Starlette, FastAPI and bare apps, streams bodies, and needs no lifespan
    messages, which edge functions do not have. The first call of the backend opens it, once for
    all requests that need it then. In ``scope["state"]``, which is ``request.state``, it is
    ``ltm``.

    Work given to :func:`defer` runs when the app has finished with its request, in the request's
    own task, so that servers wait for it at shutdown, and functions before they freeze. What it
    raises is logged. When the app raises or is cancelled, it is dropped.

    Args:
        app: The app to serve.
        ltm: The process's backend, which stays yours to close.
        deferred_timeout: Seconds that the deferred work of one request may take together, then it
            is cancelled; None for no limit.

    Raises:
        ConfigError: *deferred_timeout* cannot be used.
    """

    def __init__(self, app: App, ltm: LTMBackend, *, deferred_timeout: float | None = 30.0) -> None:
        check_timeout(deferred_timeout)
        self._app = app
        self._ltm = ltm
        self._deferred_timeout_s = deferred_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})[STATE] = self._ltm
        waiting = _Waiting()
        token = _waiting.set(waiting)
        try:
            await self._app(scope, receive, send)
        finally:
            waiting.over = True
            _waiting.reset(token)
        if waiting.works:
            await self._finish(waiting.works)

    async def _finish(self, works: list[Work]) -> None:
        try:
            async with asyncio.timeout(self._deferred_timeout_s), asyncio.TaskGroup() as group:
                for work in works:
                    group.create_task(_logged(work))
        except TimeoutError:
            logger.warning("deferred work was cancelled after %s s", self._deferred_timeout_s)


async def _logged(work: Work) -> None:
    try:
        await work()
    except Exception:
        logger.exception("deferred work failed")
