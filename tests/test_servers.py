"""The servers and proxies that other tests rely on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import botocore.exceptions
import pytest
from google.cloud.firestore_v1 import AsyncClient, DocumentSnapshot

from ltm_async import AccessDeniedError

from .azure_stores import store_on
from .databases import wait_for
from .servers import postgres
from .servers.azurite import Azurite
from .servers.firestore import Firestore, new_project
from .servers.http_proxy import Answer, HttpProxy, error
from .servers.ministack import Key, MiniStack
from .servers.need import missing
from .servers.pgbouncer import PgBouncer
from .servers.postgres import Postgres
from .servers.process import Server, answers, free_port, new_folder
from .servers.tcp_proxy import BLACK_HOLE, LOST_REPLY, NO_FAULTS, TcpFaults, TcpProxy

ROOT = pathlib.Path(__file__).parents[1]


# A server that is not there


@pytest.mark.parametrize("names", ["", "s3", "postgres-17 s3", "POSTGRES"])
def test_a_missing_server_skips_with_words(names: str) -> None:
    with pytest.raises(pytest.skip.Exception, match="postgres is not here: do this"):
        missing("postgres", "do this", {"LTM_TEST_REQUIRE": names})


@pytest.mark.parametrize("names", ["postgres", "s3,postgres", " s3 postgres ", "postgres,"])
def test_a_missing_server_fails_where_it_is_required(names: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="postgres, which is not here: do this"):
        missing("postgres", "do this", {"LTM_TEST_REQUIRE": names})


def test_the_newest_version_is_taken(tmp_path: pathlib.Path) -> None:
    folders = [tmp_path / version / "bin" for version in ("9.6", "16", "17", "8.4")]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder in folders[:2]:
        (folder / "initdb").touch()
    assert postgres.programs(folders) == folders[1]


# A server's life


def sleeper(code: str = "import time; time.sleep(600)", port: int = 0) -> Server:
    command = [sys.executable, "-c", code]
    folder = new_folder("sleeper")
    return Server("sleeper", command, folder=folder, port=port, ready=lambda: True)


def test_a_server_that_ends_says_why() -> None:
    server = Server(
        "liar",
        [sys.executable, "-c", "import sys; sys.exit('no luck today')"],
        folder=new_folder("liar"),
        port=free_port(),
    )
    with pytest.raises(RuntimeError, match="liar did not start:\nno luck today"):
        server.start()
    assert not server.folder.exists()


def test_a_stopped_server_keeps_its_files_and_a_closed_one_does_not() -> None:
    server = sleeper()
    server.start()
    first = server.pid
    assert server.is_running()
    server.stop()
    assert not server.is_running()
    assert server.folder.exists()
    server.start()
    assert server.is_running() and server.pid != first
    server.close()
    assert not server.is_running()
    assert not server.folder.exists()
    server.close()


def test_a_stopped_server_is_deleted_too() -> None:
    server = sleeper()
    server.start()
    server.stop()
    server.close()
    assert not server.folder.exists()


def test_a_server_that_hangs_can_be_closed() -> None:
    server = sleeper().start()
    server.kill(signal.SIGSTOP)
    server.close()
    assert not server.is_running()


def test_a_server_does_not_outlive_its_guard() -> None:
    server = sleeper().start()
    assert server._guard is not None
    server._guard.kill()
    within_ten_seconds(lambda: not server.is_running())
    server.close()
    assert not server.folder.exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_server_whose_owner_is_killed(end: signal.Signals) -> None:
    code = f"""
        import sys, threading
        sys.path.insert(0, {str(ROOT)!r})
        from tests.test_servers import sleeper
        made = []
        thread = threading.Thread(target=lambda: made.append(sleeper().start()))
        thread.start()
        thread.join()  # the thread that started it is gone, and it lives on
        print(made[0].pid, made[0].folder, flush=True)
        sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert pathlib.Path("/proc", pid).exists()
        owner.send_signal(end)
    within_ten_seconds(lambda: not os.path.exists(f"/proc/{pid}") and not os.path.exists(folder))


def within_ten_seconds(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


# PostgreSQL and PgBouncer


def query(server: Postgres | PgBouncer, programs: pathlib.Path, sql: str) -> str:
    done = subprocess.run(
        [programs / "psql", "-XAtq", server.dsn, "-c", sql],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_postgres_answers_and_survives_a_restart(postgres_server: Postgres) -> None:
    def ask(sql: str) -> str:
        return query(postgres_server, postgres_server.programs, sql)

    assert int(ask("SHOW server_version_num")) >= 150_000
    ask("CREATE TABLE kept AS SELECT 7 AS n")
    pid, port = postgres_server.pid, postgres_server.port
    postgres_server.restart()
    assert (postgres_server.pid == pid, postgres_server.port) == (False, port)
    assert ask("SELECT n FROM kept") == "7"
    ask("DROP TABLE kept")


def test_pgbouncer_pools_transactions(
    postgres_server: Postgres, pgbouncer_server: PgBouncer
) -> None:
    asked = query(pgbouncer_server, postgres_server.programs, "SELECT 1 + 1")
    assert asked == "2"
    socket_port = query(pgbouncer_server, postgres_server.programs, "SELECT inet_server_port()")
    assert int(socket_port) == postgres_server.port


# Firestore


async def test_firestore_shows_a_commit_document_by_document(firestore_server: Firestore) -> None:
    """And says that it was read later, so this is the emulator's; without it, tests need no
    `reads_between_commits`."""
    client = AsyncClient(project=new_project())
    wanted = [client.collection("c").document(str(n)) for n in range(6)]
    seen: list[DocumentSnapshot[Any]] = []

    def torn() -> bool:
        return len({document.update_time for document in seen}) > 1

    async def write() -> None:
        turn = 0
        while not torn():
            turn += 1
            batch = client.batch()
            for document in wanted:
                batch.set(document, {"turn": turn})
            await batch.commit()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(write())
        while not torn():
            seen = [document async for document in client.get_all(wanted) if document.exists]
    newest = max(document.update_time for document in seen)
    assert all(document.read_time > newest for document in seen)
    await client._firestore_api.transport.close()


# Azure


@pytest.mark.parametrize("permissions", ["rwdl", "r", "wdl"])
async def test_azure_checks_signatures_and_permissions(
    azure_server: Azurite, permissions: str
) -> None:
    container = azure_server.new_container()
    azure_server.put(container, "k", b"body")
    sas = azure_server.new_sas_token(container, permissions)
    blobs = store_on(azure_server, container, prefix="", account_key=None, sas_token=sas)
    for allowed, call in (("r", blobs.get("k", limit=9)), ("w", blobs.put("x", b"x"))):
        if allowed in permissions:
            await call
        else:
            with pytest.raises(AccessDeniedError):
                await call
    await blobs.aclose()
    forged = store_on(azure_server, container, prefix="", account_key="d3Jvbmc=")
    with pytest.raises(AccessDeniedError):
        await forged.get("k", limit=9)
    await forged.aclose()


def test_azure_listens_on_its_own_port_of_loopback_alone(azure_server: Azurite) -> None:
    assert listening(azure_server.pid) == [("0100007F", azure_server.port)]


async def test_azure_never_collects_for_it_answers_nobody_meanwhile(tmp_path: pathlib.Path) -> None:
    class Talkative(Azurite):
        def __init__(self) -> None:
            super().__init__()
            self._command += ["--debug", str(log)]

    log = tmp_path / "log"
    with Talkative():
        await wait_for(lambda: log.exists() and "markSweepLoop() Sleep for" in log.read_text())
    (sleeps,) = re.findall(r"markSweepLoop\(\) Sleep for (\d+)ms", log.read_text())
    assert int(sleeps) == 2**31 - 1


# S3


@pytest.mark.parametrize("server", ["s3_server", "s3_tls_server"])
def test_s3_checks_signatures_and_checksums(server: str, request: pytest.FixtureRequest) -> None:
    s3: MiniStack = request.getfixturevalue(server)
    bucket, client = s3.new_bucket(), s3.client()
    client.put_object(Bucket=bucket, Key="k", Body=b"body")
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"body"
    with pytest.raises(botocore.exceptions.ClientError, match=r"BadDigest|checksum"):
        client.put_object(Bucket=bucket, Key="x", Body=b"body", ChecksumCRC32="AAAAAA==")
    for key in (Key(s3.key.access_key_id, "wrong"), Key("AKIANOBODY", "wrong")):
        with pytest.raises(botocore.exceptions.ClientError, match=r"Signature|InvalidAccess"):
            s3.client(key=key).get_object(Bucket=bucket, Key="k")
    reader = s3.new_key({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    assert s3.client(key=reader).get_object(Bucket=bucket, Key="k")["Body"].read() == b"body"
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        s3.client(key=reader).put_object(Bucket=bucket, Key="k", Body=b"")


@pytest.mark.parametrize("server", ["s3_server", "s3_tls_server"])
def test_s3_listens_on_its_own_port_of_loopback_alone(
    server: str, request: pytest.FixtureRequest
) -> None:
    s3: MiniStack = request.getfixturevalue(server)
    assert listening(s3.pid) == [("0100007F", s3.port)]


def listening(pid: int) -> list[tuple[str, int]]:
    """Address and port of each socket on which a process accepts connections."""
    targets = {os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in targets:
                address, _, port = fields[1].partition(":")
                found.append((address, int(port, 16)))
    return found


# Proxies


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(65_536):
                self.server.heard += len(data)  # type: ignore[attr-defined]
                self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.heard = 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestTcpProxy:
    @pytest.fixture(autouse=True)
    def proxied(
        self, echo: socketserver.ThreadingTCPServer, tcp_proxy: Callable[[int], TcpProxy]
    ) -> Iterator[None]:
        self.echo = echo
        self.proxy = tcp_proxy(echo.server_address[1])
        with self.connect() as self.client:
            yield

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.proxy.port), timeout=5)

    def said(self, data: bytes, *, client: socket.socket | None = None) -> bytes:
        client = client or self.client
        client.sendall(data)
        answer = b""
        while len(answer) < len(data):
            piece = client.recv(65_536)
            if not piece:
                break
            answer += piece
        return answer

    def test_it_passes_on_everything(self) -> None:
        data = os.urandom(200_000)
        assert self.said(data) == data
        self.client.shutdown(socket.SHUT_WR)
        assert self.client.recv(1) == b""
        assert self.proxy.connections == 1
        within_ten_seconds(lambda: self.proxy.open_connections == 0)

    def test_it_resets_after_bytes_to_the_server(self) -> None:
        assert self.said(b"before") == b"before"
        self.proxy.faults = TcpFaults(reset_up_after=4)
        self.client.sendall(b"123456")
        assert self.client.recv(100) == b"1234"
        with pytest.raises(ConnectionResetError):
            self.client.recv(100)
        within_ten_seconds(lambda: self.echo.heard == 10)  # type: ignore[attr-defined]

    def test_it_resets_after_bytes_to_the_client(self) -> None:
        self.proxy.faults = TcpFaults(reset_down_after=4)
        self.client.sendall(b"123456")
        assert self.client.recv(100) == b"1234"
        with pytest.raises(ConnectionResetError):
            self.client.recv(100)

    def test_it_loses_a_reply_after_delivery(self) -> None:
        self.proxy.faults = LOST_REPLY
        with pytest.raises(ConnectionResetError):
            self.said(b"123456")
        assert self.echo.heard == 6  # type: ignore[attr-defined]

    def test_it_swallows_in_one_direction_or_both(self) -> None:
        self.client.settimeout(0.2)
        for faults, heard in ((TcpFaults(swallow_down=True), 3), (BLACK_HOLE, 3)):
            self.proxy.faults = faults
            with pytest.raises(TimeoutError):
                self.said(b"abc")
            assert self.echo.heard == heard  # type: ignore[attr-defined]
        self.proxy.faults = NO_FAULTS
        assert self.said(b"abc") == b"abc"

    def test_it_refuses_new_connections_only(self) -> None:
        assert self.said(b"abc") == b"abc"
        self.proxy.faults = TcpFaults(refuse=True)
        with pytest.raises(ConnectionResetError), self.connect() as second:
            second.recv(1)
        assert self.said(b"abc") == b"abc"
        assert self.proxy.connections == 2

    def test_it_resets_all_open_connections(self) -> None:
        with self.connect() as second:
            for client in (self.client, second):
                assert self.said(b"abc", client=client) == b"abc"
            self.proxy.reset_all()
            for client in (self.client, second):
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert not answers(0)

    def test_it_delays_both_directions(self) -> None:
        self.proxy.faults = TcpFaults(latency_s=0.1)
        began = time.monotonic()
        assert self.said(b"abc") == b"abc"
        assert time.monotonic() - began >= 0.2  # never less, whatever the machine is doing


class TestHttpProxy:
    @pytest.fixture(autouse=True)
    def proxied(
        self, s3_server: MiniStack, http_proxy: Callable[[int], HttpProxy]
    ) -> Iterator[None]:
        self.proxy = http_proxy(s3_server.port)
        self.bucket = s3_server.new_bucket()
        self.client = s3_server.client(endpoint_url=self.proxy.endpoint_url)
        yield
        self.client.close()

    def test_signed_requests_pass_unchanged(self) -> None:
        self.client.put_object(Bucket=self.bucket, Key="a b/ü", Body=b"body")
        assert self.client.get_object(Bucket=self.bucket, Key="a b/ü")["Body"].read() == b"body"
        assert self.client.head_object(Bucket=self.bucket, Key="a b/ü")["ContentLength"] == 4
        assert [asked.method for asked in self.proxy.asked] == ["PUT", "GET", "HEAD"]
        self.client.list_objects_v2(Bucket=self.bucket, Prefix="a b/")

    def test_the_second_request_is_refused_and_never_arrives(self) -> None:
        refusal = error(503, "SlowDown", Retry_After="7")
        self.proxy.plan = lambda number, asked: refusal if number == 1 else None
        self.client.put_object(Bucket=self.bucket, Key="0", Body=b"")
        with pytest.raises(botocore.exceptions.ClientError, match="SlowDown") as caught:
            self.client.put_object(Bucket=self.bucket, Key="1", Body=b"")
        headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
        assert headers["retry-after"] == "7"
        self.client.put_object(Bucket=self.bucket, Key="2", Body=b"")
        listed = self.client.list_objects_v2(Bucket=self.bucket)["Contents"]
        assert [item["Key"] for item in listed] == ["0", "2"]

    def test_a_body_is_cut(self) -> None:
        self.client.put_object(Bucket=self.bucket, Key="k", Body=b"0123456789")
        self.proxy.plan = lambda number, asked: Answer(cut_after=4)
        body = self.client.get_object(Bucket=self.bucket, Key="k")["Body"]
        with pytest.raises(botocore.exceptions.BotoCoreError):
            body.read()
