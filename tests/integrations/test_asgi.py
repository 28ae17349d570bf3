"""The middleware and the lifespan: one backend for all requests and loops, and work after them."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import ltm_async
from ltm_async import Cache, ConfigError, LTMBackend, UnavailableError
from ltm_async.integrations.asgi import App, LTMMiddleware, Receive, Scope, Send, defer, lifespan
from tests.backends import make_rig
from tests.databases import Console, Database

from .asgi_calls import Counted, get


async def count_up(scope: Scope, receive: Receive, send: Send) -> None:
    """A bare app: it counts its requests."""
    ltm: LTMBackend = scope["state"]["ltm"]
    done = await ltm.update("requests", lambda count: count + 1, default=0)
    assert done.stored
    await answer(send, str((await ltm.retrieve("requests")).value))


async def answer(send: Send, text: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


@pytest.fixture
def counted(database: Database, console: Console) -> Counted:
    return Counted(database, console)


# One backend


async def test_the_first_requests_at_once_share_one_pool(counted: Counted) -> None:
    ltm = counted.backend()
    app = LTMMiddleware(count_up, ltm)
    answers = await asyncio.gather(*(get(app) for _ in range(50)))
    assert {status for status, _ in answers} == {200}
    assert (await ltm.retrieve("requests")).value == 50
    assert 1 <= len(counted.pids()) <= 10
    await ltm.aclose()


def test_a_backend_serves_one_event_loop_after_another(counted: Counted) -> None:
    app = LTMMiddleware(count_up, counted.backend())
    for n in range(1, 4):
        assert asyncio.run(get(app)) == (200, str(n).encode())
    counted.settle(0)


def test_invocations_of_an_edge_function_find_the_connection_open(counted: Counted) -> None:
    ltm = counted.backend()
    app = LTMMiddleware(count_up, ltm)
    seen = set()
    for n in range(1, 4):
        assert ltm_async.run(get(app)) == (200, str(n).encode())
        seen.update(counted.pids())
    assert len(seen) == 1
    ltm_async.run(ltm.aclose())
    counted.settle(0)


async def test_the_state_of_a_request_is_added_to_and_not_replaced() -> None:
    seen: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"])
        await answer(send, "")

    ltm = LTMBackend("memory:", "memory:")
    await get(LTMMiddleware(look, ltm), state={"user": "ann"})
    assert seen == [{"user": "ann", "ltm": ltm}]


async def test_websockets_have_it_too_and_the_lifespan_passes_through() -> None:
    seen: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], "ltm" in scope.get("state", {})))

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    app = LTMMiddleware(look, LTMBackend("memory:", "memory:"))
    for kind in ("websocket", "lifespan"):
        await app({"type": kind}, receive, send)
    assert seen == [("websocket", True), ("lifespan", False)]


# Starlette


def starlette_app(ltm: LTMBackend, events: list[str]) -> Starlette:
    @contextlib.asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[dict[str, str]]:
        opened = (await ltm.retrieve("greeting")).success
        events.append(f"start {opened}")
        yield {"own": "state"}
        await ltm.store("stopped", 1)
        events.append("stop")

    async def greet(request: Request) -> JSONResponse:
        hit = await request.state.ltm.retrieve("greeting")
        return JSONResponse([hit.value, request.state.own])

    return Starlette(routes=[Route("/", greet)], lifespan=lifespan(ltm, own))


def test_a_lifespan_goes_around_the_apps_own_and_may_begin_again(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", "memory:", on_unavailable="raise")
    events: list[str] = []
    app = starlette_app(ltm, events)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() == [None, "state"]
    assert events == ["start True", "stop"] * 2


def test_the_connections_of_an_app_end_before_it_has_stopped(counted: Counted) -> None:
    """As they must: a server that was told to stop by a signal may be gone with its next step."""

    async def live() -> None:
        async with lifespan(ltm)(None) as state:
            assert state == {"ltm": ltm}
            assert len(counted.pids()) == 1
        await asyncio.to_thread(counted.settle, 0)

    ltm = counted.backend()
    for _ in range(2):
        asyncio.run(live())


def test_an_app_does_not_start_without_its_store(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    ltm = LTMBackend(f"sqlite:///{tmp_path}/file/ltm.db", "memory:", on_unavailable="raise")
    with pytest.raises(ltm_async.StoreError), TestClient(Starlette(lifespan=lifespan(ltm))):
        pass


# Deferred work


class Deferring:
    """An app that defers *works*, and notes in which order all happens."""

    def __init__(self, *works: Any) -> None:
        self.works = works
        self.events: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for work in self.works:
            assert defer(work) is None
        await answer(send, "")
        self.events.append("answered")


def served(app: App, **options: Any) -> LTMMiddleware:
    return LTMMiddleware(app, LTMBackend("memory:", "memory:"), **options)


async def test_deferred_work_is_done_after_the_response() -> None:
    async def work() -> None:
        app.events.append("worked")

    app = Deferring(work, work)
    await get(served(app))
    assert app.events == ["answered", "worked", "worked"]


async def test_deferred_work_that_fails_is_logged_and_keeps_no_other_from_being_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise UnavailableError("down")

    async def work() -> None:
        await asyncio.sleep(0)
        app.events.append("worked")

    app = Deferring(fail, work)
    assert await get(served(app)) == (200, b"")
    assert app.events == ["answered", "worked"]
    assert "deferred work failed" in caplog.text


async def test_deferred_work_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            app.events.append("cancelled")

    app = Deferring(hang, hang)
    async with asyncio.timeout(10):
        await get(served(app, deferred_timeout=0.01))
    assert app.events == ["answered", "cancelled", "cancelled"]
    assert "cancelled after 0.01 s" in caplog.text


async def test_a_cache_cleans_up_behind_the_answer(tmp_path: pathlib.Path) -> None:
    rig = make_rig("memory+memory", tmp_path)
    cache = Cache(rig.ltm, cleanup_probability=1.0, lease=None, defer=defer)
    await rig.ltm.store("old", 1, ttl=1)
    rig.clock.advance(2)
    expired: list[int] = []

    @cache.cached()
    async def report() -> str:
        return "report"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, await report())
        expired.append((await rig.ltm.stats()).expired)

    assert await get(LTMMiddleware(app, rig.ltm)) == (200, b"report")
    assert [*expired, (await rig.ltm.stats()).expired] == [1, 0]
    await rig.aclose()


async def test_an_app_that_fails_takes_its_deferred_work_with_it() -> None:
    async def work() -> None:
        pytest.fail("it was done")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        defer(work)
        raise ValueError("app")

    with pytest.raises(ValueError, match="app"):
        await get(served(app))


async def test_without_a_request_deferred_work_is_done_at_once() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    now = defer(work)
    assert now is not None
    await now
    assert done == [1]


async def test_a_task_that_outlives_its_request_defers_nothing_into_the_past() -> None:
    done: list[str] = []
    left: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def work() -> None:
        done.append("worked")

    async def outlive() -> None:
        await over.wait()
        now = defer(work)
        assert now is not None
        await now

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        left.append(asyncio.create_task(outlive()))
        await answer(send, "")

    await get(served(app))
    over.set()
    await asyncio.gather(*left)
    assert done == ["worked"]


async def test_requests_at_once_defer_each_for_itself() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]

        async def work() -> None:
            events.append(path)

        await asyncio.sleep(0)
        defer(work)
        await answer(send, path)

    app_with_it = served(app)
    paths = [f"/{n}" for n in range(20)]
    answers = await asyncio.gather(*(get(app_with_it, path) for path in paths))
    assert [body.decode() for _, body in answers] == paths
    assert sorted(events) == sorted(paths)


@pytest.mark.parametrize("timeout", [0, -1, "1", True])
def test_a_bound_that_cannot_be_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        served(Deferring(), deferred_timeout=timeout)
