"""Our own GCS answers as the service's documentation says; each group names the page it follows."""

from __future__ import annotations

import concurrent.futures
import contextlib
import email.utils
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from ltm_async.testing import ManualClock

from .servers.gcs import GcsServer, refusal
from .servers.gcs_http import CHUNK
from .servers.gcs_objects import checksums, rfc3339
from .servers.http_proxy import Answer, HttpProxy

ROOT = pathlib.Path(__file__).parents[1]


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """Code, reason and message, which the body has twice."""
        error = self.json["error"]
        (detail,) = error["errors"]
        assert error["message"] == detail["message"]
        assert detail["domain"] == "global"
        return error["code"], detail["reason"], error["message"]


class Client:
    """Speaks plain HTTP."""

    def __init__(
        self, server: GcsServer, bucket: str, token: str | None = None, *, port: int = 0
    ) -> None:
        self.server = server
        self.bucket = bucket
        self.token = token
        self.port = port or server.port

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Reply:
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        credentials = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            conn.request(method, target, body, {**credentials, **(headers or {})})
            reply = conn.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            conn.close()

    def object(self, method: str, name: str, **query: str) -> Reply:
        return self.ask(method, f"{self.objects}/{quote(name, safe='')}", query=query)

    def media(self, name: str, range: str | None = None) -> Reply:
        headers = {"Range": range} if range else {}
        path = f"{self.objects}/{quote(name, safe='')}"
        return self.ask("GET", path, headers=headers, query={"alt": "media"})

    def upload(self, name: str, data: bytes, **query: str) -> Reply:
        return self.ask(
            "POST",
            f"/upload/storage/v1/b/{self.bucket}/o",
            data,
            {"Content-Type": "text/plain"},
            {"uploadType": "media", "name": name, **query},
        )

    def multipart(self, metadata: Mapping[str, Any], data: bytes, **query: str) -> Reply:
        body = (
            b"--b0undary\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            + json.dumps(metadata).encode()
            + b"\r\n--b0undary\r\nContent-Type: application/octet-stream\r\n\r\n"
            + data
            + b"\r\n--b0undary--\r\n"
        )
        return self.ask(
            "POST",
            f"/upload/storage/v1/b/{self.bucket}/o",
            body,
            {"Content-Type": "multipart/related; boundary=b0undary"},
            {"uploadType": "multipart", **query},
        )

    def list(self, **query: str) -> Reply:
        return self.ask("GET", self.objects, query=query)

    @property
    def objects(self) -> str:
        return f"/storage/v1/b/{self.bucket}/o"


@pytest.fixture
def server(gcs_server: GcsServer) -> Iterator[GcsServer]:
    gcs_server.requests.clear()
    clock = gcs_server.clock
    yield gcs_server
    gcs_server.clock = clock


@pytest.fixture
def gcs(server: GcsServer) -> Client:
    return Client(server, server.new_bucket())


# Uploads: https://cloud.google.com/storage/docs/uploading-objects#rest-upload-objects


@pytest.mark.parametrize("name", ["a", "a/b", "ü ?#%2F+&=", "a..b", "\U0001f600", "x" * 1_024])
@pytest.mark.parametrize("data", [b"", b"data", bytes(range(256)) * 5_000])
def test_an_upload_comes_back(gcs: Client, name: str, data: bytes) -> None:
    for upload in (
        gcs.upload(name, data),
        gcs.multipart({"name": name}, data),
        gcs.multipart({"contentType": "a/b"}, data, name=name),
    ):
        assert upload.status == 200
        assert upload.json["name"] == name
        assert gcs.media(name).body == data
        stored = gcs.server.stored(gcs.bucket, name)
        assert stored is not None and stored.data == data


def test_data_may_look_like_the_end_of_its_part(gcs: Client) -> None:
    """Of another boundary: https://github.com/googleapis/google-cloud-java/issues/6386."""
    data = b"\r\n--boundary--\r\n0{\r\n\r\n--b0undar"
    assert gcs.multipart({"name": "n"}, data).status == 200
    assert gcs.media("n").body == data


def test_an_object_has_the_documented_resource(gcs: Client) -> None:
    """https://cloud.google.com/storage/docs/json_api/v1/objects#resource."""
    clock = gcs.server.clock = ManualClock()
    made = gcs.multipart({"name": "a/b", "contentType": "text/x"}, b"123456789").json
    assert gcs.object("GET", "a/b").json == made
    assert made.pop("etag")
    assert made.pop("id") == f"{gcs.bucket}/a/b/{made['generation']}"
    assert int(made.pop("generation")) > 0
    assert made == {
        "kind": "storage#object",
        "name": "a/b",
        "bucket": gcs.bucket,
        "metageneration": "1",
        "contentType": "text/x",
        "storageClass": "STANDARD",
        "size": "9",
        "md5Hash": "JfnnlDI7RTiF9RgfG2JNCw==",
        "crc32c": "4waSgw==",  # the check value of CRC-32C, 0xE3069283
        "timeCreated": rfc3339(clock()),
        "updated": rfc3339(clock()),
    }


@pytest.mark.parametrize(
    "body", [b"", b"--b\r\n\r\n{}\r\n--b--", b'--b\r\n\r\n{"name": "n"}\r\n--b\r\n\r\nno end']
)
def test_a_multipart_body_without_its_parts_is_refused(gcs: Client, body: bytes) -> None:
    headers = {"Content-Type": "multipart/related; boundary=b"}
    path = f"/upload/storage/v1/b/{gcs.bucket}/o"
    assert gcs.ask("POST", path, body, headers, {"uploadType": "multipart"}).status == 400
    assert gcs.server.names(gcs.bucket) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "a\rb", "x" * 1_025, "ü" * 513])
def test_a_name_that_breaks_the_rules_is_refused(gcs: Client, name: str) -> None:
    """https://cloud.google.com/storage/docs/objects#naming."""
    assert gcs.upload(name, b"").status == 400
    assert gcs.server.names(gcs.bucket) == []


# Checksums: https://cloud.google.com/storage/docs/data-validation


@pytest.mark.parametrize(
    ("field", "kind"), [("crc32c", "CRC32C"), ("md5Hash", "MD5 hash")], ids=["crc32c", "md5"]
)
def test_a_checksum_is_compared(gcs: Client, field: str, kind: str) -> None:
    """The words are in https://github.com/googleapis/python-storage/issues/1541."""
    right = dict(zip(("crc32c", "md5Hash"), checksums(b"data"), strict=True))
    wrong = dict(zip(("crc32c", "md5Hash"), checksums(b"date"), strict=True))
    refused = gcs.multipart({"name": "n", field: wrong[field]}, b"data")
    assert refused.error == (
        400,
        "invalid",
        f'Provided {kind} "{wrong[field]}" doesn\'t match calculated {kind} "{right[field]}".',
    )
    assert gcs.server.names(gcs.bucket) == []
    assert gcs.multipart({"name": "n", field: right[field]}, b"data").status == 200


def test_a_download_says_the_checksums_of_the_whole_object(gcs: Client) -> None:
    gcs.upload("n", b"123456789")
    for reply in (gcs.media("n"), gcs.media("n", "bytes=0-1")):
        assert reply.headers["x-goog-hash"] == "crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw=="
        assert reply.headers["x-goog-stored-content-length"] == "9"


# Preconditions: https://cloud.google.com/storage/docs/request-preconditions


def test_an_object_is_created_only_where_there_is_none(gcs: Client) -> None:
    assert gcs.upload("n", b"first", ifGenerationMatch="0").status == 200
    refused = gcs.upload("n", b"other", ifGenerationMatch="0")
    assert refused.error == (
        412,
        "conditionNotMet",
        "At least one of the pre-conditions you specified did not hold.",
    )
    assert gcs.media("n").body == b"first"


def test_a_generation_is_replaced_or_deleted_only_if_it_is_the_one_named(gcs: Client) -> None:
    first = gcs.upload("n", b"first").json["generation"]
    second = gcs.upload("n", b"second", ifGenerationMatch=first).json["generation"]
    assert int(second) > int(first)
    assert gcs.upload("n", b"third", ifGenerationMatch=first).status == 412
    assert gcs.object("DELETE", "n", ifGenerationMatch=first).status == 412
    assert gcs.media("n").body == b"second"
    assert gcs.object("DELETE", "n", ifGenerationMatch=second).status == 204


def test_of_many_creations_at_once_one_wins(gcs: Client) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for turn in range(20):

            def create(number: int, name: str = f"n{turn}") -> int:
                return gcs.upload(name, b"%d" % number, ifGenerationMatch="0").status

            assert sorted(threads.map(create, range(8))) == [200] + [412] * 7


# Downloads: https://cloud.google.com/storage/docs/json_api/v1/objects/get


@pytest.mark.parametrize(
    ("asked", "body", "said"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_range_is_answered(gcs: Client, asked: str, body: bytes, said: str) -> None:
    """https://www.rfc-editor.org/rfc/rfc9110#name-range-requests."""
    gcs.upload("n", b"0123456789")
    reply = gcs.media("n", asked)
    assert (reply.status, reply.body) == (206, body)
    assert (reply.headers["Content-Range"], reply.headers["Content-Length"]) == (
        said,
        str(len(body)),
    )


@pytest.mark.parametrize(("data", "asked"), [(b"", "bytes=0-3"), (b"0123", "bytes=4-9")])
def test_a_range_beyond_the_end_is_refused_with_the_size(
    gcs: Client, data: bytes, asked: str
) -> None:
    """Also one from 0 of an empty object: https://github.com/googleapis/google-cloud-go/issues/242,
    https://github.com/fsouza/fake-gcs-server/pull/2253."""
    gcs.upload("n", data)
    reply = gcs.media("n", asked)
    assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    assert reply.body == b"Request range not satisfiable"


def test_what_is_not_there_is_not_found(gcs: Client) -> None:
    """A download's error is plain text; others are JSON, as in
    https://cloud.google.com/storage/docs/json_api/v1/status-codes."""
    words = f"No such object: {gcs.bucket}/a/b"
    for method in ("GET", "DELETE"):
        assert gcs.object(method, "a/b").error == (404, "notFound", words)
    download = gcs.media("a/b")
    assert (download.status, download.body) == (404, words.encode())


def test_a_bucket_that_is_not_there_is_not_found(server: GcsServer) -> None:
    """In the words for an object, when one is asked for:
    https://github.com/googleapis/nodejs-storage/issues/1183."""
    nowhere = Client(server, "nowhere")
    words = "The specified bucket does not exist."
    for reply in (
        nowhere.upload("n", b""),
        nowhere.multipart({"name": "n"}, b""),
        nowhere.list(),
        nowhere.ask("GET", "/storage/v1/b/nowhere"),
    ):
        assert reply.error == (404, "notFound", words)
    for reply in (nowhere.object("GET", "n"), nowhere.object("DELETE", "n")):
        assert reply.error == (404, "notFound", "No such object: nowhere/n")


def test_a_bucket_is_created_once(server: GcsServer) -> None:
    """https://cloud.google.com/storage/docs/json_api/v1/buckets/insert."""
    maker = Client(server, f"made-{os.urandom(8).hex()}")
    body = json.dumps({"name": maker.bucket}).encode()
    assert (
        maker.ask("POST", "/storage/v1/b", body, query={"project": "p"}).json["name"]
        == maker.bucket
    )
    refused = maker.ask("POST", "/storage/v1/b", body, query={"project": "p"})
    assert refused.error[:2] == (409, "conflict")
    assert maker.ask("GET", f"/storage/v1/b/{maker.bucket}").status == 200
    assert maker.upload("n", b"x").status == 200


# Deleting: https://cloud.google.com/storage/docs/json_api/v1/objects/delete


def test_an_object_is_deleted_once(gcs: Client) -> None:
    gcs.upload("a/b", b"x")
    deleted = gcs.object("DELETE", "a/b")
    assert (deleted.status, deleted.body) == (204, b"")
    assert gcs.object("DELETE", "a/b").status == 404
    assert gcs.server.stored(gcs.bucket, "a/b") is None


# Listing: https://cloud.google.com/storage/docs/json_api/v1/objects/list


def listed(gcs: Client, **query: str) -> tuple[list[str], str | None]:
    page = gcs.list(**query).json
    assert page["kind"] == "storage#objects"
    return [item["name"] for item in page.get("items", ())], page.get("nextPageToken")


def test_objects_are_listed_in_the_order_of_their_utf8_by_pages(gcs: Client) -> None:
    names = ["a", "a/1", "a/2", "b", "a\U0001f600", "a\uff00", "ä"]
    for name in names:
        gcs.upload(name, b"")
    ordered = sorted(names, key=str.encode)
    assert listed(gcs) == (ordered, None)
    assert listed(gcs, prefix="a/") == (["a/1", "a/2"], None)
    assert listed(gcs, prefix="c") == ([], None)
    assert listed(gcs, startOffset="a/2") == ([n for n in ordered if n >= "a/2"], None)
    found: list[str] = []
    query = {"maxResults": "3"}
    for size in (3, 3, 1):
        page, token = listed(gcs, **query)
        assert len(page) == size
        found += page
        query["pageToken"] = token or ""
    assert (found, token) == (ordered, None)


def test_a_page_has_a_thousand_objects_at_most(gcs: Client) -> None:
    for number in range(1_001):
        gcs.upload(f"{number:04}", b"")
    names, token = listed(gcs, maxResults="5000")
    assert len(names) == 1_000
    assert token is not None
    assert listed(gcs, pageToken=token) == (["1000"], None)
    assert gcs.list(pageToken="!").status == 400


def test_fields_choose_what_is_answered(gcs: Client) -> None:
    """https://cloud.google.com/storage/docs/json_api#partial-response."""
    assert gcs.multipart({"name": "n"}, b"123", fields="size,crc32c").json.keys() == {
        "size",
        "crc32c",
    }
    gcs.upload("m", b"")
    page = gcs.list(fields="items(name,size),nextPageToken", maxResults="1")
    assert page.json.pop("nextPageToken")
    assert page.json["items"] == [{"name": "m", "size": "0"}]


# Resumable uploads: https://cloud.google.com/storage/docs/performing-resumable-uploads


def begin(gcs: Client, name: str = "n", **query: str) -> Reply:
    return gcs.ask(
        "POST",
        f"/upload/storage/v1/b/{gcs.bucket}/o",
        json.dumps({"name": name}).encode(),
        {"X-Upload-Content-Type": "text/x"},
        {"uploadType": "resumable", **query},
    )


def go_on(gcs: Client, begun: Reply, body: bytes = b"", said: str | None = None) -> Reply:
    path = begun.headers["Location"].removeprefix(gcs.server.endpoint_url)
    return gcs.ask("PUT", path, body, {"Content-Range": said} if said else {})


def test_a_resumable_upload_in_one_piece(gcs: Client) -> None:
    begun = begin(gcs)
    assert (begun.status, begun.body) == (200, b"")
    assert gcs.server.names(gcs.bucket) == []
    done = go_on(gcs, begun, b"data")
    assert (done.json["size"], done.json["contentType"]) == ("4", "text/x")
    assert gcs.media("n").body == b"data"


def test_a_resumable_upload_in_pieces(gcs: Client) -> None:
    begun, data = begin(gcs), os.urandom(CHUNK + 5)
    question = "bytes */*"
    asked = go_on(gcs, begun, said=question)
    assert (asked.status, asked.headers.get("Range")) == (308, None)
    part = go_on(gcs, begun, data[:CHUNK], f"bytes 0-{CHUNK - 1}/*")
    assert (part.status, part.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")
    asked = go_on(gcs, begun, said=question)
    assert (asked.status, asked.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")
    assert gcs.server.names(gcs.bucket) == []
    done = go_on(gcs, begun, data[CHUNK:], f"bytes {CHUNK}-{CHUNK + 4}/{CHUNK + 5}")
    assert done.status == 200
    assert gcs.media("n").body == data
    assert go_on(gcs, begun, said=question).json == done.json


@pytest.mark.parametrize(
    ("size", "said"),
    [(5, "bytes 0-4/*"), (5, "bytes 1-5/6"), (5, "bytes 0-5/6"), (5, "bytes */*"), (5, "0-4/5")],
)
def test_a_piece_that_does_not_fit_is_refused(gcs: Client, size: int, said: str) -> None:
    begun = begin(gcs)
    assert go_on(gcs, begun, bytes(size), said).status == 400
    assert go_on(gcs, begun, b"12345", "bytes 0-4/5").status == 200


def test_a_resumable_upload_keeps_its_precondition(gcs: Client) -> None:
    begun = begin(gcs, ifGenerationMatch="0")
    gcs.upload("n", b"meanwhile")
    assert go_on(gcs, begun, b"data").status == 412
    assert begin(gcs, ifGenerationMatch="0").status == 412
    assert gcs.media("n").body == b"meanwhile"


def test_a_session_that_is_not_there_is_not_found(gcs: Client) -> None:
    path = f"/upload/storage/v1/b/{gcs.bucket}/o"
    query = {"uploadType": "resumable", "upload_id": "x"}
    assert gcs.ask("PUT", path, query=query).status == 404


# Authentication: https://cloud.google.com/storage/docs/json_api/v1/status-codes#401-unauthorized


def test_a_wrong_token_is_refused_everywhere(server: GcsServer) -> None:
    token = server.new_token()
    stranger = Client(server, server.new_bucket(), token)
    assert stranger.upload("n", b"x").status == 200
    server.revoke(token)
    for reply in (
        stranger.upload("n", b"x"),
        stranger.object("GET", "n"),
        stranger.object("DELETE", "n"),
        stranger.list(),
    ):
        assert reply.error == (401, "authError", "Invalid Credentials")
    assert stranger.media("n").body == b"Invalid Credentials"


def test_each_method_needs_its_permission(server: GcsServer) -> None:
    """https://cloud.google.com/storage/docs/access-control/iam-json."""
    bucket = server.new_bucket(public=False)
    Client(server, bucket, server.new_token()).upload("n", b"x")
    calls: dict[str, Callable[[Client], Reply]] = {
        "create": lambda client: client.upload("m", b""),
        "get": lambda client: client.media("n"),
        "list": lambda client: client.list(),
        "delete": lambda client: client.object("DELETE", "n"),
    }
    nobody, anonymous = Client(server, bucket, server.new_token("none")), Client(server, bucket)
    for verb, call in calls.items():
        permission = f"storage.objects.{verb}"
        for client, status in ((nobody, 403), (anonymous, 401)):
            refused = call(client)
            assert refused.status == status
            assert permission in refused.body.decode()
        assert call(Client(server, bucket, server.new_token(permission))).status < 300


# The server itself


def test_the_date_and_what_it_writes_are_by_its_own_clock(gcs: Client) -> None:
    clock = gcs.server.clock = ManualClock()
    clock.advance(-86_400 * 30)
    made = gcs.upload("n", b"x")
    assert made.json["timeCreated"] == rfc3339(clock())
    clock.advance(5)
    for reply in (made, gcs.media("n"), gcs.object("GET", "m"), gcs.list()):
        said_s = email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp()
        assert said_s == (clock() // 1_000_000 if reply is not made else clock() // 1_000_000 - 5)


def test_requests_are_counted_by_method(gcs: Client) -> None:
    gcs.upload("n", b"")
    gcs.multipart({"name": "m"}, b"")
    gcs.media("n")
    gcs.object("GET", "n")
    gcs.object("DELETE", "n")
    gcs.object("DELETE", "n")
    gcs.list()
    begin(gcs)
    assert gcs.server.requests == {
        "objects.insert media": 1,
        "objects.insert multipart": 1,
        "objects.insert resumable": 1,
        "objects.get media": 1,
        "objects.get": 1,
        "objects.delete": 2,
        "objects.list": 1,
    }


def test_what_it_does_not_know_it_refuses(gcs: Client) -> None:
    gcs.upload("n", b"")
    assert gcs.object("PATCH", "n").status == 404
    assert gcs.list(delimiter="/").error[:2] == (400, "invalidParameter")
    assert gcs.ask("POST", "/batch/storage/v1").status == 404


# The way to it


@pytest.fixture
def proxy(server: GcsServer, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    return http_proxy(server.port)


def test_a_proxy_passes_on_bodies_of_any_size(gcs: Client, proxy: HttpProxy) -> None:
    near, data = Client(gcs.server, gcs.bucket, port=proxy.port), os.urandom(3_000_000)
    assert near.upload("n", data).status == 200
    assert near.media("n").body == data


def test_a_proxy_loses_the_reply_to_what_the_server_has_done(gcs: Client, proxy: HttpProxy) -> None:
    proxy.plan = lambda number, asked: Answer(lost=True)
    with pytest.raises(ConnectionResetError):
        Client(gcs.server, gcs.bucket, port=proxy.port).upload("n", b"x")
    assert gcs.server.names(gcs.bucket) == ["n"]


def test_a_proxy_hangs_until_it_is_closed_and_the_server_hears_nothing(gcs: Client) -> None:
    with contextlib.ExitStack() as stack:
        with HttpProxy(gcs.port) as proxy:
            proxy.plan = lambda number, asked: Answer(hangs=True)
            address = ("127.0.0.1", proxy.port)
            client = stack.enter_context(socket.create_connection(address, timeout=0.2))
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert gcs.server.requests == {}


def test_a_proxy_answers_as_the_service_would(gcs: Client, proxy: HttpProxy) -> None:
    proxy.plan = lambda number, asked: refusal(
        429, "rateLimitExceeded", "slow down", Retry_After="3"
    )
    reply = Client(gcs.server, gcs.bucket, port=proxy.port).object("GET", "n")
    assert reply.error == (429, "rateLimitExceeded", "slow down")
    assert (reply.status, reply.headers["Retry-After"]) == (429, "3")


# Its life


def test_it_serves_in_a_process_of_its_own_until_its_stdin_ends() -> None:
    command = [sys.executable, "-m", "tests.servers.gcs"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        conn.request("POST", "/storage/v1/b", b'{"name": "b"}')
        assert conn.getresponse().status == 200
        conn.close()
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_nothing_is_left_of_it() -> None:
    threads = set(threading.enumerate())
    with GcsServer() as server:
        assert Client(server, server.new_bucket()).upload("n", b"x").status == 200
    assert set(threading.enumerate()) == threads
    with pytest.raises(ConnectionRefusedError):
        Client(server, "b").upload("n", b"x")
