"""GCSBlobStore on a GCS: the contract, its requests, its connections, and its checksums."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web

from ltm_async import (
    CorruptError,
    GCSBlobStore,
    LTMBackend,
    StoreError,
    UnavailableError,
)
from ltm_async.blobs.gcs import client
from ltm_async.blobs.gcs import requests as gcs_requests
from ltm_async.blobs.gcs.checksums import (
    CRC32C,
    IN_A_THREAD_FROM,
    MD5,
    Checksum,
    best_checksum,
)
from ltm_async.clock import system_clock
from ltm_async.entry import MAX_VALUE_BYTES, namespace_path
from ltm_async.protocols import BlobStore
from ltm_async.testing import BlobStoreContract, ManualClock
from ltm_async.testing.blobs import SPACE, new_path

from .databases import wait_for
from .servers.certificates import write_certificates
from .servers.gcs import GcsServer, refusal
from .servers.gcs_http import Api
from .servers.gcs_objects import Buckets
from .servers.http_proxy import Answer, HttpProxy
from .servers.loop_thread import LoopThread
from .servers.tcp_proxy import TcpProxy


class TestGCSBlobStore(BlobStoreContract):
    @pytest.fixture
    async def blobs(self, gcs_server: GcsServer) -> AsyncIterator[BlobStore]:
        self.server, self.bucket = gcs_server, gcs_server.new_bucket()
        blobs = GCSBlobStore(
            f"gs://{self.bucket}/some/prefix", endpoint_url=gcs_server.endpoint_url
        )
        yield blobs
        await blobs.aclose()

    async def raw_blob(self, blobs: BlobStore, path: str) -> bytes | None:
        stored = self.server.stored(self.bucket, f"some/prefix/{path}")
        return None if stored is None else stored.data

    async def test_a_uri_has_bucket_and_prefix(self, blobs: BlobStore) -> None:
        assert blobs.uri("a/b") == f"gs://{self.bucket}/some/prefix/a/b"
        assert repr(blobs) == f"GCSBlobStore('gs://{self.bucket}/some/prefix/')"


class Store:
    """A store in a bucket of its own, and what a test needs to look behind it."""

    def __init__(self, server: GcsServer, prefix: str = "", **options: object) -> None:
        self.server = server
        self.bucket = server.new_bucket()
        options = {"endpoint_url": server.endpoint_url, **options}
        self.blobs = GCSBlobStore(f"gs://{self.bucket}/{prefix}", **options)  # type: ignore[arg-type]
        server.requests.clear()

    def names(self) -> list[str]:
        return self.server.names(self.bucket)


@pytest.fixture
async def store(gcs_server: GcsServer) -> AsyncIterator[Store]:
    store = Store(gcs_server)
    yield store
    await store.blobs.aclose()


# Requests


@pytest.mark.parametrize("size", [0, 1, 5_000_000, 5 * 1024 * 1024 + 1, MAX_VALUE_BYTES])
async def test_a_put_is_one_request_of_any_size_and_so_is_a_get(store: Store, size: int) -> None:
    """Above 5 MiB the driver would go over to resumable uploads by itself."""
    path, data = new_path(), os.urandom(1 + size // 64) * 64
    data = data[:size]
    await store.blobs.put(path, data)
    assert store.server.requests == {"objects.insert multipart": 1}
    assert await store.blobs.get(path, limit=size + 1) == data
    assert store.server.requests == {"objects.insert multipart": 1, "objects.get media": 1}
    stored = store.server.stored(store.bucket, path)
    assert stored is not None and stored.data == data


async def test_repeating_a_put_takes_one_more_request_and_no_more(store: Store) -> None:
    path = new_path()
    for data in (b"same", b"same", b"others", b"kind"):
        if data == b"same":
            await store.blobs.put(path, data)
        else:
            with pytest.raises(CorruptError):
                await store.blobs.put(path, data)
    assert store.server.requests == {"objects.insert multipart": 4, "objects.get": 3}


async def test_a_delete_is_a_request_for_each_object(store: Store) -> None:
    paths = [new_path() for _ in range(30)]
    for path in paths:
        await store.blobs.put(path, b"x")
    store.server.requests.clear()
    assert await store.blobs.delete(paths) == {}
    assert await store.blobs.delete(paths) == {}
    assert await store.blobs.delete([]) == {}
    assert store.server.requests == {"objects.delete": 60}
    assert store.names() == []


async def test_a_scan_is_a_request_for_each_thousand(store: Store) -> None:
    paths = {new_path() for _ in range(2_001)}
    for path in paths:
        store.server.put(store.bucket, path, b"x")
    assert {info.path async for info in store.blobs.scan(namespace_path(SPACE))} == paths
    assert store.server.requests == {"objects.list": 3}


async def test_a_batch_of_a_hundred_blobs_is_a_hundred_requests(gcs_server: GcsServer) -> None:
    store = Store(gcs_server)
    async with LTMBackend("sqlite:///:memory:", store.blobs, on_unavailable="raise") as ltm:
        values = {f"k{number}": f"{number}" * 2_000 for number in range(100)}
        done = await ltm.store_batch({"key": k, "value": v} for k, v in values.items())
        assert done.uploaded == 100
        read = await ltm.retrieve_batch(values)
        assert {key: entry.value for key, entry in read.results.items()} == values
        assert store.server.requests == {
            "objects.insert multipart": 100,
            "objects.get media": 100,
        }
        await ltm.delete_batch(values)
        assert store.server.requests["objects.delete"] == 100
        assert store.names() == []
    await store.blobs.aclose()


# What is there


async def test_what_is_missing_is_asked_for_once_when_the_bucket_is_known(store: Store) -> None:
    assert await store.blobs.get(new_path(), limit=1) is None
    assert store.server.requests == {"objects.get media": 1, "objects.list": 1}
    assert await store.blobs.get(new_path(), limit=1) is None
    assert await store.blobs.delete([new_path()]) == {}
    assert store.server.requests == {
        "objects.get media": 2,
        "objects.delete": 1,
        "objects.list": 1,
    }


async def test_a_missing_bucket_is_not_a_missing_object(gcs_server: GcsServer) -> None:
    """The server says the same of both, and a delete of what is not there is fine."""
    blobs = GCSBlobStore("gs://nowhere/", endpoint_url=gcs_server.endpoint_url)
    path = new_path()

    async def scan() -> None:
        async for _ in blobs.scan(""):
            pass

    for call in (blobs.put(path, b"x"), blobs.get(path, limit=1), scan()):
        with pytest.raises(StoreError, match="the bucket does not exist") as caught:
            await call
        assert type(caught.value) is StoreError
    failed = await blobs.delete([path])
    assert [type(exc) for exc in failed.values()] == [StoreError]
    assert "the bucket does not exist" in str(failed[path])
    await blobs.aclose()


async def test_a_server_that_names_the_missing_bucket_is_asked_no_more(
    store: Store, http_proxy: Callable[[int], HttpProxy]
) -> None:
    proxy = http_proxy(store.server.port)
    blobs = GCSBlobStore(store.blobs.uri(""), endpoint_url=proxy.endpoint_url)
    await blobs.put(new_path(), b"x")  # it was there
    proxy.plan = lambda number, asked: refusal(
        404, "notFound", "The specified bucket does not exist."
    )
    with pytest.raises(StoreError, match="the bucket does not exist"):
        await blobs.get(new_path(), limit=1)
    assert [str(exc)[:30] for exc in (await blobs.delete(["p"])).values()] == [
        "gcs: the bucket does not exist"
    ]
    assert len(proxy.asked) == 2
    await blobs.aclose()


async def test_whoever_may_not_list_is_told_what_the_server_says(gcs_server: GcsServer) -> None:
    bucket = gcs_server.new_bucket(public=False)
    token = gcs_server.new_token("storage.objects.get", "storage.objects.delete")
    blobs = GCSBlobStore(f"gs://{bucket}/", endpoint_url=gcs_server.endpoint_url, token=token)
    gcs_server.requests.clear()
    assert await blobs.get(new_path(), limit=1) is None
    assert await blobs.delete([new_path()]) == {}
    assert gcs_server.requests["objects.list"] == 1
    await blobs.aclose()


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("size", [0, 1, 4])
async def test_no_byte_above_the_limit_is_sent(
    store: Store, http_proxy: Callable[[int], HttpProxy], size: int, limit: int
) -> None:
    path, data = new_path(), b"0123"[:size]
    await store.blobs.put(path, data)
    assert await store.blobs.get(path, limit=limit) == data[:limit]
    proxy = http_proxy(store.server.port)
    blobs = GCSBlobStore(store.blobs.uri(""), endpoint_url=proxy.endpoint_url)
    assert await blobs.get(path, limit=limit) == data[:limit]
    assert proxy.asked[0].headers["Range"] == f"bytes=0-{max(0, limit - 1)}"
    await blobs.aclose()


async def test_a_server_that_ignores_ranges_is_read_no_further_than_the_limit(
    store: Store, http_proxy: Callable[[int], HttpProxy]
) -> None:
    proxy = http_proxy(store.server.port)
    proxy.plan = lambda number, asked: Answer(status=200, body=b"0123456789")
    blobs = GCSBlobStore(store.blobs.uri(""), endpoint_url=proxy.endpoint_url)
    assert await blobs.get(new_path(), limit=4) == b"0123"
    assert await blobs.get(new_path(), limit=10) == b"0123456789"
    await blobs.aclose()


async def test_a_reply_is_not_uncompressed(
    store: Store, http_proxy: Callable[[int], HttpProxy]
) -> None:
    """A few bytes could become any number, and nothing of ours is compressed."""
    proxy = http_proxy(store.server.port)
    proxy.plan = lambda number, asked: Answer(
        status=200, body=b"whatever", headers={"Content-Encoding": "gzip"}
    )
    blobs = GCSBlobStore(store.blobs.uri(""), endpoint_url=proxy.endpoint_url)
    assert await blobs.get(new_path(), limit=10) == b"whatever"
    assert proxy.asked[0].headers["Accept-Encoding"] == "identity"
    await blobs.aclose()


@pytest.mark.parametrize("prefix", ["", "p", "a/b c/d+e", "ümlaut%2F/100%", "a&b=c;d:e@f,g'(h)"])
async def test_a_prefix_is_taken_as_it_stands(gcs_server: GcsServer, prefix: str) -> None:
    store = Store(gcs_server, prefix)
    path, data = new_path(), b"data"
    await store.blobs.put(path, data)
    whole = f"{prefix}/{path}" if prefix else path
    assert store.names() == [whole]
    await store.blobs.put(path, data)
    assert await store.blobs.get(path, limit=10) == data
    assert [info.path async for info in store.blobs.scan("")] == [path]
    assert store.blobs.uri(path) == f"gs://{store.bucket}/{whole}"
    assert await store.blobs.delete([path]) == {}
    assert store.names() == []
    await store.blobs.aclose()


async def test_age_is_by_the_servers_clock(store: Store) -> None:
    """Whatever this machine's says."""
    clock = store.server.clock = ManualClock()
    try:
        clock.advance(-400 * 86_400)
        path = new_path()
        await store.blobs.put(path, b"x")
        for age_s in (0, 3, 86_400 * 8):
            clock.advance(age_s)
            (info,) = [info async for info in store.blobs.scan("")]
            assert info.byte_size == 1
        assert 691_201_000_000 < info.age_us <= 691_203_000_000
        clock.advance(-86_400 * 30)
        (info,) = [info async for info in store.blobs.scan("")]
        assert info.age_us == 0  # written in the future
    finally:
        store.server.clock = system_clock


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"no JSON",
        b'{"items": 5}',
        b'{"items": [{}]}',
        b'{"items": [{"name": "n", "size": "x", "timeCreated": "2026-01-01T00:00:00Z"}]}',
        b'{"items": [{"name": "n", "size": "1", "timeCreated": "2026-01-01T00:00:00"}]}',
        b'{"items": [{"name": "n", "size": "1", "timeCreated": 5}]}',
    ],
)
async def test_what_is_no_listing_is_an_error(
    store: Store, http_proxy: Callable[[int], HttpProxy], body: bytes
) -> None:
    proxy = http_proxy(store.server.port)
    proxy.plan = lambda number, asked: Answer(status=200, body=body)
    blobs = GCSBlobStore(store.blobs.uri(""), endpoint_url=proxy.endpoint_url)
    with pytest.raises(StoreError, match=r"no listing|none of this API"):
        async for _ in blobs.scan(""):
            pass
    await blobs.aclose()


# Checksums


@pytest.fixture(params=[CRC32C, MD5], ids=["crc32c", "md5"])
def checksum(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Checksum:
    """In use, whichever is the best here."""
    chosen: Checksum = request.param
    monkeypatch.setattr(client, "best_checksum", lambda: chosen)
    return chosen


async def test_a_checksum_goes_with_every_put_and_a_wrong_one_stores_nothing(
    store: Store, checksum: Checksum, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = (await store.blobs._client()).requests
    await store.blobs.put(new_path(), b"data")
    wrong = checksum._replace(digest=lambda data: checksum.digest(b"date"))
    monkeypatch.setattr(requests, "_checksum", wrong)
    with pytest.raises(UnavailableError, match="doesn't match calculated"):  # try again
        await store.blobs.put(new_path(), b"data")
    assert len(store.names()) == 1


@pytest.mark.parametrize(
    "changes",
    [{"crc32c": "AAAAAA==", "md5Hash": "AAAA"}, {"size": "5"}, {"size": None}, {"size": 4}],
    ids=repr,
)
async def test_what_the_server_returns_is_compared(
    store: Store,
    checksum: Checksum,
    http_proxy: Callable[[int], HttpProxy],
    changes: dict[str, object],
) -> None:
    right = {"crc32c": "rth90Q==", "md5Hash": "jXd/OF09/siBXSD3SWAm3A==", "size": "4"}
    proxy = http_proxy(store.server.port)
    answers = [Answer(status=200, body=json.dumps(a).encode()) for a in (right, right | changes)]
    proxy.plan = lambda number, asked: answers[number]
    blobs = GCSBlobStore(store.blobs.uri(""), endpoint_url=proxy.endpoint_url)
    await blobs.put(new_path(), b"data")
    with pytest.raises(CorruptError):
        await blobs.put(new_path(), b"data")
    await blobs.aclose()


async def test_a_repeated_put_is_compared_by_checksum_and_size(
    store: Store, checksum: Checksum
) -> None:
    path = new_path()
    await store.blobs.put(path, b"data")
    await store.blobs.put(path, b"data")
    with pytest.raises(CorruptError):
        await store.blobs.put(path, b"date")


@pytest.mark.parametrize(
    ("data", "crc32c", "md5"),
    [
        (b"", "AAAAAA==", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        (b"123456789", "4waSgw==", "JfnnlDI7RTiF9RgfG2JNCw=="),  # the check value 0xE3069283
        (bytes(IN_A_THREAD_FROM), "FCmMEg==", "ttgbNgpWctgMJ0MPORU+LA=="),
    ],
    ids=["nothing", "check value", "in a thread"],
)
async def test_checksums_are_as_gcs_has_them(data: bytes, crc32c: str, md5: str) -> None:
    assert (await CRC32C.of(data), await MD5.of(data)) == (crc32c, md5)


def test_a_checksum_that_is_not_compiled_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_checksum() is CRC32C
    monkeypatch.setattr("google_crc32c.implementation", "python")
    assert best_checksum() is MD5


# Connections


@pytest.mark.parametrize("most", [1, 5])
async def test_there_are_no_more_connections_than_allowed(
    store: Store, tcp_proxy: Callable[[int], TcpProxy], most: int
) -> None:
    """They are kept and used again."""
    proxy = tcp_proxy(store.server.port)
    stores = [
        GCSBlobStore(
            store.blobs.uri(f"{number}"),
            endpoint_url=f"http://127.0.0.1:{proxy.port}",
            max_connections=most,
        )
        for number in range(3)
    ]
    paths = [new_path() for _ in range(20)]
    for _ in range(2):
        await asyncio.gather(*(blobs.put(path, b"x" * 9_000) for blobs in stores for path in paths))
        await asyncio.gather(*(blobs.get(path, limit=9) for blobs in stores for path in paths))
        await asyncio.gather(*(blobs.delete(paths) for blobs in stores))
    assert proxy.connections == most
    for blobs in stores:
        await blobs.aclose()
    await wait_for(lambda: proxy.open_connections == 0)


async def test_deletes_side_by_side_are_bounded(
    store: Store, http_proxy: Callable[[int], HttpProxy]
) -> None:
    """By the limit on connections, however many there are to delete."""
    running = most = 0
    delete = gcs_requests.Requests.delete

    async def counted(self: gcs_requests.Requests, bucket: str, name: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await delete(self, bucket, name)
        running -= 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gcs_requests.Requests, "delete", counted)
        blobs = GCSBlobStore(
            store.blobs.uri(""), endpoint_url=store.server.endpoint_url, max_connections=7
        )
        assert await blobs.delete([new_path() for _ in range(100)]) == {}
        await blobs.aclose()
    assert most == 7


async def test_a_redirect_is_not_followed(
    store: Store, http_proxy: Callable[[int], HttpProxy]
) -> None:
    """It could lead the data, and who sends it, anywhere."""
    proxy, elsewhere = http_proxy(store.server.port), http_proxy(store.server.port)
    blobs = GCSBlobStore(
        store.blobs.uri(""), endpoint_url=proxy.endpoint_url, token=store.server.new_token()
    )
    for status in (301, 302, 307, 308):
        proxy.plan = lambda number, asked, status=status: Answer(
            status=status, headers={"Location": elsewhere.endpoint_url + asked.target}
        )
        for call in (blobs.put(new_path(), b"x"), blobs.get(new_path(), limit=1)):
            with pytest.raises(StoreError, match="elsewhere") as caught:
                await call
            assert type(caught.value) is StoreError
        assert list(await blobs.delete(["p"])) == ["p"]
        assert len(proxy.asked) == 3
    assert elsewhere.asked == []
    await blobs.aclose()


@pytest.fixture
def tls_server(tmp_path: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """The URL of a GCS over TLS with a bucket ``b-b``, and the authority that vouches for it."""
    (chain, key), ca_file = write_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    buckets = Buckets(ManualClock())
    buckets.create("b-b")

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(Api(buckets).serve), shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return runner

    thread = LoopThread("ltm-test-gcs-tls")
    runner = thread.run(start())
    yield f"https://127.0.0.1:{runner.addresses[0][1]}", ca_file
    thread.run(runner.cleanup())
    thread.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls_server: tuple[str, pathlib.Path],
) -> None:
    blobs = GCSBlobStore("gs://b-b/", endpoint_url=tls_server[0])
    with pytest.raises(StoreError, match="no trusted TLS connection") as caught:
        await blobs.put(new_path(), b"x")
    assert type(caught.value) is StoreError  # waiting does not heal it
    await blobs.aclose()


def test_a_certificate_is_trusted_where_the_environment_names_its_authority(
    tls_server: tuple[str, pathlib.Path],
) -> None:
    code = f"""
import asyncio, logging
from ltm_async import GCSBlobStore
logging.getLogger("asyncio").setLevel(logging.ERROR)  # a slow machine is no fault
async def main():
    blobs = GCSBlobStore("gs://b-b/", endpoint_url={tls_server[0]!r})
    await blobs.put("p", b"over TLS")
    print(await blobs.get("p", limit=100))
    await blobs.aclose()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        env={**os.environ, "SSL_CERT_FILE": str(tls_server[1])},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("b'over TLS'\n", "")


# The driver


def test_the_driver_is_imported_in_a_thread_at_the_first_call() -> None:
    code = """
import asyncio, sys, threading
from ltm_async import GCSBlobStore, LTMBackend
drivers = {"aiohttp", "gcloud", "google_crc32c"}
blobs = GCSBlobStore("gs://bucket/prefix/", endpoint_url="http://127.0.0.1:1")
LTMBackend("memory:", "gs://bucket/prefix/?max_connections=5")
print(sorted(drivers & set(sys.modules)))
importers = set()
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in drivers:
            importers.add(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Finder())
async def main():
    await blobs.open()
    await blobs.aclose()
asyncio.run(main())
print(sorted(drivers & set(sys.modules)), importers)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n['aiohttp', 'gcloud', 'google_crc32c'] {False}\n"


@pytest.mark.parametrize("module", ["gcloud.aio.storage", "google_crc32c", "aiohttp"])
def test_a_missing_driver_is_named_with_its_extra(module: str) -> None:
    code = f"""
import asyncio, sys
sys.modules[{module!r}] = None
from ltm_async import GCSBlobStore, MissingDriverError
try:
    asyncio.run(GCSBlobStore("gs://bucket/").put("p", b""))
except MissingDriverError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"GCSBlobStore needs {module}: pip install 'ltm-async[gcs]'\n"


async def test_stores_with_the_same_options_share_a_client(gcs_server: GcsServer) -> None:
    one, same, other = Store(gcs_server), Store(gcs_server), Store(gcs_server, max_connections=3)
    stores = [one, same, other]
    clients = [await store.blobs._client() for store in stores]
    assert clients[0] is clients[1]
    assert clients[0] is not clients[2]
    closed = []
    for store in stores:
        await store.blobs.put(new_path(), b"x")
        await store.blobs.aclose()
        closed.append([client._connector.closed for client in clients])
    assert closed == [[False, False, False], [True, True, False], [True, True, True]]
