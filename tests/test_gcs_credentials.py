"""Credentials of a GCS store: found, exchanged for tokens in time, and shown to nobody."""

from __future__ import annotations

import asyncio
import json
import pathlib
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from ltm_async import (
    AccessDeniedError,
    ConfigError,
    GCSBlobStore,
    StoreError,
    UnavailableError,
)
from ltm_async.blobs.gcs import credentials
from ltm_async.blobs.gcs.credentials import SCOPE, Tokens
from ltm_async.testing.blobs import new_path

from .databases import wait_for
from .servers.gcs import GcsServer
from .servers.gcs_http import Api
from .servers.gcs_objects import Buckets
from .servers.gcs_tokens import ACCOUNT, CLIENT, TokenServer
from .servers.http_proxy import Answer, HttpProxy
from .servers.loop_thread import LoopThread

CANARIES = ("PRIVATE KEY", "c4n4ry", "ya29.")


@pytest.fixture
def tokens(gcs_server: GcsServer) -> Iterator[TokenServer]:
    with TokenServer(gcs_server) as server:
        yield server


@pytest.fixture
def way(tokens: TokenServer, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    """The way to the server of tokens."""
    return http_proxy(tokens.port)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Of this machine's user."""
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "STORAGE_EMULATOR_HOST",
        "STORAGE_EMULATOR_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))


@pytest.fixture
async def blobs(
    gcs_server: GcsServer, tokens: TokenServer, way: HttpProxy, tmp_path: pathlib.Path
) -> AsyncIterator[GCSBlobStore]:
    """A store in a private bucket, with the file of a service account."""
    blobs = GCSBlobStore(
        f"gs://{gcs_server.new_bucket(public=False)}/",
        endpoint_url=gcs_server.endpoint_url,
        service_file=str(tokens.service_file(tmp_path, way.port)),
    )
    yield blobs
    await blobs.aclose()


class Clocks:
    """In place of the module ``time``; the machine may be asleep, or its clock set."""

    def __init__(self) -> None:
        self.monotonic_s = self.wall_s = 1_000.0

    def monotonic(self) -> float:
        return self.monotonic_s

    def time(self) -> float:
        return self.wall_s

    def advance(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(credentials, "time", clocks)
    return clocks


def shown(error: BaseException | None) -> str:
    """Everything that a log may show of an error and of what led to it."""
    text = "".join(traceback.format_exception(error)) if error else ""
    while error is not None:
        text += f"{error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text


def check_untold(text: str) -> None:
    for canary in CANARIES:
        assert canary not in text


# Files


async def test_a_service_account_signs_for_a_token_that_many_calls_share(
    blobs: GCSBlobStore, tokens: TokenServer, way: HttpProxy
) -> None:
    paths = [new_path() for _ in range(50)]
    await asyncio.gather(*(blobs.put(path, b"x") for path in paths))
    assert await blobs.get(paths[0], limit=1) == b"x"
    assert await blobs.delete(paths) == {}
    assert len(way.asked) == 1
    (issued,) = tokens.issued
    claims = issued.claims
    assert (claims["iss"], claims["scope"]) == (ACCOUNT, SCOPE)
    assert claims["aud"] == f"http://127.0.0.1:{way.port}/token"
    assert claims["exp"] - claims["iat"] == 3_600


async def test_opening_fetches_the_token(blobs: GCSBlobStore, tokens: TokenServer) -> None:
    await blobs.open()
    assert len(tokens.issued) == 1
    await blobs.put(new_path(), b"x")
    assert len(tokens.issued) == 1


async def test_a_users_own_credentials_work_too(
    gcs_server: GcsServer, tokens: TokenServer, tmp_path: pathlib.Path
) -> None:
    blobs = GCSBlobStore(
        f"gs://{gcs_server.new_bucket(public=False)}/",
        endpoint_url=gcs_server.endpoint_url,
        service_file=str(tokens.user_file(tmp_path, tokens.port)),
    )
    await blobs.put(new_path(), b"x")
    await blobs.aclose()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON c4n4ry",
        '["c4n4ry"]',
        '"c4n4ry"',
        "{}",
        '{"type": "c4n4ry"}',
        '{"private_key": "c4n4ry"}',
        '{"type": "external_account", "audience": "c4n4ry"}',
        b"\xff\xfe",
    ],
    ids=repr,
)
async def test_a_file_of_something_else_is_refused_and_not_quoted(
    tmp_path: pathlib.Path, content: str | bytes
) -> None:
    """The driver would go on without any, and ask a metadata server."""
    file = tmp_path / "file.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    blobs = GCSBlobStore("gs://bucket/", service_file=str(file))
    with pytest.raises(ConfigError, match="service_file is no file of credentials") as caught:
        await blobs.put(new_path(), b"x")
    check_untold(shown(caught.value))
    await blobs.aclose()


async def test_a_file_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    for place in (tmp_path / "absent.json", tmp_path):
        blobs = GCSBlobStore("gs://bucket/", service_file=str(place))
        with pytest.raises(ConfigError, match="service_file cannot be read: "):
            await blobs.open()
        await blobs.aclose()


@pytest.mark.parametrize(
    "changes",
    [{"private_key": "PRIVATE KEY c4n4ry"}, {"private_key": 5}, {"private_key": ""}],
    ids=repr,
)
async def test_a_key_that_is_none_is_denied_and_not_quoted(
    gcs_server: GcsServer, tokens: TokenServer, tmp_path: pathlib.Path, changes: dict[str, object]
) -> None:
    file = tokens.service_file(tmp_path, tokens.port, **changes)
    blobs = GCSBlobStore(
        "gs://bucket/", endpoint_url=gcs_server.endpoint_url, service_file=str(file)
    )
    with pytest.raises(AccessDeniedError, match="no access token") as caught:
        await blobs.put(new_path(), b"x")
    check_untold(shown(caught.value))
    await blobs.aclose()


# Where they are sent


async def test_another_server_gets_no_credentials_that_were_not_meant_for_it(
    gcs_server: GcsServer,
    tokens: TokenServer,
    http_proxy: Callable[[int], HttpProxy],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", str(tokens.service_file(tmp_path, tokens.port))
    )
    proxy = http_proxy(gcs_server.port)
    blobs = GCSBlobStore(f"gs://{gcs_server.new_bucket()}/", endpoint_url=proxy.endpoint_url)
    await blobs.put(new_path(), b"x")
    assert "Authorization" not in proxy.asked[0].headers
    assert tokens.issued == []
    await blobs.aclose()


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_the_environment_names_an_emulator_and_its_token(
    gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    bucket = gcs_server.new_bucket(public=False)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"{scheme}127.0.0.1:{gcs_server.port}")
    denied = GCSBlobStore(f"gs://{bucket}/")
    with pytest.raises(AccessDeniedError, match="Anonymous caller"):
        await denied.put(new_path(), b"x")
    await denied.aclose()
    monkeypatch.setenv("STORAGE_EMULATOR_TOKEN", gcs_server.new_token())
    blobs = GCSBlobStore(f"gs://{bucket}/")
    await blobs.put(new_path(), b"x")
    await blobs.aclose()


class Google:
    """``storage.googleapis.com`` on this machine, with a bucket ``b-b``."""

    def __init__(self, gcs: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str]] = []
        buckets = Buckets(gcs.clock)
        buckets.create("b-b")
        self._api = Api(buckets)
        self._api.private.add("b-b")
        self._api.grants = gcs._api.grants
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("storage.googleapis.com").configure_cert(context)
        self._thread = LoopThread("ltm-test-google")
        self._runner = self._thread.run(self._start(context))
        port = self._runner.addresses[0][1]
        resolve = socket.getaddrinfo

        def resolve_here(host: str, *arguments: Any, **options: Any) -> Any:
            if host != "storage.googleapis.com":
                return resolve(host, *arguments, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)

    async def _start(self, context: ssl.SSLContext) -> web.ServerRunner:
        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            self.asked.append((request.host, request.headers.get("Authorization", "")))
            return await self._api.serve(request)

        runner = web.ServerRunner(web.Server(serve), shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return runner

    def close(self) -> None:
        self._thread.run(self._runner.cleanup())
        self._thread.close()


@pytest.fixture
def google(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    google = Google(gcs_server, monkeypatch)
    yield google
    google.close()


@pytest.mark.parametrize("found", ["variable", "gcloud", "metadata server", "argument"])
async def test_google_is_the_default_and_gets_the_credentials_that_its_clients_find(
    google: Google,
    tokens: TokenServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    found: str,
) -> None:
    options: dict[str, str] = {}
    if found == "variable":
        file = tokens.service_file(tmp_path, tokens.port)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    elif found == "gcloud":
        file = tokens.user_file(tmp_path, tokens.port)
        file.rename(tmp_path / "application_default_credentials.json")
    elif found == "argument":
        options["service_file"] = str(tokens.service_file(tmp_path, tokens.port))
    else:
        metadata = f"http://127.0.0.1:{tokens.port}/computeMetadata/v1"
        monkeypatch.setattr(
            "gcloud.aio.auth.token.GCE_ENDPOINT_TOKEN",
            f"{metadata}/instance/service-accounts/default/token?recursive=true",
        )
    blobs = GCSBlobStore("gs://b-b/", **options)  # type: ignore[arg-type]
    path = new_path()
    await blobs.put(path, b"data")
    assert await blobs.get(path, limit=9) == b"data"
    assert [info.path async for info in blobs.scan("")] == [path]
    assert await blobs.delete([path]) == {}
    (issued,) = tokens.issued
    assert google.asked == [("storage.googleapis.com", f"Bearer {issued.token}")] * 4
    await blobs.aclose()


async def test_without_a_metadata_server_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(
        "gcloud.aio.auth.token.GCE_ENDPOINT_TOKEN", f"http://127.0.0.1:{unused_tcp_port}/"
    )
    blobs = GCSBlobStore("gs://b-b/")
    with pytest.raises(UnavailableError, match=r"no access token.*name a service_file"):
        await blobs.put(new_path(), b"x")
    await blobs.aclose()


# Renewal


async def test_a_token_is_renewed_beside_the_calls_before_it_ends(
    blobs: GCSBlobStore, tokens: TokenServer, way: HttpProxy, clocks: Clocks
) -> None:
    await blobs.put(new_path(), b"x")
    clocks.advance(3_600 - credentials.RENEW_BEFORE_S - 1)
    await blobs.put(new_path(), b"x")
    assert len(tokens.issued) == 1
    clocks.advance(2)
    way.plan = lambda number, asked: Answer(hangs=True)
    await asyncio.gather(*(blobs.put(new_path(), b"x") for _ in range(10)))
    await wait_for(lambda: way.asked)
    assert len(way.asked) == 1


async def test_a_token_that_has_ended_is_waited_for(
    blobs: GCSBlobStore, tokens: TokenServer, clocks: Clocks
) -> None:
    for turn in range(3):
        await asyncio.gather(*(blobs.put(new_path(), b"x") for _ in range(10)))
        assert len(tokens.issued) == turn + 1
        tokens.gcs.revoke(tokens.issued[-1].token)  # it would be refused
        clocks.advance(3_600)


@pytest.mark.parametrize("clock", ["monotonic_s", "wall_s"])
async def test_a_process_that_was_frozen_meanwhile_renews_it_too(
    blobs: GCSBlobStore, tokens: TokenServer, clocks: Clocks, clock: str
) -> None:
    """Neither clock goes on in every kind of sleep."""
    await blobs.put(new_path(), b"x")
    tokens.gcs.revoke(tokens.issued[-1].token)
    setattr(clocks, clock, getattr(clocks, clock) + 3_600)
    await blobs.put(new_path(), b"x")
    assert len(tokens.issued) == 2


async def test_a_short_token_is_not_renewed_at_every_call(
    blobs: GCSBlobStore, tokens: TokenServer, clocks: Clocks
) -> None:
    tokens.lifetime_s = 100
    for _ in range(10):
        await blobs.put(new_path(), b"x")
    assert len(tokens.issued) == 1


async def test_a_renewal_that_fails_does_no_harm_while_the_token_is_valid(
    blobs: GCSBlobStore, tokens: TokenServer, way: HttpProxy, clocks: Clocks
) -> None:
    await blobs.put(new_path(), b"x")
    clocks.advance(3_600 - credentials.RENEW_BEFORE_S + 1)
    way.plan = lambda number, asked: Answer(status=500)
    while len(way.asked) < 3:
        await blobs.put(new_path(), b"x")
    clocks.advance(3_600)
    with pytest.raises(UnavailableError):
        await blobs.put(new_path(), b"x")
    way.plan = None
    await blobs.put(new_path(), b"x")


async def test_a_token_that_is_refused_is_not_used_again(
    blobs: GCSBlobStore, tokens: TokenServer
) -> None:
    await blobs.put(new_path(), b"x")
    tokens.gcs.revoke(tokens.issued[-1].token)
    with pytest.raises(AccessDeniedError, match="Invalid Credentials"):
        await blobs.put(new_path(), b"x")
    await blobs.put(new_path(), b"x")
    assert len(tokens.issued) == 2


async def test_a_caller_that_is_cancelled_leaves_the_token_to_the_others(
    blobs: GCSBlobStore, way: HttpProxy, tokens: TokenServer
) -> None:
    """The driver's own would have cancelled them all."""
    await blobs._client()
    calls = [asyncio.create_task(blobs.put(new_path(), b"x")) for _ in range(10)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, type(None)] * 5
    assert len(tokens.issued) == 1


async def test_closing_ends_a_renewal_under_way(blobs: GCSBlobStore, way: HttpProxy) -> None:
    way.plan = lambda number, asked: Answer(hangs=True)
    call = asyncio.create_task(blobs.put(new_path(), b"x"))
    await wait_for(lambda: way.asked)
    await blobs.aclose()
    with pytest.raises(UnavailableError, match="the store was closed"):
        await call
    assert [task for task in asyncio.all_tasks() if "Tokens._renew" in repr(task)] == []


# Refusals


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(status=400, body=b'{"error": "invalid_grant"}'), AccessDeniedError),
        (Answer(status=401, body=b'{"error": "invalid_client"}'), AccessDeniedError),
        (Answer(status=403), AccessDeniedError),
        (Answer(status=404), AccessDeniedError),
        (Answer(status=408), UnavailableError),
        (Answer(status=429), UnavailableError),
        (Answer(status=500), UnavailableError),
        (Answer(status=503), UnavailableError),
        (Answer(lost=True), UnavailableError),
        (Answer(cut_after=5), UnavailableError),
        (Answer(status=200, body=b"c4n4ry, no JSON"), AccessDeniedError),
        (
            Answer(
                status=200,
                body=b'{"access": "c4n4ry"}',
                headers={"Content-Type": "application/json"},
            ),
            AccessDeniedError,
        ),
        (
            Answer(status=200, body=b"[]", headers={"Content-Type": "application/json"}),
            AccessDeniedError,
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else repr(value)[7:60],
)
async def test_a_token_that_is_not_given_has_its_class_and_is_asked_for_once(
    blobs: GCSBlobStore, way: HttpProxy, answer: Answer, expected: type[StoreError]
) -> None:
    """The driver would ask five times, for minutes."""
    way.plan = lambda number, asked: answer
    results = await asyncio.gather(
        *(blobs.put(new_path(), b"x") for _ in range(5)),
        blobs.get(new_path(), limit=1),
        blobs.delete([new_path() for _ in range(20)]),
        return_exceptions=True,
    )
    assert len(way.asked) == 1
    for result in results:
        assert type(result) is expected
        assert str(result).startswith("gcs: no access token: ")
        check_untold(shown(result))


async def test_credentials_follow_no_redirect(
    blobs: GCSBlobStore, way: HttpProxy, http_proxy: Callable[[int], HttpProxy]
) -> None:
    elsewhere = http_proxy(way.port)
    for status in (302, 307, 308):
        way.plan = lambda number, asked, status=status: Answer(
            status=status, headers={"Location": f"{elsewhere.endpoint_url}/token"}
        )
        with pytest.raises(AccessDeniedError, match=f"no access token: status {status}"):
            await blobs.put(new_path(), b"x")
    assert elsewhere.asked == []


async def test_a_refusal_that_quotes_what_was_sent_is_not_quoted(
    gcs_server: GcsServer,
    tokens: TokenServer,
    way: HttpProxy,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    blobs = GCSBlobStore(
        "gs://bucket/",
        endpoint_url=gcs_server.endpoint_url,
        service_file=str(tokens.user_file(tmp_path, way.port)),
    )
    for status in (400, 500, 200):
        way.plan = lambda number, asked, status=status: Answer(
            status=status, body=json.dumps(CLIENT).encode()
        )
        with pytest.raises(StoreError) as caught:
            await blobs.put(new_path(), b"x")
        check_untold(shown(caught.value))
    way.plan = None
    with pytest.raises(StoreError):
        await blobs.put(new_path(), b"x")  # with a token, to no bucket
    client = await blobs._client()
    assert isinstance(client._tokens, Tokens)
    check_untold(f"{blobs!r} {client!r} {client._tokens!r} {blobs._share._key!r}")
    check_untold(caplog.text)
    await blobs.aclose()
