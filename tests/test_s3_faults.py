"""An S3 server in trouble: what each answer means, and that a backend comes through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    DeadlineError,
    LTMBackend,
    MemoryCatalog,
    OutcomeUnknownError,
    RateLimitedError,
    S3BlobStore,
    StoreError,
    UnavailableError,
)
from ltm_async.calling import Breaker
from ltm_async.entry import namespace_path
from ltm_async.testing.blobs import SPACE, new_path

from .backends import QUICK
from .s3_stores import store_on
from .servers.http_proxy import Answer, Asked, HttpProxy, error
from .servers.ministack import MiniStack
from .servers.process import free_port
from .servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpFaults, TcpProxy
from .test_deadlines import elapsed

LARGE = "x" * 5_000


@pytest.fixture
def proxy(s3_server: MiniStack, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    return http_proxy(s3_server.port)


@pytest.fixture
async def blobs(s3_server: MiniStack, proxy: HttpProxy) -> AsyncIterator[S3BlobStore]:
    blobs = store_on(s3_server, endpoint_url=proxy.endpoint_url)
    yield blobs
    await blobs.aclose()


@pytest.fixture
def wire(s3_server: MiniStack, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(s3_server.port)


@pytest.fixture
async def wired(s3_server: MiniStack, wire: TcpProxy) -> AsyncIterator[S3BlobStore]:
    blobs = store_on(s3_server, endpoint_url=f"http://127.0.0.1:{wire.port}")
    yield blobs
    await blobs.aclose()


async def scan(blobs: S3BlobStore) -> list[str]:
    return [info.path async for info in blobs.scan(namespace_path(SPACE))]


async def failure(call: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await call
    return caught.value


# What an answer means: to a put and a delete, and to a get and a scan

LOST = (OutcomeUnknownError, UnavailableError)
NOT_DONE = (UnavailableError, UnavailableError)
THROTTLED = (RateLimitedError, RateLimitedError)
DENIED = (AccessDeniedError, AccessDeniedError)
FINAL = (StoreError, StoreError)


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        (error(500, "InternalError"), LOST),
        (Answer(status=500), LOST),
        (Answer(status=502, body=b"<html><body>Bad Gateway</body></html>"), LOST),
        (Answer(status=504, body=b"upstream request timeout"), LOST),
        (error(503, "SlowDown"), THROTTLED),
        (error(503, "ServiceUnavailable"), THROTTLED),
        (Answer(status=503, body=b"<html>down for maintenance</html>"), THROTTLED),
        (Answer(status=429), THROTTLED),
        (error(400, "RequestTimeout"), NOT_DONE),
        (error(400, "BadDigest"), NOT_DONE),
        (error(409, "ConditionalRequestConflict"), NOT_DONE),
        (error(409, "OperationAborted"), NOT_DONE),
        (error(403, "AccessDenied"), DENIED),
        (error(403, "SignatureDoesNotMatch"), DENIED),
        (error(400, "ExpiredToken"), DENIED),
        (error(400, "InvalidToken"), DENIED),
        (error(403, "RequestTimeTooSkewed"), DENIED),
        (Answer(status=403, body=b"<html>blocked</html>"), DENIED),
        (error(404, "NoSuchBucket"), FINAL),
        (error(501, "NotImplemented"), FINAL),
        (error(400, "InvalidArgument"), FINAL),
        (error(405, "MethodNotAllowed"), FINAL),
    ],
    ids=lambda value: f"{value.status} {value.body[:90]!r}" if isinstance(value, Answer) else "",
)
async def test_an_answer_has_one_meaning(
    blobs: S3BlobStore, proxy: HttpProxy, answer: Answer, kinds: tuple[type, type]
) -> None:
    proxy.plan = lambda number, asked: answer
    to_write, to_read = kinds
    assert type(await failure(blobs.put(new_path(), b"x"))) is to_write
    assert type(await failure(blobs.delete([new_path()]))) is to_write
    assert type(await failure(blobs.get(new_path(), limit=1))) is to_read
    assert type(await failure(scan(blobs))) is to_read
    assert len(proxy.asked) == 4, "the driver tried again"
    proxy.plan = None
    await blobs.put(new_path(), b"x")


async def test_what_can_be_done_is_said(blobs: S3BlobStore, proxy: HttpProxy) -> None:
    proxy.plan = lambda number, asked: error(501, "NotImplemented")
    assert "create_only=False or checksum=False" in str(await failure(blobs.put(new_path(), b"x")))
    proxy.plan = lambda number, asked: error(403, "RequestTimeTooSkewed")
    assert "set this machine's clock" in str(await failure(blobs.put(new_path(), b"x")))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("", None), ("soon", None), ("-1", None), ("٣", None)],
)
async def test_how_long_to_wait_is_passed_on(
    blobs: S3BlobStore, proxy: HttpProxy, header: str, seconds: float | None
) -> None:
    proxy.plan = lambda number, asked: error(503, "SlowDown", Retry_After=header)
    exc = await failure(blobs.put(new_path(), b"x"))
    assert isinstance(exc, RateLimitedError)
    assert exc.retry_after_s == seconds


async def test_a_long_message_is_cut(blobs: S3BlobStore, proxy: HttpProxy) -> None:
    body = f"<Error><Code>X</Code><Message>{'m' * 9_999}</Message></Error>".encode()
    proxy.plan = lambda number, asked: Answer(status=400, body=body)
    assert len(str(await failure(blobs.put(new_path(), b"x")))) < 300


async def test_an_answer_of_someone_else_is_no_answer(blobs: S3BlobStore, proxy: HttpProxy) -> None:
    """A captive portal says 200 to everything."""
    proxy.plan = lambda number, asked: Answer(status=200, body=b"<html>please sign in")
    assert type(await failure(scan(blobs))) is UnavailableError
    assert type(await failure(blobs.delete([new_path()]))) is OutcomeUnknownError


@pytest.mark.parametrize("kept", [0, 1, 49_999, 70_000])
async def test_a_cut_body_is_never_a_result(
    blobs: S3BlobStore, proxy: HttpProxy, kept: int
) -> None:
    path = new_path()
    await blobs.put(path, b"x" * 70_001)
    proxy.plan = lambda number, asked: Answer(cut_after=kept)
    for limit in (70_002, 70_001, 70_000):
        if kept == 70_000 and limit == 70_000:
            continue  # all that was asked for has come
        assert type(await failure(blobs.get(path, limit=limit))) is UnavailableError


async def test_a_cut_listing_is_never_a_result(blobs: S3BlobStore, proxy: HttpProxy) -> None:
    await blobs.put(new_path(), b"x")
    proxy.plan = lambda number, asked: Answer(cut_after=100)
    assert type(await failure(scan(blobs))) is UnavailableError


async def test_a_second_page_that_fails_ends_the_scan(blobs: S3BlobStore, proxy: HttpProxy) -> None:
    def page(token: str) -> Answer:
        return Answer(
            status=200,
            body=b"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>k</Key>"
            b"<LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
            + f"<NextContinuationToken>{token}</NextContinuationToken>".encode()
            + b"</ListBucketResult>",
        )

    pages = [page("one"), page("two"), error(503, "SlowDown")]
    proxy.plan = lambda number, asked: pages[number]
    found = blobs.scan(namespace_path(SPACE))
    assert [(await anext(found)).byte_size for _ in range(2)] == [1, 1]
    with pytest.raises(RateLimitedError):
        await anext(found)
    assert ["continuation-token" in asked.target for asked in proxy.asked] == [False, True, True]


# The way there


async def test_where_nobody_listens_nothing_was_done(s3_server: MiniStack) -> None:
    for endpoint_url in (
        f"http://127.0.0.1:{free_port()}",
        f"https://127.0.0.1:{free_port()}",
        "https://storage.invalid",
    ):
        blobs = store_on(s3_server, "bucket", endpoint_url=endpoint_url)
        for call in (blobs.put("p", b"x"), blobs.get("p", limit=1), blobs.delete(["p"])):
            assert type(await failure(call)) is UnavailableError
        await blobs.aclose()


@pytest.mark.parametrize("faults", [TcpFaults(reset_up_after=200), LOST_REPLY])
async def test_a_broken_connection_leaves_a_put_open_and_a_repeat_settles_it(
    wired: S3BlobStore, wire: TcpProxy, faults: TcpFaults
) -> None:
    await wired.put(new_path(), b"so that a connection is kept")
    path, data = new_path(), b"y" * 100_000
    wire.faults = faults
    connections = wire.connections
    for fresh in (0, 1):
        assert type(await failure(wired.put(path, data))) is OutcomeUnknownError
        assert wire.connections == connections + fresh, "it was sent more than once"
        assert type(await failure(wired.get(path, limit=1))) is UnavailableError
        connections = wire.connections
    wire.faults = NO_FAULTS
    there = await wired.get(path, limit=len(data) + 1)
    assert there == (data if faults is LOST_REPLY else None)
    await wired.put(path, data)
    assert await wired.get(path, limit=len(data) + 1) == data


async def test_a_lost_reply_to_a_delete_is_settled_by_a_repeat(
    wired: S3BlobStore, wire: TcpProxy
) -> None:
    path = new_path()
    await wired.put(path, b"x")
    wire.faults = LOST_REPLY
    assert type(await failure(wired.delete([path]))) is OutcomeUnknownError
    wire.faults = NO_FAULTS
    assert await wired.get(path, limit=1) is None
    assert await wired.delete([path]) == {}


async def test_a_reply_that_comes_too_late_is_nobody_elses(
    wired: S3BlobStore, wire: TcpProxy
) -> None:
    """A connection whose caller went away in the middle is not used again."""
    objects = {new_path(): bytes([number]) * 50_000 for number in range(20)}
    for path, data in objects.items():
        await wired.put(path, data)
    wire.faults = TcpFaults(latency_s=0.02)
    for number, path in enumerate(objects):
        cancelled = asyncio.create_task(wired.get(path, limit=100_000))
        await asyncio.sleep(0.01 * (number % 8))
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        other = next(other for other in objects if other != path)
        assert await wired.get(other, limit=100_000) == objects[other]


# Through a backend


@pytest.fixture
async def ltm(blobs: S3BlobStore) -> AsyncIterator[LTMBackend]:
    async with LTMBackend(MemoryCatalog(), blobs, retry=QUICK, on_unavailable="degrade") as ltm:
        yield ltm


async def is_clean(ltm: LTMBackend, blobs: S3BlobStore, *, entries: int) -> bool:
    """No row without its object, and no object that the ledger does not know."""
    proof = await ltm.verify()
    objects = [info async for info in blobs.scan(namespace_path(""))]
    stats = await ltm.stats()
    known = stats.blobs + stats.pending_blobs + stats.dead_blobs
    return proof.sound and stats.entries == entries and len(objects) <= known


STUMBLES = {
    "500": error(500, "InternalError"),
    "503": error(503, "SlowDown", Retry_After="0"),
    "429": Answer(status=429, headers={"Retry-After": "0"}),
    "502": Answer(status=502, body=b"<html>"),
    "conflict": error(409, "ConditionalRequestConflict"),
    "cut": Answer(cut_after=20),
}


@pytest.mark.parametrize("answer", STUMBLES.values(), ids=STUMBLES)
async def test_what_stumbles_is_asked_again(
    ltm: LTMBackend, blobs: S3BlobStore, proxy: HttpProxy, answer: Answer
) -> None:
    """Every first and second request of a kind fails, the third is answered."""
    seen: dict[str, int] = {}

    def plan(number: int, asked: Asked) -> Answer | None:
        seen[asked.method] = seen.get(asked.method, 0) + 1
        return answer if seen[asked.method] <= 2 else None

    proxy.plan = plan
    assert (await ltm.store("k", LARGE)).stored
    assert (await ltm.retrieve("k")).value == LARGE
    await ltm.store("k", "small")
    assert (await ltm.delete("k")).deleted
    assert await is_clean(ltm, blobs, entries=0)
    cut = answer.cut_after is not None  # only what has a body can be cut
    assert seen["PUT"] == (3 if not cut else seen["PUT"])
    assert seen["GET"] >= 3


@pytest.mark.parametrize("answer", STUMBLES.values(), ids=STUMBLES)
async def test_what_keeps_failing_is_a_clear_failure(
    ltm: LTMBackend, blobs: S3BlobStore, proxy: HttpProxy, answer: Answer
) -> None:
    await ltm.store("there", LARGE)
    proxy.plan = lambda number, asked: answer
    entries = [{"key": f"k{n}", "value": [n, LARGE]} for n in range(20)]
    done = await ltm.store_batch(entries)
    hit = await ltm.retrieve("there")
    if answer.cut_after is None:
        assert (done.stored, done.failed, len(done.errors)) == (0, 20, 20)
        assert {failure.error_type for failure in done.errors.values()} <= {
            "UnavailableError",
            "RateLimitedError",
        }
    else:
        assert done.stored == 20
    assert (hit.success, hit.source) == (False, "fallback")
    proxy.plan = None
    await recovered(ltm)
    assert await is_clean(ltm, blobs, entries=1 + done.stored)
    assert (await ltm.retrieve("there")).value == LARGE


async def recovered(ltm: LTMBackend) -> None:
    """Wait as a user would until the storage is asked again."""
    for _ in range(100):  # five seconds
        if (await ltm.store("probe", LARGE)).success:
            await ltm.delete("probe")
            return
        await asyncio.sleep(0.05)
    pytest.fail("not healthy again within five seconds")


async def test_access_denied_is_not_tried_again(ltm: LTMBackend, proxy: HttpProxy) -> None:
    proxy.plan = lambda number, asked: error(403, "AccessDenied")
    stored = await ltm.store("k", LARGE)
    assert (stored.stored, stored.error_type) == (False, "AccessDeniedError")
    assert len(proxy.asked) == 1


async def test_a_wait_longer_than_the_deadline_is_not_waited(
    ltm: LTMBackend, proxy: HttpProxy
) -> None:
    proxy.plan = lambda number, asked: error(503, "SlowDown", Retry_After="3600")
    took_s, stored = await elapsed(ltm.store("k", LARGE, timeout=5))
    assert (stored.stored, stored.error_type) == (False, "RateLimitedError")
    assert (took_s < 2, len(proxy.asked)) == (True, 1)


@pytest.mark.parametrize("answer", [STUMBLES["500"], STUMBLES["503"], STUMBLES["429"]])
async def test_an_outage_does_not_multiply_the_traffic(
    ltm: LTMBackend, proxy: HttpProxy, answer: Answer
) -> None:
    """Without the breaker: 20 callers that keep on asking for what is retried by itself."""

    class NeverOpen(Breaker):
        def failed(self) -> None: ...

    await ltm.store("k", LARGE)
    to_blobs = ltm._runner.stores().to_blobs
    to_blobs._breaker = NeverOpen("blob store")
    to_blobs._tokens = 10.0  # what an outage has left of them
    proxy.plan = lambda number, asked: answer
    calls = 0

    async def keep_on() -> None:
        nonlocal calls
        for _ in range(10):
            await ltm.retrieve("k")
            calls += 1

    await asyncio.gather(*(keep_on() for _ in range(20)))
    assert (calls, len(proxy.asked)) == (200, 210)


@pytest.mark.parametrize(
    "faults",
    [BLACK_HOLE, TcpFaults(swallow_down=True), TcpFaults(refuse=True), LOST_REPLY],
    ids=["black hole", "no reply", "refused", "reply lost"],
)
async def test_every_call_ends_in_its_time(
    wired: S3BlobStore, wire: TcpProxy, faults: TcpFaults
) -> None:
    async with LTMBackend(MemoryCatalog(), wired, retry=QUICK) as ltm:
        assert (await ltm.store("k", LARGE)).stored
        wire.faults = faults
        wire.reset_all()
        for call in (
            ltm.store("new", LARGE, timeout=1),
            ltm.retrieve("k", timeout=1),
            ltm.retrieve_batch(["k"], timeout=1),
            ltm.store_batch([{"key": f"n{n}", "value": LARGE} for n in range(20)], timeout=1),
            ltm.delete("k", timeout=1),
            ltm.collect_garbage(audit=True, timeout=1),
        ):
            took_s, result = await elapsed(call)
            assert took_s < 2
            assert not isinstance(result, Exception)
        wire.faults = NO_FAULTS
        wire.reset_all()
        await recovered(ltm)
        assert (await ltm.verify()).sound
        assert not (await ltm.retrieve("new")).found


async def test_a_hang_is_an_unknown_outcome(wired: S3BlobStore, wire: TcpProxy) -> None:
    async with LTMBackend(MemoryCatalog(), wired, on_unavailable="raise", retry=QUICK) as ltm:
        await ltm.store("k", LARGE)
        wire.faults = BLACK_HOLE
        with pytest.raises(DeadlineError):
            await ltm.retrieve("k", timeout=0.3)
