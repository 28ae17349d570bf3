"""The contract of blob stores on an S3 server, and what is S3's own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import subprocess
import sys
import textwrap
import traceback
import types
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    ConfigError,
    CorruptError,
    LTMBackend,
    MemoryCatalog,
    OutcomeUnknownError,
    RateLimitedError,
    S3BlobStore,
    StoreError,
    UnavailableError,
    doctor,
)
from ltm_async.blobs.s3.replies import age_us
from ltm_async.entry import namespace_path
from ltm_async.protocols import BlobStore
from ltm_async.testing import BlobStoreContract
from ltm_async.testing.blobs import SPACE, new_path

from .s3_stores import PREFIX, bucket_of, store_on
from .servers.http_proxy import Answer, HttpProxy, error
from .servers.ministack import Key, MiniStack
from .servers.tcp_proxy import TcpProxy

CANARY = "canary-51c0"


class _OnMiniStack(BlobStoreContract):
    server: MiniStack

    @pytest.fixture
    async def blobs(self) -> AsyncIterator[BlobStore]:
        blobs = store_on(self.server)
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        assert isinstance(blobs, S3BlobStore)
        client = self.server.client()
        try:
            reply = client.get_object(Bucket=bucket_of(blobs), Key=PREFIX + path)
        except client.exceptions.NoSuchKey:
            return None
        data: bytes = reply["Body"].read()
        return data


class TestS3BlobStore(_OnMiniStack):
    @pytest.fixture(autouse=True)
    def _server(self, s3_server: MiniStack) -> None:
        self.server = s3_server


class TestS3BlobStoreOverTLS(_OnMiniStack):
    @pytest.fixture(autouse=True)
    def _server(self, s3_tls_server: MiniStack) -> None:
        self.server = s3_tls_server


@pytest.fixture
async def blobs(s3_server: MiniStack) -> AsyncIterator[S3BlobStore]:
    blobs = store_on(s3_server)
    yield blobs
    await blobs.aclose()


@pytest.fixture
def proxy(s3_server: MiniStack, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    return http_proxy(s3_server.port)


@pytest.fixture
async def proxied(s3_server: MiniStack, proxy: HttpProxy) -> AsyncIterator[S3BlobStore]:
    """A store whose requests a test can see and answer."""
    blobs = store_on(s3_server, endpoint_url=proxy.endpoint_url)
    yield blobs
    await blobs.aclose()


def methods(proxy: HttpProxy) -> list[str]:
    return [asked.method for asked in proxy.asked]


# Requests


async def test_each_operation_is_one_request(proxied: S3BlobStore, proxy: HttpProxy) -> None:
    path = new_path()
    await proxied.open()
    assert proxy.asked == []
    await proxied.put(path, b"x" * 70_000)
    await proxied.get(path, limit=70_001)
    await proxied.get(new_path(), limit=1)
    assert [info async for info in proxied.scan(namespace_path(SPACE))]
    await proxied.delete([path, *(new_path() for _ in range(999))])
    assert methods(proxy) == ["PUT", "GET", "GET", "GET", "POST"]
    await proxied.delete([])
    assert len(proxy.asked) == 5
    await proxied.delete([new_path() for _ in range(1_001)])
    assert len(proxy.asked) == 7


async def test_a_listing_is_one_request_for_each_thousand(
    proxied: S3BlobStore, proxy: HttpProxy
) -> None:
    paths = {new_path() for _ in range(1_001)}
    await asyncio.gather(*(proxied.put(path, b"") for path in paths))
    proxy.plan = None
    found = [info.path async for info in proxied.scan(namespace_path(SPACE))]
    assert (len(found), set(found)) == (1_001, paths)
    assert len(proxy.asked) == 2


async def test_a_put_names_its_checksum_and_creates_only(
    s3_server: MiniStack, proxy: HttpProxy
) -> None:
    for named in (True, False):
        blobs = store_on(
            s3_server, endpoint_url=proxy.endpoint_url, create_only=named, checksum=named
        )
        await blobs.put(new_path(), b"123456789")
        await blobs.aclose()
        headers = {name.lower(): value for name, value in proxy.asked[-1].headers.items()}
        assert headers.get("if-none-match") == ("*" if named else None)
        assert headers.get("x-amz-checksum-crc32") == ("y/Q5Jg==" if named else None)
        assert headers["content-length"] == "9"
        # Without TLS the signature covers the bytes as well.
        assert headers["x-amz-content-sha256"] == hashlib.sha256(b"123456789").hexdigest()
        assert "expect" not in headers


@pytest.mark.parametrize("size", [1_000, 2_000_000])
async def test_a_put_damaged_on_the_way_is_not_taken(
    s3_server: MiniStack, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    from ltm_async.blobs.s3 import requests

    blobs, path = store_on(s3_server), new_path()
    monkeypatch.setattr(requests, "zlib", types.SimpleNamespace(crc32=lambda data: 5))
    with pytest.raises(StoreError, match=r"BadDigest|checksum"):
        await blobs.put(path, b"x" * size)
    assert await blobs.get(path, limit=size) is None
    await blobs.aclose()


async def test_without_create_only_a_put_replaces(s3_server: MiniStack) -> None:
    blobs, path = store_on(s3_server, create_only=False), new_path()
    await blobs.put(path, b"first")
    await blobs.put(path, b"second")
    assert await blobs.get(path, limit=100) == b"second"
    await blobs.aclose()


async def test_a_taken_name_costs_a_look(proxied: S3BlobStore, proxy: HttpProxy) -> None:
    path = new_path()
    await proxied.put(path, b"same")
    proxy.plan = None
    await proxied.put(path, b"same")
    assert methods(proxy) == ["PUT", "GET"]
    for other in (b"some", b"sam", b"same again", b""):
        with pytest.raises(CorruptError, match="there is another object under this name"):
            await proxied.put(path, other)


async def test_more_than_the_limit_is_not_read(
    s3_server: MiniStack, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """What a forged row asks for is cut off, and costs a connection, not the memory."""
    proxy = tcp_proxy(s3_server.port)
    blobs = store_on(s3_server, endpoint_url=f"http://127.0.0.1:{proxy.port}")
    path = new_path()
    await blobs.put(path, b"x" * 30_000_000)
    assert await blobs.get(path, limit=1_000) == b"x" * 1_000
    assert await blobs.get(path, limit=10) == b"x" * 10
    assert proxy.connections == 2
    await blobs.aclose()


# Names


async def test_a_store_sees_its_prefix_only(s3_server: MiniStack) -> None:
    bucket = s3_server.new_bucket()
    names = ["pre", "pre/fix", "pre/fi", "pre/fixed", "pre fix/ü%20+~"]
    stores = [store_on(s3_server, bucket)] + [
        S3BlobStore(
            f"s3://{bucket}/{name}",
            endpoint_url=s3_server.endpoint_url,
            access_key_id=s3_server.key.access_key_id,
            secret_access_key=s3_server.key.secret_access_key,
        )
        for name in names[2:]
    ]
    path = new_path()
    for number, store in enumerate(stores):
        await store.put(path, bytes(number))
    for number, store in enumerate(stores):
        assert await store.get(path, limit=100) == bytes(number)
        (info,) = [info async for info in store.scan(namespace_path(SPACE))]
        assert (info.path, info.byte_size) == (path, number)
        await store.delete([path])
        assert await store.get(path, limit=100) is None
        await store.aclose()


async def test_a_bucket_in_the_host_name_is_asked_for_there(
    proxy: HttpProxy, s3_server: MiniStack
) -> None:
    blobs = store_on(
        s3_server, "bucket", path_style=False, endpoint_url=f"http://localhost:{proxy.port}"
    )
    with pytest.raises(StoreError):  # no such host, or no such bucket
        await blobs.put(new_path(), b"x")
    assert all(asked.headers["Host"].startswith("bucket.localhost") for asked in proxy.asked)
    await blobs.aclose()


# Age


async def test_age_is_by_the_servers_clock(proxied: S3BlobStore, proxy: HttpProxy) -> None:
    """This machine's may be off, by as much as S3 accepts in a signature or more."""
    body = (
        f"<ListBucketResult><Contents><Key>{PREFIX}a</Key><Size>1</Size>"
        "<LastModified>2020-01-01T00:00:00.250Z</LastModified></Contents></ListBucketResult>"
    )
    headers = {"Date": "Wed, 01 Jan 2020 00:10:00 GMT"}
    proxy.plan = lambda number, asked: Answer(status=200, body=body.encode(), headers=headers)
    (info,) = [info async for info in proxied.scan("")]
    assert info == ("a", 1, 599_750_000)


@pytest.mark.parametrize(
    ("headers", "age_s"),
    [
        ({"date": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40),
        ({"date": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0),
        ({"date": "yesterday"}, 0),
        ({}, 0),
    ],
)
def test_an_age_that_is_not_known_is_none_at_all(headers: dict[str, str], age_s: int) -> None:
    """So that an audit leaves the object alone."""
    assert age_us(headers, 60_000_000) == age_s * 1_000_000


# Credentials and permissions


@pytest.mark.parametrize("server", ["s3_server", "s3_tls_server"])
async def test_wrong_credentials_are_refused(server: str, request: pytest.FixtureRequest) -> None:
    s3: MiniStack = request.getfixturevalue(server)
    bucket = s3.new_bucket()
    for key in (Key(s3.key.access_key_id, CANARY), Key("AKIANOBODY", CANARY)):
        blobs = store_on(s3, bucket, key=key)
        for call in calls_of(blobs):
            with pytest.raises(AccessDeniedError, match=r"SignatureDoesNotMatch|InvalidAccessKey"):
                await call()
        await blobs.aclose()


def calls_of(blobs: S3BlobStore) -> list[Callable[[], Any]]:
    async def scan() -> list[Any]:
        return [info async for info in blobs.scan(namespace_path(SPACE))]

    async def delete() -> None:
        for exc in (await blobs.delete([new_path()])).values():
            raise exc

    return [
        lambda: blobs.put(new_path(), b"x"),
        lambda: blobs.get(new_path(), limit=1),
        scan,
        delete,
    ]


async def test_without_credentials_access_is_denied(
    s3_server: MiniStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    forget_credentials(monkeypatch, tmp_path)
    blobs = S3BlobStore("s3://bucket", endpoint_url=s3_server.endpoint_url)
    with pytest.raises(AccessDeniedError, match=r"^s3: there are no credentials: give access_key"):
        await blobs.put(new_path(), b"x")
    await blobs.aclose()


def forget_credentials(monkeypatch: pytest.MonkeyPatch, folder: Any) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("place", ["environment", "file"])
async def test_credentials_and_endpoint_are_found_where_aws_tools_have_them(
    s3_server: MiniStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, place: str
) -> None:
    forget_credentials(monkeypatch, tmp_path)
    key = s3_server.key
    if place == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret_access_key)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    else:
        (tmp_path / "config").write_text(
            f"[default]\nregion = us-east-1\nendpoint_url = {s3_server.endpoint_url}\n"
        )
        (tmp_path / "credentials").write_text(
            f"[default]\naws_access_key_id = {key.access_key_id}\n"
            f"aws_secret_access_key = {key.secret_access_key}\n"
        )
    blobs, path = S3BlobStore(f"s3://{s3_server.new_bucket()}"), new_path()
    await blobs.put(path, b"found")
    assert await blobs.get(path, limit=9) == b"found"
    await blobs.aclose()


async def test_an_endpoint_of_the_environment_has_to_be_encrypted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://10.0.0.1:9000")
    blobs = S3BlobStore("s3://bucket", access_key_id="a", secret_access_key="b")
    with pytest.raises(ConfigError, match="endpoint_url is http"):
        await blobs.open()


def tell_credentials(script: Any, *, lasting: timedelta, key: Key) -> str:
    """A line of AWS's configuration file: a program that prints credentials, and counts."""
    script.write_text(
        textwrap.dedent(f"""
            import json, sys, datetime
            with open({str(script)!r} + ".calls", "a") as calls:
                calls.write("x")
            ends = datetime.datetime.now(datetime.UTC) + datetime.{lasting!r}
            if {key.access_key_id!r} == "none":
                sys.exit({key.secret_access_key!r})
            print(json.dumps(dict(Version=1, AccessKeyId={key.access_key_id!r},
                SecretAccessKey={key.secret_access_key!r}, Expiration=ends.isoformat())))
            """).replace("datetime.datetime.timedelta", "datetime.timedelta")
    )
    return f"[default]\ncredential_process = {sys.executable} {script}\n"


@pytest.mark.parametrize(("minutes", "renewed"), [(1, True), (600, False)])
async def test_credentials_that_end_soon_are_renewed_in_a_thread(
    s3_server: MiniStack,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    minutes: int,
    renewed: bool,
) -> None:
    """A program that is run for them would block the loop, which would fail this test."""
    forget_credentials(monkeypatch, tmp_path)
    script = tmp_path / "told.py"
    told = tell_credentials(script, lasting=timedelta(minutes=minutes), key=s3_server.key)
    (tmp_path / "config").write_text(told)
    blobs = S3BlobStore(f"s3://{s3_server.new_bucket()}", endpoint_url=s3_server.endpoint_url)
    await blobs.open()
    calls = tmp_path / "told.py.calls"
    at_first = len(calls.read_text())
    path = new_path()
    await blobs.put(path, b"x")
    assert await blobs.get(path, limit=1) == b"x"
    assert (len(calls.read_text()) > at_first) == renewed
    await blobs.aclose()


async def test_what_a_provider_of_credentials_says_is_not_repeated(
    s3_server: MiniStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    forget_credentials(monkeypatch, tmp_path)
    key = Key("none", CANARY)
    told = tell_credentials(tmp_path / "told.py", lasting=timedelta(1), key=key)
    (tmp_path / "config").write_text(told)
    blobs = S3BlobStore("s3://bucket", endpoint_url=s3_server.endpoint_url)
    with pytest.raises(UnavailableError) as caught:
        await blobs.put(new_path(), b"x")
    assert str(caught.value) == "s3: the credentials could not be retrieved"
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_the_drivers_other_services_are_still_found() -> None:
    """Providers of credentials ask some of them."""
    from ltm_async.blobs.s3.driver import _Loader

    services = _Loader().list_available_services("service-2")
    assert [name in services for name in ("s3", "sts", "sso", "nothing")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert {"s3", "sts"} < set(services)


async def test_a_missing_permission_is_named(s3_server: MiniStack) -> None:
    bucket = s3_server.new_bucket()
    full, path = store_on(s3_server, bucket), new_path()
    await full.put(path, b"x")
    may = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    blobs = store_on(s3_server, bucket, key=s3_server.new_key(may))
    assert await blobs.get(path, limit=1) == b"x"
    assert [info.path async for info in blobs.scan(namespace_path(SPACE))] == [path]
    with pytest.raises(AccessDeniedError, match=r"^s3: AccessDenied: "):
        await blobs.put(new_path(), b"x")
    with pytest.raises(AccessDeniedError, match=r"s3:DeleteObject"):
        await blobs.delete([path])
    assert await full.get(path, limit=1) == b"x"
    await blobs.aclose()
    await full.aclose()


async def test_what_cannot_be_deleted_is_reported_by_its_path(
    proxied: S3BlobStore, proxy: HttpProxy
) -> None:
    codes = {
        "AccessDenied": AccessDeniedError,
        "InternalError": OutcomeUnknownError,
        "SlowDown": RateLimitedError,
        "ServiceUnavailable": RateLimitedError,
        "InvalidWhatever": StoreError,
    }
    paths = {code: new_path() for code in (*codes, "NoSuchKey")}
    errors = "".join(
        f"<Error><Key>{PREFIX}{path}</Key><Code>{code}</Code><Message>why</Message></Error>"
        for code, path in paths.items()
    )
    body = f"<DeleteResult>{errors}</DeleteResult>".encode()
    proxy.plan = lambda number, asked: Answer(status=200, body=body)
    failed = await proxied.delete([*paths.values(), new_path()])
    assert {path: type(exc) for path, exc in failed.items()} == {
        paths[code]: kind for code, kind in codes.items()
    }
    assert str(failed[paths["AccessDenied"]]) == "s3: AccessDenied: why"


async def test_a_bucket_that_does_not_exist_is_no_missing_object(s3_server: MiniStack) -> None:
    blobs = store_on(s3_server, "there-is-no-such-bucket")
    for call in calls_of(blobs):
        with pytest.raises(StoreError, match=r"^s3: the bucket does not exist$"):
            await call()
    await blobs.aclose()


async def test_a_404_of_someone_else_is_no_missing_object(
    proxied: S3BlobStore, proxy: HttpProxy
) -> None:
    """An endpoint with a wrong path, or a gateway that has lost its server."""
    proxy.plan = lambda number, asked: Answer(status=404, body=b"<html>not found</html>")
    for call in calls_of(proxied):
        with pytest.raises(StoreError, match=r"^s3: 404"):
            await call()


# Elsewhere


@pytest.mark.parametrize(
    "answer",
    [
        error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3"),
        error(301, "", x_amz_bucket_region="eu-west-3"),
        error(400, "AuthorizationHeaderMalformed", x_amz_bucket_region="eu-west-3"),
        Answer(
            status=400,
            body=b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message>"
            b"<Region>eu-west-3</Region></Error>",
        ),
    ],
    ids=["301", "301 without a body", "400 by header", "400 by body"],
)
async def test_another_region_is_named_and_not_followed(
    proxied: S3BlobStore, proxy: HttpProxy, answer: Any
) -> None:
    proxy.plan = lambda number, asked: answer
    for number, call in enumerate(calls_of(proxied), 1):
        with pytest.raises(StoreError, match=r"in another region .*: pass region='eu-west-3'$"):
            await call()
        assert len(proxy.asked) == number


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    s3_server: MiniStack, http_proxy: Callable[[int], HttpProxy], status: int
) -> None:
    """It would take the session token, and the value, to whoever is there."""
    here, elsewhere = http_proxy(s3_server.port), http_proxy(s3_server.port)
    blobs = store_on(s3_server, endpoint_url=here.endpoint_url, session_token=CANARY)
    here.plan = lambda number, asked: error(
        status, "TemporaryRedirect", Location=f"http://localhost:{elsewhere.port}{asked.target}"
    )
    for call in calls_of(blobs):
        with pytest.raises(StoreError, match="in another region or at another endpoint"):
            await call()
    assert (len(here.asked), len(elsewhere.asked)) == (4, 0)
    await blobs.aclose()


# TLS


async def test_a_certificate_that_is_not_trusted_is_refused(s3_tls_server: MiniStack) -> None:
    blobs = store_on(s3_tls_server, "bucket", ca_file=None)
    with pytest.raises(StoreError, match=r"certificate is not trusted: .*; ca_file names the"):
        await blobs.put(new_path(), b"x")
    await blobs.aclose()


async def test_a_certificate_for_another_name_is_refused(s3_tls_server: MiniStack) -> None:
    blobs = store_on(
        s3_tls_server, "bucket", endpoint_url=f"https://localhost:{s3_tls_server.port}"
    )
    with pytest.raises(StoreError, match=r"certificate is not trusted: .*'localhost'"):
        await blobs.put(new_path(), b"x")
    await blobs.aclose()


async def test_the_authorities_of_the_environment_are_trusted(
    s3_tls_server: MiniStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(s3_tls_server.ca_file))
    blobs = store_on(s3_tls_server, ca_file=None)
    await blobs.put(new_path(), b"x")
    await blobs.aclose()


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_authorities_that_cannot_be_read_are_named(tmp_path: Any, content: Any) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    blobs = S3BlobStore("s3://bucket", access_key_id="a", secret_access_key="b", ca_file=str(file))
    with pytest.raises(ConfigError, match=r"^ca_file cannot be read: "):
        await blobs.open()


# Proxies


async def test_a_proxy_of_the_environment_is_used(
    proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.endpoint_url)
    monkeypatch.setenv("no_proxy", "")
    proxy.plan = lambda number, asked: error(503, "SlowDown")
    blobs = S3BlobStore(
        "s3://bucket",
        endpoint_url="http://storage.invalid",
        allow_http=True,
        access_key_id="a",
        secret_access_key="b",
    )
    with pytest.raises(StoreError, match="SlowDown"):
        await blobs.put(new_path(), b"x")
    assert [asked.headers["Host"] for asked in proxy.asked] == ["storage.invalid"]
    await blobs.aclose()


# The driver


def test_a_missing_driver_is_named() -> None:
    code = """
        import asyncio, sys
        sys.modules["aiobotocore"] = None
        from ltm_async import LTMBackend, MissingDriverError, S3BlobStore
        async def main():
            ltm = LTMBackend("memory:", "s3://bucket")
            for call in (S3BlobStore("s3://bucket").open, ltm.__aenter__):
                try:
                    await call()
                except MissingDriverError as exc:
                    print(exc.name, exc)
        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    words = "aiobotocore.config S3BlobStore needs aiobotocore.config: pip install 'ltm-async[s3]'"
    assert done.stdout.splitlines() == [words] * 2


def test_the_first_use_blocks_no_loop(s3_server: MiniStack, tmp_path: Any) -> None:
    """Import, files of credentials, models and authorities, all of it in a new process."""
    key = s3_server.key
    (tmp_path / "credentials").write_text(
        f"[default]\naws_access_key_id = {key.access_key_id}\n"
        f"aws_secret_access_key = {key.secret_access_key}\n"
    )
    code = f"""
        import asyncio, os, sys
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = {str(tmp_path / "credentials")!r}
        from blockbuster import blockbuster_ctx
        from ltm_async import S3BlobStore
        async def main():
            blobs = S3BlobStore(*sys.argv[1:2], endpoint_url=sys.argv[2])
            assert "aiobotocore" not in sys.modules
            await blobs.put("path", b"x")
            print(await blobs.get("path", limit=1))
            await blobs.aclose()
        with blockbuster_ctx("ltm_async"):
            asyncio.run(main())
    """
    uri = f"s3://{s3_server.new_bucket()}"
    done = subprocess.run(
        [sys.executable, "-Werror", "-c", textwrap.dedent(code), uri, s3_server.endpoint_url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("b'x'\n", "")


# Beside a catalog


async def test_a_backend_stores_large_values_there(s3_tls_server: MiniStack, tmp_path: Any) -> None:
    blobs = store_on(s3_tls_server)
    async with LTMBackend(f"sqlite:///{tmp_path}/ltm.db", blobs) as ltm:
        entries = [{"key": f"k{n}", "value": str(n) * 3_000} for n in range(100)]
        stored = await ltm.store_batch(entries)
        assert (stored.stored, stored.uploaded) == (100, 100)
        read = await ltm.retrieve_batch([entry["key"] for entry in entries])
        assert {key: hit.value for key, hit in read.results.items()} == {
            entry["key"]: entry["value"] for entry in entries
        }
        assert ((await ltm.store("k1", "1" * 3_000)).storage_uri or "").startswith(blobs.uri(""))
        await ltm.store("k1", "other" * 3_000)
        assert (await ltm.delete("k2")).deleted
        await ltm.collect_garbage()
        proof = await ltm.verify()
        assert (proof.sound, proof.blobs, proof.strays) == (True, 99, 0)
        assert len([info async for info in blobs.scan(namespace_path(""))]) == 99
    await blobs.aclose()


async def test_the_doctor_finds_nothing_wrong(s3_server: MiniStack) -> None:
    blobs = store_on(s3_server)
    checks = [check async for check in doctor.examine(MemoryCatalog(), blobs)]
    assert [check.check for check in checks if check.check.startswith("storage")] == [
        "storage put", "storage get", "storage list", "storage delete",
    ]  # fmt: skip
    assert [check for check in checks if not check.ok] == []
    await blobs.aclose()


@pytest.mark.parametrize(
    ("missing", "failed"),
    [
        ("s3:PutObject", "storage put"),
        ("s3:GetObject", "storage get"),
        ("s3:ListBucket", "storage list"),
        ("s3:DeleteObject", "storage delete"),
    ],
)
async def test_the_doctor_names_the_permission_that_is_missing(
    s3_server: MiniStack, missing: str, failed: str
) -> None:
    key = s3_server.new_key(
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Deny", "Action": missing, "Resource": "*"},
    )
    blobs = store_on(s3_server, key=key)
    checks = {check.check: check async for check in doctor.examine(MemoryCatalog(), blobs)}
    assert not checks[failed].ok
    assert missing in checks[failed].detail
    assert "credentials" in (checks[failed].advice or "")
    await blobs.aclose()


# Secrets


async def test_no_secret_is_in_any_error_or_log(
    s3_server: MiniStack, proxy: HttpProxy, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    secret, token = f"secret-{CANARY}", f"token-{CANARY}"
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="ltm_async")
    texts: list[str] = []
    answers = [
        None,
        error(403, "AccessDenied"), error(400, "ExpiredToken"), error(500, "InternalError"),
        error(503, "SlowDown"), error(301, "PermanentRedirect"), error(404, "NoSuchBucket"),
        error(501, "NotImplemented"), error(418, "Teapot"), error(200, "Garbage"),
    ]  # fmt: skip
    endpoints = [proxy.endpoint_url] * len(answers) + ["http://127.0.0.1:1", "https://127.0.0.1:1"]
    for number, endpoint_url in enumerate(endpoints):
        proxy.plan = lambda _, asked, number=number: (answers + [None] * 2)[number]
        blobs = S3BlobStore(
            "s3://some-bucket",
            endpoint_url=endpoint_url,
            access_key_id="AKIANOBODY",
            secret_access_key=secret,
            session_token=token,
        )
        for call in calls_of(blobs):
            try:
                await call()
            except StoreError as exc:
                texts += [*traceback.format_exception(exc), repr(exc), str(exc.__dict__)]
        async with LTMBackend("memory:", blobs, timeout=0.2) as ltm:
            texts.append(repr(await ltm.store("k", "x" * 5_000)))
        texts.append(repr(blobs))
        await blobs.aclose()
    texts += [record.getMessage() for record in caplog.records]
    texts.append(caplog.text)
    assert len(texts) > 100
    assert [text for text in texts if CANARY in text] == []
