"""Supabase refusing, down, silent or cut off: right outcomes, and nothing told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    DeadlineError,
    FencedError,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    SupabaseCatalog,
    UnavailableError,
)
from ltm_async.testing.writes import new_write_id, small

from .backends import QUICK
from .projects import Project
from .servers.http_proxy import Answer, Asked, HttpProxy
from .servers.ministack import MiniStack
from .servers.postgrest import PostgREST, signed
from .servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpProxy

CANARY = "c4n4ry"


@pytest.fixture
def proxy(project: Project, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    return http_proxy(project.api.port)


@pytest.fixture
async def catalog(project: Project, proxy: HttpProxy) -> AsyncIterator[SupabaseCatalog]:
    """Behind a proxy, and connected."""
    catalog = project.catalog(url=proxy.endpoint_url)
    await catalog.open()
    yield catalog
    await catalog.aclose()


def backend(catalog: SupabaseCatalog, **options: Any) -> LTMBackend:
    return LTMBackend(catalog, "memory:", on_unavailable="raise", retry=QUICK, **options)


async def failure_of(catalog: SupabaseCatalog) -> LTMError:
    """What a write raises; without a secret, and in the store's name."""
    with pytest.raises(LTMError) as caught:
        await catalog.track_entry("", small(f"key {CANARY}", f'"{CANARY}"'), write_id="w")
    await catalog.aclose()
    text = "".join(traceback.format_exception(caught.value))
    assert CANARY not in f"{text} {catalog!r}"
    assert getattr(caught.value, "store", "supabase") == "supabase"
    return caught.value


# What an answer means


def said(code: str, status: int, message: str = "words", **more: str) -> Answer:
    """A refusal as PostgREST writes it."""
    body = {"code": code, "details": None, "hint": None, "message": message, **more}
    return Answer(status=status, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        *((Answer(status=status), OutcomeUnknownError, str(status)) for status in range(502, 505)),
        (Answer(status=500), OutcomeUnknownError, "500"),
        (Answer(status=522, body=b"<html>"), OutcomeUnknownError, "522"),
        (said("PGRST000", 503), UnavailableError, "words (PGRST000)"),
        (said("PGRST001", 503), OutcomeUnknownError, "words (PGRST001)"),
        (said("PGRST002", 503), UnavailableError, "words (PGRST002)"),
        (said("PGRST003", 504), UnavailableError, "words (PGRST003)"),
        (said("57014", 500), UnavailableError, "words (57014)"),
        (said("40001", 500), UnavailableError, "40001"),
        (said("40P01", 500), UnavailableError, "40P01"),
        (said("53300", 503), UnavailableError, "53300"),
        (said("25006", 405), UnavailableError, "25006"),
        (said("08006", 503), OutcomeUnknownError, "08006"),
        (said("57P01", 503), OutcomeUnknownError, "57P01"),
        (said("LT002", 400), FencedError, "LT002"),
        (said("23514", 400, f"row {CANARY}"), StoreError, "SQLSTATE 23514"),
        (said("PGRST202", 404), StoreError, "`ltm schema supabase` prints"),
        (said("PGRST106", 406), StoreError, "expose its schema"),
        (said("42883", 404), StoreError, "`ltm schema supabase` prints"),
        (said("42501", 403, f"row {CANARY}"), AccessDeniedError, "the namespace is not"),
        (said("PGRST301", 401, "JWT expired"), AccessDeniedError, "has expired"),
        (said("PGRST303", 401, "JWT expired"), AccessDeniedError, "has expired"),
        (said("PGRST301", 401, f"bad {CANARY}"), AccessDeniedError, "not one of this project's"),
        (Answer(status=401, body=b'{"message":"Invalid API key"}'), AccessDeniedError, "the key"),
        (Answer(status=403), AccessDeniedError, "403"),
        (Answer(status=413), StoreError, "413"),
        (said("PGRST102", 400, CANARY), StoreError, "400 and PGRST102"),
        (Answer(status=404, body=b"not found"), StoreError, "404"),
        (Answer(status=200, body=b"<html>"), OutcomeUnknownError, "no JSON"),
        (Answer(status=204), OutcomeUnknownError, "204"),
    ],
)
async def test_what_an_answer_means(
    catalog: SupabaseCatalog, proxy: HttpProxy, answer: Answer, expected: type, words: str
) -> None:
    proxy.plan = lambda number, asked: answer
    error = await failure_of(catalog)
    assert type(error) is expected
    assert words in str(error)
    assert len(proxy.asked) == 1, "what is tried again is decided in one place"


async def test_throttling_says_how_long_to_wait(catalog: SupabaseCatalog, proxy: HttpProxy) -> None:
    for said_s, wait_s in (("7", 7.0), ("soon", None)):
        throttled = Answer(status=429, headers={"Retry-After": said_s})
        proxy.plan = lambda number, asked, throttled=throttled: throttled
        with pytest.raises(RateLimitedError) as caught:
            await catalog.get_entry("", "k")
        assert caught.value.retry_after_s == wait_s


async def test_a_redirect_is_not_followed(
    catalog: SupabaseCatalog, proxy: HttpProxy, http_proxy: Callable[[int], HttpProxy]
) -> None:
    elsewhere = http_proxy(proxy.port)
    target = {"Location": f"{elsewhere.endpoint_url}/rpc/ltm_check"}
    for status in (301, 302, 307, 308):
        moved = Answer(status=status, headers=target)
        proxy.plan = lambda number, asked, moved=moved: moved
        with pytest.raises(StoreError, match=str(status)):
            await catalog.get_entry("", "k")
    assert elsewhere.asked == []


async def test_a_reply_that_is_too_large_is_refused_before_it_is_read_whole(
    catalog: SupabaseCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalog.track_entry("", small("k", f'"{"x" * 20_000}"'), write_id=new_write_id())
    monkeypatch.setattr("ltm_async.catalogs.supabase.client.MAX_REPLY_BYTES", 10_000)
    with pytest.raises(StoreError, match="over 10000 bytes"):
        await catalog.get_entry("", "k")
    monkeypatch.undo()
    assert await catalog.get_entry("", "k") is not None


async def test_a_schema_without_functions_says_what_to_run(project: Project) -> None:
    for schema in ("public", "not_exposed"):
        assert "`ltm schema supabase` prints" in str(
            await failure_of(project.catalog(schema=schema))
        )


@pytest.mark.parametrize(("version", "words"), [(0, "this release needs"), (99, "upgrade")])
async def test_another_version_of_the_schema_is_refused(
    project: Project, proxy: HttpProxy, version: int, words: str
) -> None:
    body = json.dumps({"version": version, "role": "authenticated", "open": []}).encode()
    proxy.plan = lambda number, asked: Answer(status=200, body=body)
    assert words in str(await failure_of(project.catalog(url=proxy.endpoint_url)))


async def test_a_statement_that_takes_longer_than_the_role_may_is_unavailable(
    catalog: SupabaseCatalog, project: Project
) -> None:
    """Supabase gives 8 s to a user who is signed in."""
    project.run(
        "CREATE OR REPLACE FUNCTION {}time_limit() RETURNS json LANGUAGE sql AS $$ "
        "SELECT to_json(current_setting('statement_timeout')) $$; NOTIFY pgrst, 'reload schema'"
    )
    client = await catalog._share.get()

    async def allow(limit: str) -> None:
        project.run(
            f"ALTER ROLE authenticated SET statement_timeout = '{limit}';"
            "NOTIFY pgrst, 'reload config'"
        )
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(StoreError):  # it does not know the function yet
                    if await client.call("time_limit", {}) == limit:
                        return
                await asyncio.sleep(0.02)

    await allow("50ms")
    project.run("BEGIN; LOCK TABLE {}ltm_entries")
    try:
        with pytest.raises(UnavailableError, match="57014"):
            await catalog.track_entry("", small("k"), write_id=new_write_id())
    finally:
        project.run("ROLLBACK")
        await allow("8s")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"7", b"null", b'{"version": [], "open": 1}'])
async def test_another_service_is_no_catalog(
    project: Project, proxy: HttpProxy, body: bytes
) -> None:
    proxy.plan = lambda number, asked: Answer(status=200, body=body)
    assert "is no catalog" in str(await failure_of(project.catalog(url=proxy.endpoint_url)))


# Where nothing answers


async def test_nobody_listening_is_unavailable(project: Project, unused_tcp_port: int) -> None:
    error = await failure_of(project.catalog(url=f"http://127.0.0.1:{unused_tcp_port}"))
    assert type(error) is UnavailableError


async def test_a_host_that_has_no_address_is_unavailable(project: Project) -> None:
    error = await failure_of(project.catalog(url="https://no-such-host.invalid"))
    assert type(error) is UnavailableError


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    project: Project, s3_tls_server: MiniStack
) -> None:
    error = await failure_of(project.catalog(url=s3_tls_server.endpoint_url))
    assert type(error) is StoreError
    assert "no trusted TLS connection" in str(error)


async def test_no_secret_is_told(project: Project, unused_tcp_port: int) -> None:
    key, token = signed({"role": "anon", CANARY: 1}), signed({"role": "authenticated", CANARY: 1})
    secrets = [part for secret in (key, token) for part in secret.split(".")[1:]]
    catalog = project.catalog(
        url=f"http://127.0.0.1:{unused_tcp_port}", key=key, access_token=token
    )
    with pytest.raises(LTMError) as caught:
        await catalog.open()
    text = "".join(traceback.format_exception(caught.value)) + repr(catalog)
    text += repr(catalog._share._key)
    assert [secret for secret in secrets if secret in text] == []


async def test_a_postgres_that_restarts_behind_it_is_back_without_a_new_client(
    catalog: SupabaseCatalog, project: Project
) -> None:
    project.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'authenticator'"
    )
    async with asyncio.timeout(10):
        while True:
            try:
                assert await catalog.get_entry("", "k") is None
                break
            except (UnavailableError, OutcomeUnknownError):
                await asyncio.sleep(0.02)


async def test_a_connection_that_was_reset_while_idle_is_not_used(
    project: Project, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    proxy = tcp_proxy(project.api.port)
    catalog = project.catalog(url=f"http://127.0.0.1:{proxy.port}")
    for _ in range(3):
        await catalog.track_entry("", small("k"), write_id=new_write_id())
        proxy.reset_all()
    await catalog.aclose()


async def test_a_call_without_an_answer_ends_at_its_deadline(
    project: Project, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    proxy = tcp_proxy(project.api.port)
    catalog = project.catalog(url=f"http://127.0.0.1:{proxy.port}")
    ltm = backend(catalog)
    await ltm.store("k", 1)
    proxy.faults = BLACK_HOLE
    with pytest.raises(DeadlineError):
        await ltm.store("k", 2, timeout=0.3)
    proxy.faults = NO_FAULTS
    assert (await ltm.retrieve("k")).value == 1
    await catalog.aclose()


# Replies that are lost


def losing(function: str, *, times: int = 1, **how: Any) -> Callable[[int, Asked], Answer | None]:
    """The first *times* requests for *function* lose their reply, or what *how* says."""
    left = [times]

    def plan(number: int, asked: Asked) -> Answer | None:
        if not asked.target.endswith(f"ltm_rpc_{function}") or left[0] == 0:
            return None
        left[0] -= 1
        return Answer(**(how or {"lost": True}))

    return plan


@pytest.mark.parametrize("value", ["small", "x" * 5_000], ids=["small", "large"])
async def test_a_store_whose_reply_is_lost_is_settled(
    catalog: SupabaseCatalog, proxy: HttpProxy, value: str
) -> None:
    ltm = backend(catalog)
    proxy.plan = losing("commit")
    assert (await ltm.store("k", value)).stored
    asked = [asked.target.removeprefix("/rpc/ltm_rpc_") for asked in proxy.asked]
    assert asked[asked.index("commit") :] == ["commit", "resolve_write", "get"]
    assert (await ltm.retrieve("k")).value == value


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_small_store_that_a_gateway_kept_is_unknown(
    catalog: SupabaseCatalog, proxy: HttpProxy, status: int
) -> None:
    ltm = backend(catalog)
    proxy.plan = losing("commit", status=status)
    with pytest.raises(OutcomeUnknownError):
        await ltm.store("k", "small")
    assert not (await ltm.retrieve("k")).found
    proxy.plan = losing("commit", status=status)
    assert (await ltm.store("k", "x" * 5_000)).stored, "its reservation settles it"


async def test_a_store_of_which_nothing_more_is_heard_is_unknown(
    catalog: SupabaseCatalog, proxy: HttpProxy, project: Project
) -> None:
    ltm = backend(catalog)
    proxy.plan = lambda number, asked: Answer(lost=True)
    with pytest.raises(OutcomeUnknownError):
        await ltm.store("k", "small")
    done = await ltm.store_batch([{"key": f"b{number}", "value": number} for number in range(500)])
    assert (done.stored, done.failed) == (0, 500)
    assert {failure.error_type for failure in done.errors.values()} == {"OutcomeUnknownError"}
    assert len(project.rows("SELECT * FROM {}ltm_entries")) == 501


@pytest.mark.parametrize("cut_after", [0, 1])
async def test_a_reply_that_is_cut_is_a_lost_one(
    catalog: SupabaseCatalog, proxy: HttpProxy, cut_after: int
) -> None:
    proxy.plan = lambda number, asked: Answer(cut_after=cut_after)
    with pytest.raises(OutcomeUnknownError, match="the reply was lost"):
        await catalog.get_entry("", "k")


async def test_a_reply_that_is_lost_on_the_wire_is_unknown(
    project: Project, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    proxy = tcp_proxy(project.api.port)
    catalog = project.catalog(url=f"http://127.0.0.1:{proxy.port}")
    await catalog.open()
    proxy.faults = LOST_REPLY
    with pytest.raises(OutcomeUnknownError):
        await catalog.track_entry("", small("k"), write_id=new_write_id())
    proxy.faults = NO_FAULTS
    assert await catalog.get_entry("", "k") is not None
    await catalog.aclose()


async def test_a_server_that_is_down_and_back_is_found_again(
    project: Project, supabase_server: PostgREST
) -> None:
    catalog = project.catalog()
    await catalog.track_entry("", small("k"), write_id=new_write_id())
    supabase_server.stop()
    try:
        with pytest.raises(UnavailableError):
            await catalog.get_entry("", "k")
    finally:
        supabase_server.start()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await catalog.get_entry("", "k") is not None
                break
            except LTMError:
                await asyncio.sleep(0.05)
    await catalog.aclose()
