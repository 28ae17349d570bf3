"""Servers refusing, throttling, silent or cut off: right outcomes, in time, and nothing told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    AzureBlobStore,
    CorruptError,
    DeadlineError,
    LTMBackend,
    LTMError,
    ObstoreGCSBlobStore,
    ObstoreS3BlobStore,
    OutcomeUnknownError,
    RateLimitedError,
    SQLiteCatalog,
    StoreError,
    UnavailableError,
)
from ltm_async.blobs.obstore import requests
from ltm_async.clock import system_clock
from ltm_async.protocols import BlobStore
from ltm_async.testing import ManualClock

from .azure_stores import container_of, store_on
from .backends import QUICK
from .servers.azurite import Azurite
from .servers.gcs import GcsServer
from .servers.http_proxy import Answer, HttpProxy, error
from .servers.ministack import MiniStack
from .servers.tcp_proxy import BLACK_HOLE, NO_FAULTS, TcpFaults, TcpProxy

Call = Callable[[BlobStore], Awaitable[Any]]


async def scan(blobs: BlobStore) -> None:
    async for _ in blobs.scan(""):
        pass


async def delete(blobs: BlobStore) -> None:
    """As the other calls do, raise what became of it."""
    failed = await blobs.delete(["p"])
    for exc in failed.values():
        raise exc


WRITES: dict[str, Call] = {"put": lambda blobs: blobs.put("p", b"data"), "delete": delete}
READS: dict[str, Call] = {"get": lambda blobs: blobs.get("p", limit=9), "scan": scan}
CALLS = {**WRITES, **READS}


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A store behind a proxy, with an object ``p``."""

    blobs: BlobStore
    proxy: HttpProxy
    secrets: tuple[str, ...]

    async def failure_of(self, call: Call) -> StoreError:
        """What *call* raises: an error of this store that shows no secret, wherever one looks."""
        with pytest.raises(StoreError) as caught:
            await call(self.blobs)
        shown = "".join(traceback.format_exception(caught.value)) + repr(self.blobs)
        exc: BaseException | None = caught.value
        while exc is not None:
            shown += f"{exc!r} {exc} {exc.args!r} {vars(exc)!r}"
            exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
        assert not [secret for secret in self.secrets if secret in shown]
        assert caught.value.store == self.blobs.name
        assert str(caught.value).startswith(f"{self.blobs.name}: ")
        return caught.value


@pytest.fixture(params=["azure", "azure sas", "s3", "gcs"])
async def place(
    request: pytest.FixtureRequest, http_proxy: Callable[[int], HttpProxy]
) -> AsyncIterator[Place]:
    blobs: BlobStore
    match request.param:
        case "s3":
            s3: MiniStack = request.getfixturevalue("s3_server")
            proxy = http_proxy(s3.port)
            secrets: tuple[str, ...] = (s3.key.secret_access_key,)
            blobs = ObstoreS3BlobStore(
                f"s3://{s3.new_bucket()}/",
                endpoint_url=proxy.endpoint_url,
                access_key_id=s3.key.access_key_id,
                secret_access_key=s3.key.secret_access_key,
            )
        case "gcs":
            gcs: GcsServer = request.getfixturevalue("gcs_server")
            proxy, token = http_proxy(gcs.port), gcs.new_token()
            secrets = (token,)
            blobs = ObstoreGCSBlobStore(
                f"gs://{gcs.new_bucket()}/", endpoint_url=proxy.endpoint_url, token=token
            )
        case kind:
            azure: Azurite = request.getfixturevalue("azure_server")
            container = azure.new_container()
            proxy, sas = http_proxy(azure.port), azure.new_sas_token(container)
            secrets = (sas, sas.rpartition("sig=")[2], azure.account_key)
            with_sas = {"account_key": None, "sas_token": sas} if kind == "azure sas" else {}
            url = azure.endpoint_behind(proxy.port)
            blobs = store_on(azure, container, prefix="", endpoint_url=url, **with_sas)
    await blobs.put("p", b"data")
    yield Place(blobs, proxy, secrets)
    await blobs.aclose()


# What an answer means


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(400, "InvalidUri"), StoreError),
        (error(401, "NoAuthenticationInformation"), AccessDeniedError),
        (error(403, "AuthenticationFailed"), AccessDeniedError),
        (error(400, "ExpiredToken"), AccessDeniedError),
        (error(404, "ContainerNotFound"), StoreError),
        (error(404, "NoSuchBucket"), StoreError),
        (Answer(status=404, body=b"<html>who?</html>"), StoreError),
        (error(408, "RequestTimeout"), UnavailableError),
        (error(400, "Md5Mismatch"), UnavailableError),
        (error(429, "TooManyRequests"), RateLimitedError),
        (Answer(status=429), RateLimitedError),
        (error(503, "ServerBusy"), RateLimitedError),
        (error(503, "SlowDown"), RateLimitedError),
        (Answer(status=418, body=b"tea"), StoreError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value.status}",
)
async def test_a_refusal_has_its_class(
    place: Place, answer: Answer, expected: type[StoreError]
) -> None:
    for call in CALLS.values():
        place.proxy.plan = lambda number, asked: answer
        assert type(await place.failure_of(call)) is expected
        assert len(place.proxy.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_may_have_had_an_effect_but_not_of_a_read(
    place: Place, status: int
) -> None:
    for answer in (
        error(status, "InternalError"),
        Answer(status=status, body=b"<!DOCTYPE html><title>Error</title>"),
    ):
        for name, call in CALLS.items():
            place.proxy.plan = lambda number, asked, answer=answer: answer
            failure = await place.failure_of(call)
            assert type(failure) is (OutcomeUnknownError if name in WRITES else UnavailableError)
            assert len(place.proxy.asked) == 1
            assert "<" not in str(failure)


@pytest.mark.parametrize("place", ["azure", "s3", "gcs"], indirect=True)
async def test_a_missing_bucket_is_not_a_missing_object(place: Place) -> None:
    """Nor is it an object that is gone, as which a delete could take it."""
    location = place.blobs.uri("").replace("test-", "none-")
    objects = place.blobs._objects  # type: ignore[attr-defined]
    options = dataclasses.replace(objects._options, bucket=location.split("/")[2])
    nowhere = dataclasses.replace(place, blobs=type(place.blobs).__new__(type(place.blobs)))
    nowhere.blobs.__dict__.update(_uri=location, _objects=type(objects)(options, ""))
    for name, call in CALLS.items():
        failure = await nowhere.failure_of(call)
        assert type(failure) is StoreError, name
        assert str(failure).endswith("does not exist"), name
    await nowhere.blobs.aclose()


async def test_a_server_that_repeats_what_it_was_sent_is_not_repeated(place: Place) -> None:
    def echo(status: int) -> Callable[[int, Any], Answer]:
        def plan(number: int, asked: Any) -> Answer:
            said = f"{asked.target} {dict(asked.headers)} <Code>{asked.target}</Code>"
            return Answer(status=status, body=f"<Error>{said}</Error>".encode())

        return plan

    for status in (307, 400, 401, 403, 404, 409, 412, 416, 429, 500):
        for call in CALLS.values():
            place.proxy.plan = echo(status)
            failure = await place.failure_of(call)
            assert "/" not in str(failure)


async def test_what_a_server_says_is_no_status(place: Place) -> None:
    """Though it looks like what the driver writes."""
    said = b'status: 404,\n\nDebug source:\n status: 403,\n kind: Connect,\n code: "404",\n'
    place.proxy.plan = lambda number, asked: Answer(status=500, body=said)
    for name, call in CALLS.items():
        failure = await place.failure_of(call)
        assert type(failure) is (OutcomeUnknownError if name in WRITES else UnavailableError)
        assert str(failure) == f"{place.blobs.name}: 500"


async def test_a_redirect_takes_no_key_elsewhere(
    place: Place, http_proxy: Callable[[int], HttpProxy], unused_tcp_port: int
) -> None:
    """A shared access signature goes along, in the address that a request came from."""
    elsewhere = http_proxy(unused_tcp_port)
    elsewhere.plan = lambda number, asked: Answer(status=403)
    place.proxy.plan = lambda number, asked: Answer(
        status=307, headers={"Location": f"{elsewhere.endpoint_url}/there"}
    )
    for call in CALLS.values():
        await place.failure_of(call)
    assert elsewhere.asked
    for asked in elsewhere.asked:
        assert "authorization" not in {name.lower() for name in asked.headers}
        sent = {name: text for name, text in asked.headers.items() if name.lower() != "referer"}
        assert not [secret for secret in place.secrets if secret in f"{asked.target} {sent}"]


# No answer


async def test_a_certificate_is_trusted_where_its_authority_is_named(
    s3_tls_server: MiniStack,
) -> None:
    server = s3_tls_server
    keys: dict[str, Any] = {
        "access_key_id": server.key.access_key_id,
        "secret_access_key": server.key.secret_access_key,
    }
    uri, url = f"s3://{server.new_bucket()}/", server.endpoint_url
    distrustful = ObstoreS3BlobStore(uri, endpoint_url=url, **keys)
    with pytest.raises(StoreError, match="certificate is not trusted; ca_file names") as caught:
        await distrustful.put("p", b"x")
    assert type(caught.value) is StoreError  # waiting does not heal it
    await distrustful.aclose()
    blobs = ObstoreS3BlobStore(uri, endpoint_url=url, ca_file=str(server.ca_file), **keys)
    await blobs.put("p", b"over TLS")
    assert await blobs.get("p", limit=9) == b"over TLS"
    (info,) = [info async for info in blobs.scan("")]  # asks for the time, too
    assert info.age_us < 60_000_000
    await blobs.aclose()


async def test_age_is_by_the_servers_clock(gcs_server: GcsServer) -> None:
    """Whatever this machine's says."""
    clock = gcs_server.clock = ManualClock()
    try:
        clock.advance(-400 * 86_400)
        blobs = ObstoreGCSBlobStore(
            f"gs://{gcs_server.new_bucket()}/", endpoint_url=gcs_server.endpoint_url
        )
        await blobs.put("p", b"x")
        for passed_s, low_s, high_s in ((0, 0, 1), (700_000, 699_999, 700_001), (-800_000, 0, 0)):
            clock.advance(passed_s)
            (info,) = [info async for info in blobs.scan("")]
            assert low_s * 1_000_000 <= info.age_us <= high_s * 1_000_000
        await blobs.aclose()
    finally:
        gcs_server.clock = system_clock


async def test_an_age_that_cannot_be_told_is_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is taken for old."""
    for header in ("", "soon"):
        date = {"Date": header}
        place.proxy.plan = lambda number, asked, date=date: (
            Answer(status=403, headers=date) if asked.method == "HEAD" else None
        )
        (info,) = [info async for info in place.blobs.scan("")]
        assert info.age_us == 0
        head = next(asked for asked in place.proxy.asked if asked.method == "HEAD")
        assert not [secret for secret in place.secrets if secret in str(head)]
        assert "Authorization" not in head.headers
    place.proxy.plan = lambda number, asked: Answer(lost=asked.method == "HEAD")
    with pytest.raises(UnavailableError, match="does not tell its time"):
        await scan(place.blobs)


async def test_a_scan_is_a_request_for_each_thousand_and_one_for_the_time(
    gcs_server: GcsServer,
) -> None:
    bucket = gcs_server.new_bucket()
    for number in range(2_001):
        gcs_server.put(bucket, f"a/b{number}", b"x")
    gcs_server.put(bucket, "a/c", b"x")
    blobs = ObstoreGCSBlobStore(f"gs://{bucket}/", endpoint_url=gcs_server.endpoint_url)
    gcs_server.requests.clear()
    assert len([info async for info in blobs.scan("a/b")]) == 2_001
    assert gcs_server.requests == {"xml list": 3}
    await blobs.aclose()


@pytest.mark.parametrize(
    "prefix", ["", "p/", "a/b c/d+e/", "ümlaut%2F/100%/", "a&b=c;d:e@f,g'(h)/"]
)
async def test_a_prefix_is_taken_as_it_stands(azure_server: Azurite, prefix: str) -> None:
    blobs = store_on(azure_server, prefix=prefix)
    await blobs.put("p/q", b"data")
    assert azure_server.read(container_of(blobs), f"{prefix}p/q") == b"data"
    await blobs.put("p/q", b"data")
    assert await blobs.get("p/q", limit=10) == b"data"
    assert [info.path async for info in blobs.scan("")] == ["p/q"]
    assert await blobs.delete(["p/q"]) == {}
    assert azure_server.names(container_of(blobs)) == []
    await blobs.aclose()


async def test_nobody_listening_is_unavailable(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/acc"
    blobs = AzureBlobStore("az://box/", account_name="acc", account_key="a2V5", endpoint_url=url)
    for call in CALLS.values():
        with pytest.raises(UnavailableError, match="there is no connection"):
            await call(blobs)
    await blobs.aclose()


async def test_a_lost_reply_is_an_unknown_outcome_but_not_of_a_read(place: Place) -> None:
    """And the request is not sent again behind our back, though its connection was an old one."""
    for name, call in CALLS.items():
        place.proxy.plan = None
        await place.blobs.get("p", limit=9)
        place.proxy.plan = lambda number, asked: Answer(lost=True)
        failure = await place.failure_of(call)
        assert type(failure) is (OutcomeUnknownError if name in WRITES else UnavailableError)
        assert len(place.proxy.asked) == 1


async def test_a_put_whose_reply_was_lost_is_repeated_to_success(place: Place) -> None:
    place.proxy.plan = lambda number, asked: Answer(lost=True) if number == 0 else None
    with pytest.raises(OutcomeUnknownError):
        await place.blobs.put("q", b"new")
    await place.blobs.put("q", b"new")
    assert [asked.method for asked in place.proxy.asked] == ["PUT", "PUT", "GET"]
    assert await place.blobs.get("q", limit=9) == b"new"


@pytest.mark.parametrize("cut_after", [0, 1, 3])
async def test_a_body_that_is_cut_is_never_a_result(place: Place, cut_after: int) -> None:
    await place.blobs.put("large", bytes(300_000))
    place.proxy.plan = lambda number, asked: Answer(cut_after=cut_after)
    for path, limit in (("p", 4), ("p", 9), ("large", 250_000), ("large", 400_000)):
        failure = await place.failure_of(lambda b, p=path, n=limit: b.get(p, limit=n))  # type: ignore[misc]
        assert type(failure) is UnavailableError
    assert type(await place.failure_of(scan)) is UnavailableError


async def test_a_reply_of_another_kind_is_no_result(place: Place) -> None:
    for body in (b"", b"no XML", b"{}", b"<a/>"):
        place.proxy.plan = lambda number, asked, body=body: Answer(status=200, body=body)
        if place.blobs.name != "s3":  # there an object needs no headers
            assert type(await place.failure_of(READS["get"])) is UnavailableError
        assert type(await place.failure_of(WRITES["put"])) is OutcomeUnknownError
        if body != b"<a/>":  # a listing without an object
            assert type(await place.failure_of(scan)) is UnavailableError


async def test_a_reply_is_not_uncompressed(place: Place) -> None:
    """A few bytes could become any number, and nothing of ours is compressed."""
    headers = {
        "Content-Encoding": "gzip",
        "ETag": '"1"',
        "Last-Modified": "Sat, 31 Jan 2026 12:00:00 GMT",
    }
    place.proxy.plan = lambda number, asked: Answer(status=200, body=b"whatever", headers=headers)
    assert await place.blobs.get("p", limit=10) == b"whatever"


async def test_no_more_than_the_limit_is_taken_of_what_is_larger(place: Place) -> None:
    data = bytes(range(256)) * 8_000
    await place.blobs.put("large", data)
    for limit in (0, 1, 65_536, len(data) - 1, len(data)):
        assert await place.blobs.get("large", limit=limit) == data[:limit]


async def test_deleting_reports_each_path_by_itself(place: Place) -> None:
    paths = [f"p{number}" for number in range(6)]
    for path in paths:
        await place.blobs.put(path, b"x")
    place.proxy.plan = lambda number, asked: error(500, "InternalError")
    failed = await place.blobs.delete([*paths, "absent"])
    assert sorted(failed) == ["absent", *paths]
    place.proxy.plan = None
    assert await place.blobs.delete([*paths, "absent"]) == {}
    assert [info.path async for info in place.blobs.scan("")] == ["p"]


async def test_as_many_as_the_service_takes_are_deleted_with_one_request(place: Place) -> None:
    paths = [f"p{number}" for number in range(3)]
    for path in paths:
        await place.blobs.put(path, b"x")
    place.proxy.plan = None
    assert await place.blobs.delete(paths) == {}
    assert len(place.proxy.asked) == (3 if place.blobs.name == "gcs" else 1)
    assert [info.path async for info in place.blobs.scan("")] == ["p"]


async def test_one_that_cannot_be_deleted_does_not_keep_the_others(azure_server: Azurite) -> None:
    """The driver tells of the first that failed only, be it because it was not there."""
    blobs = store_on(azure_server, prefix="")
    paths = ["a", "leased", "b", "absent", "c"]
    for path in paths:
        if path != "absent":
            await blobs.put(path, b"x")
    azure_server.lease(container_of(blobs), "leased")
    failed = await blobs.delete(paths)
    assert {path: type(exc) for path, exc in failed.items()} == {"leased": StoreError}
    assert azure_server.names(container_of(blobs)) == ["leased"]
    await blobs.aclose()


async def test_an_object_that_comes_and_goes_while_it_is_put_is_unavailable(place: Place) -> None:
    absent = "BlobNotFound" if place.blobs.name == "azure" else "NoSuchKey"
    place.proxy.plan = lambda number, asked: None if number == 0 else error(404, absent)
    failure = await place.failure_of(WRITES["put"])
    assert type(failure) is UnavailableError
    assert "came and went" in str(failure)


# Silence


@pytest.mark.parametrize("fault", [BLACK_HOLE, TcpFaults(swallow_down=True)], ids=["both", "down"])
async def test_a_server_that_says_nothing_is_given_up(
    azure_server: Azurite,
    tcp_proxy: Callable[[int], TcpProxy],
    monkeypatch: pytest.MonkeyPatch,
    fault: TcpFaults,
) -> None:
    monkeypatch.setattr(requests, "ANSWER_TIMEOUT_S", 0.2)
    proxy = tcp_proxy(azure_server.port)
    blobs = store_on(azure_server, endpoint_url=azure_server.endpoint_behind(proxy.port))
    for name, call in CALLS.items():
        await blobs.put("p", b"data")
        proxy.faults = fault
        with pytest.raises((OutcomeUnknownError, UnavailableError), match="in time") as caught:
            await call(blobs)
        assert caught.type is (OutcomeUnknownError if name in WRITES else UnavailableError)
        proxy.faults = NO_FAULTS
    assert await blobs.get("p", limit=9) in (b"data", None)
    await blobs.aclose()


async def test_a_slow_upload_is_not_given_up(
    azure_server: Azurite, tcp_proxy: Callable[[int], TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "ANSWER_TIMEOUT_S", 0.2)
    proxy = tcp_proxy(azure_server.port)
    proxy.faults = TcpFaults(latency_s=0.05)  # for each 64 KiB
    blobs = store_on(azure_server, endpoint_url=azure_server.endpoint_behind(proxy.port))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await blobs.put("p", bytes(1_000_000))
    assert loop.time() - began > 0.4
    await blobs.aclose()


# Through a backend


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Fail where what is done inside waits longer, by the turns that the loop had meanwhile.

    A machine that does something else stops the clock on the wall for nobody.
    """
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counter = asyncio.create_task(count())
    try:
        yield
    finally:
        counter.cancel()
    assert turns < seconds * 100


class Rig:
    """A backend on SQLite and Azure, whose way to the server can be broken."""

    def __init__(self, server: Azurite, proxy: HttpProxy, **options: Any) -> None:
        self.server = server
        self.proxy = proxy
        self.clock = ManualClock()
        self.catalog = SQLiteCatalog(":memory:", clock=self.clock)
        self.blobs = store_on(server, prefix="", endpoint_url=server.endpoint_behind(proxy.port))
        options = {"on_unavailable": "raise", "retry": QUICK, "timeout": 0.5, **options}
        self.ltm = LTMBackend(self.catalog, self.blobs, **options)

    async def settle(self) -> None:
        """Past every lease, what is left over can be collected, and all agrees."""
        self.proxy.plan = None
        self.clock.advance(700)
        async with LTMBackend(self.catalog, self.blobs, on_unavailable="raise") as ltm:
            for _ in range(5):
                if not (await ltm.collect_garbage(audit=True, stray_age=timedelta(0))).deleted:
                    break
                self.clock.advance(61)
            verified = await ltm.verify()
        assert verified.sound, verified.problems
        assert (verified.pending_blobs, verified.dead_blobs, verified.strays) == (0, 0, 0)
        assert len(self.server.names(container_of(self.blobs))) == verified.blobs

    async def aclose(self) -> None:
        await self.blobs.aclose()
        await self.catalog.aclose()


@pytest.fixture
async def rig(azure_server: Azurite, http_proxy: Callable[[int], HttpProxy]) -> AsyncIterator[Rig]:
    rig = Rig(azure_server, http_proxy(azure_server.port))
    yield rig
    await rig.aclose()


OLD, NEW = "old " * 1_000, "new " * 1_000
BROKEN: dict[str, Answer] = {
    "403": error(403, "AuthenticationFailed"),
    "429": error(429, "TooManyRequests"),
    "500": error(500, "InternalError"),
    "503": error(503, "ServerBusy"),
    "cut": Answer(cut_after=1),
    "lost": Answer(lost=True),
    "hangs": Answer(hangs=True),
}
OPERATIONS: dict[str, Callable[[LTMBackend], Awaitable[Any]]] = {
    "store": lambda ltm: ltm.store("k", NEW),
    "store_batch": lambda ltm: ltm.store_batch(
        [{"key": "k", "value": NEW}, *({"key": f"b{n}", "value": NEW} for n in range(5))]
    ),
    "retrieve": lambda ltm: ltm.retrieve("k"),
    "retrieve_batch": lambda ltm: ltm.retrieve_batch(["k", "other"]),
    "update": lambda ltm: ltm.update("k", lambda value: NEW),
    "delete": lambda ltm: ltm.delete("k"),
    "collect_garbage": lambda ltm: ltm.collect_garbage(audit=True),
    "verify": lambda ltm: ltm.verify(),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("once", [True, False], ids=["once", "for good"])
async def test_every_call_ends_in_time_and_leaves_the_old_value_or_the_new_one(
    rig: Rig, operation: str, broken: str, once: bool
) -> None:
    async with LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise") as unhurried:
        for key in ("k", "other"):
            await unhurried.store(key, OLD)
        await unhurried.store("dead", OLD)
        await unhurried.store("dead", "small")  # a blob to collect
    answer = BROKEN[broken]
    rig.proxy.plan = lambda number, asked: answer if number == 0 or not once else None
    result: Any = None
    async with within(1.5):  # the deadline and a second
        with contextlib.suppress(LTMError):
            result = await OPERATIONS[operation](rig.ltm)
    assert rig.proxy.asked
    rig.proxy.plan = None
    async with LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise") as ltm:
        found = await ltm.retrieve_batch(["k", "other", *(f"b{n}" for n in range(5))])
        assert found.errors == {}
        values = {key: entry.value for key, entry in found.results.items()}
        assert values.pop("other") == OLD
        if operation == "delete":
            assert values in ({}, {"k": OLD})
        elif operation in ("store", "store_batch", "update"):
            whole = {"k": NEW, **({f"b{n}": NEW for n in range(5)} if "batch" in operation else {})}
            stored = result is not None and result.success
            assert values in ([whole] if stored else [{"k": OLD}, whole])
        else:
            assert values == {"k": OLD}
    await rig.settle()


@pytest.mark.parametrize("broken", ["429", "500", "503", "cut", "lost"])
async def test_a_fault_that_passes_is_made_up_for(rig: Rig, broken: str) -> None:
    """By trying again, inside the deadline."""
    rig.ltm = LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise", retry=QUICK)
    for operation in ("store", "store_batch", "retrieve", "retrieve_batch", "update", "delete"):
        for key in ("k", "other"):
            await rig.ltm.store(key, OLD)
        rig.proxy.plan = lambda number, asked: BROKEN[broken] if number < 2 else None
        assert (await OPERATIONS[operation](rig.ltm)).success, operation
        rig.proxy.plan = None
    await rig.settle()


async def test_a_hanging_server_costs_the_deadline_and_no_more(rig: Rig) -> None:
    rig.proxy.plan = lambda number, asked: Answer(hangs=True)
    with pytest.raises(DeadlineError):
        await rig.ltm.store("k", NEW)
    done = await rig.ltm.store_batch({"key": f"{n}", "value": NEW} for n in range(120))
    assert (done.stored, done.failed) == (0, 120)
    await rig.settle()


async def test_no_secret_is_logged_or_in_a_result(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with LTMBackend("memory:", place.blobs, on_unavailable="degrade", retry=QUICK) as ltm:
        assert (await ltm.store("k", NEW)).stored
        for broken in ("403", "500", "lost", "cut"):
            place.proxy.plan = lambda number, asked, broken=broken: BROKEN[broken]
            for operation in OPERATIONS.values():
                result = await operation(ltm)
                assert not [secret for secret in place.secrets if secret in repr(result)]
    objects = place.blobs._objects  # type: ignore[attr-defined]
    ours = [record for record in caplog.records if record.name != "aiohttp.access"]  # the proxy's
    shown = (
        f"{ours} {[record.getMessage() for record in ours]} {place.blobs!r} {objects._options!r}"
    )
    assert not [secret for secret in place.secrets if secret in shown]


async def test_another_object_under_the_name_is_told(place: Place) -> None:
    with pytest.raises(CorruptError, match="another object"):
        await place.blobs.put("p", b"date")
