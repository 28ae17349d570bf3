"""A GCS refusing, throttling, silent or cut off: right outcomes, in time, and nothing told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    CorruptError,
    DeadlineError,
    GCSBlobStore,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryPolicy,
    SQLiteCatalog,
    StoreError,
    UnavailableError,
)
from ltm_async.blobs.gcs import connecting, requests
from ltm_async.protocols import BlobStore
from ltm_async.testing import ManualClock

from .backends import QUICK
from .databases import wait_for
from .servers.gcs import GcsServer, refusal
from .servers.http_proxy import Answer, HttpProxy
from .servers.tcp_proxy import BLACK_HOLE, NO_FAULTS, TcpFaults, TcpProxy

CANARY = "c4n4ry"

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


@pytest.fixture
def proxy(gcs_server: GcsServer, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    return http_proxy(gcs_server.port)


@pytest.fixture
async def blobs(gcs_server: GcsServer, proxy: HttpProxy) -> AsyncIterator[GCSBlobStore]:
    """Behind a proxy, in a bucket that has answered, with an object ``p``."""
    bucket = gcs_server.new_bucket()
    token = f"{CANARY}-{bucket}"
    gcs_server.grant(token)
    blobs = GCSBlobStore(f"gs://{bucket}/", endpoint_url=proxy.endpoint_url, token=token)
    await blobs.put("p", b"data")
    yield blobs
    await blobs.aclose()


async def failure_of(call: Call, blobs: BlobStore) -> StoreError:
    """What *call* raises: an error of this store that shows no secret, wherever one looks."""
    with pytest.raises(StoreError) as caught:
        await call(blobs)
    shown = "".join(traceback.format_exception(caught.value)) + repr(blobs)
    error: BaseException | None = caught.value
    while error is not None:
        shown += f"{error!r} {error} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert CANARY not in shown
    assert caught.value.store == "gcs"
    assert str(caught.value).startswith("gcs: ")
    return caught.value


# What an answer means


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refusal(400, "invalid"), StoreError),
        (refusal(401, "authError", "Invalid Credentials"), AccessDeniedError),
        (refusal(403, "forbidden"), AccessDeniedError),
        (refusal(403, "rateLimitExceeded"), RateLimitedError),
        (refusal(403, "userRateLimitExceeded"), RateLimitedError),
        (refusal(408, "requestTimeout"), UnavailableError),
        (refusal(409, "conflict"), UnavailableError),
        (refusal(411, "required"), StoreError),
        (refusal(413, "uploadTooLarge"), StoreError),
        (refusal(429, "rateLimitExceeded"), RateLimitedError),
        (Answer(status=429), RateLimitedError),
        (Answer(status=403, body=b"<html>Forbidden</html>"), AccessDeniedError),
        (Answer(status=418, body=b"\xff\xfe no UTF-8"), StoreError),
        (Answer(status=400, body=b'{"error": "not as documented"}'), StoreError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value.status),
)
@pytest.mark.parametrize("call", CALLS)
async def test_a_refusal_has_its_class(
    blobs: GCSBlobStore, proxy: HttpProxy, call: str, answer: Answer, expected: type[StoreError]
) -> None:
    proxy.plan = lambda number, asked: answer
    assert type(await failure_of(CALLS[call], blobs)) is expected
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("call", CALLS)
async def test_a_server_error_may_have_had_an_effect_but_not_of_a_read(
    blobs: GCSBlobStore, proxy: HttpProxy, call: str, status: int
) -> None:
    for answer in (
        refusal(status, "backendError"),
        Answer(status=status, body=b"<!DOCTYPE html><title>Error</title>"),
    ):
        proxy.plan = lambda number, asked, answer=answer: answer
        error = await failure_of(CALLS[call], blobs)
        assert type(error) is (OutcomeUnknownError if call in WRITES else UnavailableError)
        assert len(proxy.asked) == 1
        assert "<" not in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("99999999999999999999", 999_999_999.0),
        ("Sat, 31 Jan 2026 12:00:05 GMT", 5.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("٣", None),
        ("", None),
    ],
)
async def test_throttling_says_how_long_to_wait(
    blobs: GCSBlobStore, proxy: HttpProxy, header: str, seconds: float | None
) -> None:
    """A date is by the server's clock."""
    proxy.plan = lambda number, asked: refusal(
        429, "rateLimitExceeded", Date="Sat, 31 Jan 2026 12:00:00 GMT", Retry_After=header
    )
    for call in CALLS.values():
        error = await failure_of(call, blobs)
        assert isinstance(error, RateLimitedError)
        assert error.retry_after_s == seconds


async def test_the_servers_words_are_repeated_but_not_without_end(
    blobs: GCSBlobStore, proxy: HttpProxy
) -> None:
    proxy.plan = lambda number, asked: refusal(400, "invalid", "It will not do. " * 1_000)
    error = await failure_of(CALLS["get"], blobs)
    assert str(error).startswith("gcs: 400: It will not do. It will")
    assert len(str(error)) < 300
    proxy.plan = lambda number, asked: Answer(status=400, body=b"plain\n words")
    assert str(await failure_of(CALLS["get"], blobs)) == "gcs: 400: plain words"


@pytest.mark.parametrize("call", CALLS)
async def test_a_server_that_repeats_the_token_is_not_repeated(
    blobs: GCSBlobStore, proxy: HttpProxy, call: str
) -> None:
    for status in (307, 400, 401, 403, 404, 412, 416, 429, 500):
        proxy.plan = lambda number, asked, status=status: refusal(
            status, "invalid", f"what is {asked.headers['Authorization']}?"
        )
        with contextlib.suppress(pytest.fail.Exception):  # a 404 is no failure of a delete
            await failure_of(CALLS[call], blobs)


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b"5", b"\xff", b'{"items": [', b"null"], ids=repr
)
async def test_a_reply_that_is_none_is_a_lost_one(
    blobs: GCSBlobStore, proxy: HttpProxy, body: bytes
) -> None:
    proxy.plan = lambda number, asked: Answer(status=200, body=body)
    assert type(await failure_of(WRITES["put"], blobs)) is OutcomeUnknownError


async def test_what_is_no_http_is_a_lost_reply(
    gcs_server: GcsServer, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    """The driver's exception for it shows the headers of the request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x15\x03\x03\x00\x02\x02\x46 this is TLS\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        blobs = GCSBlobStore("gs://b-b/", endpoint_url=f"http://127.0.0.1:{port}", token=CANARY)
        for name, call in CALLS.items():
            error = await failure_of(call, blobs)
            assert type(error) is (OutcomeUnknownError if name in WRITES else UnavailableError)
        await blobs.aclose()


# No answer


@pytest.mark.parametrize("call", CALLS)
async def test_nobody_listening_is_unavailable(unused_tcp_port: int, call: str) -> None:
    blobs = GCSBlobStore(
        "gs://b-b/", endpoint_url=f"http://127.0.0.1:{unused_tcp_port}", token=CANARY
    )
    assert type(await failure_of(CALLS[call], blobs)) is UnavailableError
    await blobs.aclose()


async def test_a_host_that_has_no_address_is_unavailable() -> None:
    blobs = GCSBlobStore("gs://b-b/", endpoint_url="https://no-such-host.invalid", token=CANARY)
    assert type(await failure_of(CALLS["put"], blobs)) is UnavailableError
    await blobs.aclose()


@pytest.mark.parametrize("call", CALLS)
async def test_a_lost_reply_is_an_unknown_outcome_but_not_of_a_read(
    blobs: GCSBlobStore, proxy: HttpProxy, call: str
) -> None:
    """And the request is not sent again behind our back, though its connection was an old one."""
    await blobs.get("p", limit=9)
    proxy.plan = lambda number, asked: Answer(lost=True)
    error = await failure_of(CALLS[call], blobs)
    assert type(error) is (OutcomeUnknownError if call in WRITES else UnavailableError)
    assert len(proxy.asked) == 1


async def test_a_put_whose_reply_was_lost_is_repeated_to_success(
    gcs_server: GcsServer, blobs: GCSBlobStore, proxy: HttpProxy
) -> None:
    proxy.plan = lambda number, asked: Answer(lost=True) if number == 0 else None
    with pytest.raises(OutcomeUnknownError):
        await blobs.put("q", b"new")
    await blobs.put("q", b"new")
    assert [asked.method for asked in proxy.asked] == ["POST", "POST", "GET"]
    assert await blobs.get("q", limit=9) == b"new"


async def test_an_object_that_comes_and_goes_while_it_is_put_is_unavailable(
    blobs: GCSBlobStore, proxy: HttpProxy
) -> None:
    proxy.plan = lambda number, asked: (
        None if number == 0 else refusal(404, "notFound", "No such object: b/p")
    )
    error = await failure_of(WRITES["put"], blobs)
    assert type(error) is UnavailableError
    assert "came and went" in str(error)


@pytest.mark.parametrize("cut_after", [0, 1, 3])
@pytest.mark.parametrize("limit", [4, 5])
async def test_a_body_that_is_cut_is_never_a_result(
    blobs: GCSBlobStore, proxy: HttpProxy, cut_after: int, limit: int
) -> None:
    proxy.plan = lambda number, asked: Answer(cut_after=cut_after)
    error = await failure_of(lambda blobs: blobs.get("p", limit=limit), blobs)
    assert type(error) is UnavailableError
    for name in ("put", "scan"):
        error = await failure_of(CALLS[name], blobs)
        assert type(error) is (OutcomeUnknownError if name == "put" else UnavailableError)


async def test_a_body_shorter_than_its_range_is_never_a_result(
    blobs: GCSBlobStore, proxy: HttpProxy
) -> None:
    """As when it ends with the connection, and says no length."""
    proxy.plan = lambda number, asked: Answer(
        status=206, body=b"dat", headers={"Content-Range": "bytes 0-3/4"}
    )
    assert type(await failure_of(CALLS["get"], blobs)) is UnavailableError
    assert await blobs.get("p", limit=3) == b"dat"


async def test_an_unsatisfiable_range_of_what_is_not_empty_is_an_error(
    blobs: GCSBlobStore, proxy: HttpProxy
) -> None:
    for headers in ({}, {"Content-Range": "bytes */4"}, {"Content-Range": "bytes */x"}):
        proxy.plan = lambda number, asked, headers=headers: Answer(status=416, headers=headers)
        assert type(await failure_of(CALLS["get"], blobs)) is StoreError


async def test_deleting_reports_each_path_by_itself(
    gcs_server: GcsServer, blobs: GCSBlobStore, proxy: HttpProxy
) -> None:
    paths = [f"p{number}" for number in range(6)]
    for path in paths:
        await blobs.put(path, b"x")
    answers = {
        "p0": refusal(403, "forbidden"),
        "p2": refusal(429, "rateLimitExceeded", Retry_After="3"),
        "p4": refusal(503, "backendError"),
        "p5": Answer(lost=True),
    }
    proxy.plan = lambda number, asked: answers.get(asked.target.rpartition("/")[2])
    failed = await blobs.delete([*paths, "absent"])
    assert {path: type(exc) for path, exc in failed.items()} == {
        "p0": AccessDeniedError,
        "p2": RateLimitedError,
        "p4": OutcomeUnknownError,
        "p5": OutcomeUnknownError,
    }
    proxy.plan = None
    assert [info.path async for info in blobs.scan("p")] == ["p", "p0", "p2", "p4"]


# Silence


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [BLACK_HOLE, TcpFaults(swallow_down=True)], ids=["both", "down"])
async def test_a_server_that_says_nothing_is_given_up(
    gcs_server: GcsServer,
    tcp_proxy: Callable[[int], TcpProxy],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    fault: TcpFaults,
) -> None:
    monkeypatch.setattr(requests, "READ_TIMEOUT_S", 0.2)
    proxy = tcp_proxy(gcs_server.port)
    blobs = GCSBlobStore(
        f"gs://{gcs_server.new_bucket()}/",
        endpoint_url=f"http://127.0.0.1:{proxy.port}",
        token=gcs_server.grant(CANARY),
    )
    await blobs.put("p", b"data")
    proxy.faults = fault
    error = await failure_of(CALLS[call], blobs)
    assert type(error) is (OutcomeUnknownError if call in WRITES else UnavailableError)
    proxy.faults = NO_FAULTS
    assert await blobs.get("p", limit=9) in (b"data", None)
    await blobs.aclose()


async def test_a_slow_upload_is_not_given_up(
    gcs_server: GcsServer, tcp_proxy: Callable[[int], TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system's buffers have taken at once may still need longer than an answer."""
    monkeypatch.setattr(requests, "READ_TIMEOUT_S", 0.2)
    proxy = tcp_proxy(gcs_server.port)
    proxy.faults = TcpFaults(latency_s=0.05)  # for each 64 KiB
    blobs = GCSBlobStore(
        f"gs://{gcs_server.new_bucket()}/", endpoint_url=f"http://127.0.0.1:{proxy.port}"
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    await blobs.put("p", bytes(1_000_000))
    assert loop.time() - began > 0.4
    await blobs.aclose()


async def test_closing_does_not_wait_for_a_server_that_says_nothing(
    blobs: GCSBlobStore, proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.plan = lambda number, asked: Answer(hangs=True)
    stuck = asyncio.create_task(blobs.get("p", limit=9))
    await wait_for(lambda: proxy.asked)
    async with within(connecting.CLOSE_TIMEOUT_S):
        await blobs.aclose()
    with pytest.raises(UnavailableError):
        await stuck


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
    """A backend on SQLite and this store, whose way to the server can be broken."""

    def __init__(self, server: GcsServer, proxy: HttpProxy, **options: Any) -> None:
        self.server = server
        self.proxy = proxy
        self.bucket = server.new_bucket()
        self.clock = ManualClock()
        self.catalog = SQLiteCatalog(":memory:", clock=self.clock)
        self.blobs = GCSBlobStore(f"gs://{self.bucket}/", endpoint_url=proxy.endpoint_url)
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
        assert len(self.server.names(self.bucket)) == verified.blobs

    async def aclose(self) -> None:
        await self.blobs.aclose()
        await self.catalog.aclose()


@pytest.fixture
async def rig(gcs_server: GcsServer, proxy: HttpProxy) -> AsyncIterator[Rig]:
    rig = Rig(gcs_server, proxy)
    yield rig
    await rig.aclose()


OLD, NEW = "old " * 1_000, "new " * 1_000
BROKEN: dict[str, Answer] = {
    "401": refusal(401, "authError"),
    "403": refusal(403, "forbidden"),
    "429": refusal(429, "rateLimitExceeded"),
    "500": refusal(500, "backendError"),
    "503": refusal(503, "backendError"),
    "redirect": Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    "cut": Answer(cut_after=1),
    "lost": Answer(lost=True),
    "hangs": Answer(hangs=True),
    "lies": Answer(status=200, body=b'{"crc32c": "AAAAAA==", "size": "1"}'),
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


async def test_whatever_goes_wrong_in_whatever_order_all_agrees_in_the_end(
    gcs_server: GcsServer, proxy: HttpProxy
) -> None:
    seeded = random.Random(20260131)
    rig = Rig(gcs_server, proxy, retry=RetryPolicy(attempts=2, base_s=0.001), timeout=0.3)
    faults = [BROKEN[name] for name in ("403", "429", "500", "503", "cut", "lost", "hangs")]
    possible: dict[str, set[Any]] = {f"k{number}": {None} for number in range(6)}

    async def step(turn: int) -> None:
        key = seeded.choice(list(possible))
        value = f"{turn} " * seeded.choice((1, 900))
        kind = seeded.random()
        try:
            if kind < 0.5:
                await rig.ltm.store(key, value)
                possible[key] = {value}
            elif kind < 0.6:
                await rig.ltm.delete(key)
                possible[key] = {None}
            elif kind < 0.9:
                hit = await rig.ltm.retrieve(key)
                assert hit.value in possible[key]
                possible[key] = {hit.value}
            else:
                await rig.ltm.collect_garbage()
        except OutcomeUnknownError:
            if kind < 0.6:
                possible[key].add(value if kind < 0.5 else None)
        except CorruptError:
            raise
        except StoreError:
            pass  # told that nothing of it was done

    for turn in range(150):
        broken = seeded.random() < 0.5
        proxy.plan = (
            (lambda number, asked: seeded.choice(faults) if seeded.random() < 0.4 else None)
            if broken
            else None
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(rig.ltm._runner.stores().to_blobs._breaker, "admit", lambda: None)
            await step(turn)
    proxy.plan = None
    async with LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise") as ltm:
        for key, values in possible.items():
            assert (await ltm.retrieve(key)).value in values
    await rig.settle()
    await rig.aclose()


# Nothing told


async def test_no_secret_is_shown_or_logged(
    gcs_server: GcsServer,
    proxy: HttpProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    token = gcs_server.grant(f"{CANARY}-token")
    bucket = gcs_server.new_bucket(public=False)
    blobs = GCSBlobStore(f"gs://{bucket}/", endpoint_url=proxy.endpoint_url, token=token)
    async with LTMBackend("memory:", blobs, on_unavailable="degrade", retry=QUICK) as ltm:
        assert (await ltm.store("k", NEW)).stored
        for broken in ("401", "403", "500", "lost", "cut", "lies", "redirect"):
            proxy.plan = lambda number, asked, broken=broken: BROKEN[broken]
            for operation in OPERATIONS.values():
                result = await operation(ltm)
                assert CANARY not in repr(result)
    client = await blobs._client() if not blobs._closed else None
    assert CANARY not in caplog.text
    assert CANARY not in f"{blobs!r} {client!r} {blobs._share._key!r}"
    await blobs.aclose()


def test_no_secret_is_shown_by_an_error_of_the_configuration() -> None:
    for options in (
        {"token": f"{CANARY} with a space", "endpoint_url": "http://127.0.0.1:1"},
        {"token": CANARY},
        {"endpoint_url": f"https://user:{CANARY}@host"},
        {"endpoint_url": f"https://host/?key={CANARY}"},
        {"endpoint_url": f"ftp://{CANARY}"},
        {"endpoint_url": f"http://{CANARY}"},
        {"service_file": f"{CANARY}\0"},
    ):
        with pytest.raises(LTMError) as caught:
            GCSBlobStore("gs://bucket/", **options)  # type: ignore[arg-type]
        assert CANARY not in str(caught.value)
    for uri in (f"gs://{CANARY}:secret@bucket/", f"gs://bucket/?token={CANARY}", f"s3://{CANARY}"):
        with pytest.raises(LTMError) as caught:
            GCSBlobStore(uri)
        assert CANARY not in str(caught.value)
