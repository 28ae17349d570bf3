"""The light transport of FirestoreCatalog: what it declares, what it imports, who it says it is."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt as untyped_jwt
from google.cloud.firestore_v1 import types

from ltm_async import FirestoreCatalog, StoreError
from ltm_async.catalogs.firestore import messages, wire
from ltm_async.testing.writes import new_write_id, small

from .servers.certificates import write_certificates
from .servers.firestore import Firestore, new_project
from .servers.grpc_proxy import GrpcProxy

jwt: Any = untyped_jwt

# What it declares


def official(name: str) -> Any:
    outer, *inner = name.split(".")
    descriptor: Any = getattr(types, outer).pb().DESCRIPTOR
    for part in inner:
        descriptor = descriptor.nested_types_by_name[part]
    return descriptor


@pytest.mark.parametrize("name", wire.MESSAGES)
def test_messages_are_declared_as_google_declares_them(name: str) -> None:
    ours, theirs = wire.message_classes()[name].DESCRIPTOR, official(name)
    assert ours.full_name == theirs.full_name
    assert ours.GetOptions().map_entry == theirs.GetOptions().map_entry
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert _form(field) == _form(other), field.name


def _form(field: Any) -> tuple[object, ...]:
    kind = field.type
    if kind == field.TYPE_ENUM:
        kind = field.TYPE_INT32  # sent in the same way
    message, oneof = field.message_type, field.containing_oneof
    return (
        field.number,
        field.is_repeated,
        kind,
        message and message.full_name,
        oneof and oneof.name,
    )


def test_numbers_that_stand_for_names_are_googles() -> None:
    query = types.StructuredQuery
    assert query.CompositeFilter.Operator.AND == messages._AND
    assert query.FieldFilter.Operator.LESS_THAN == messages._LESS_THAN
    assert query.FieldFilter.Operator.GREATER_THAN_OR_EQUAL == messages._GREATER_THAN_OR_EQUAL
    assert query.Direction.ASCENDING == messages._ASCENDING


# What it imports, and what it shares


async def test_both_transports_work_in_one_process_each_with_a_client_of_its_own(
    firestore_server: Firestore,
) -> None:
    project = new_project()
    catalogs = [FirestoreCatalog(project, transport=name) for name in ("official", "light")]
    for turn, (writer, reader) in enumerate((catalogs, catalogs[::-1])):
        await writer.track_entry("", small(f"k{turn}", "1"), write_id=new_write_id())
        (row,) = await reader.get_entries_batch("", [f"k{turn}"])
        assert row.inlined_value == "1"
    clients = [await catalog._share.get() for catalog in catalogs]
    assert [type(client).__name__ for client in clients] == ["OfficialClient", "LightClient"]
    for catalog in catalogs:
        await catalog.aclose()


ALONE = """
import asyncio, sys
from ltm_async import LTMBackend
async def main():
    ltm = LTMBackend(f"firestore://{sys.argv[1]}?transport=light", "memory:")
    assert (await ltm.store("k", 1)).stored
    assert (await ltm.retrieve("k")).value == 1
    assert len((await ltm.list_entries()).entries) == 1
asyncio.run(main())
print(*{"google.cloud", "google.api_core", "google.auth", "proto", "requests"} & {*sys.modules})
"""


def test_it_imports_nothing_of_googles_client(firestore_server: Firestore) -> None:
    assert _run(ALONE, new_project()) == ""


# Who it says it is

WITH_TLS = """
import asyncio, sys
from ltm_async import FirestoreCatalog, LTMBackend
from ltm_async.catalogs.firestore import light
light.HOST = sys.argv[1]
async def main():
    catalog = FirestoreCatalog(transport="light", credentials_file=sys.argv[2])
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    await ltm.store("k", 1)
    assert (await ltm.retrieve("k")).value == 1
    assert len((await ltm.list_entries()).entries) == 1
    await catalog.aclose()
asyncio.run(main())
print(*{"google.cloud", "google.api_core", "requests"} & {*sys.modules})
"""


@pytest.fixture
def secure(
    firestore_server: Firestore, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GrpcProxy]:
    """Firestore behind TLS, for child processes, which trust it."""
    certificate, ca_file = write_certificates(tmp_path, "localhost")
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST")
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(ca_file))
    with GrpcProxy(firestore_server.port, certificate=certificate) as proxy:
        yield proxy


def test_a_key_in_a_file_signs_tokens_without_asking_anyone(
    secure: GrpcProxy, tmp_path: pathlib.Path
) -> None:
    project, file = new_project(), tmp_path / "account.json"
    public_key = _write_account(file, project)
    assert _run(WITH_TLS, f"localhost:{secure.port}", str(file)) == ""
    assert set(secure.calls) == {"BatchGetDocuments", "Commit", "RunQuery"}
    database = f"projects/{project}/databases/(default)"
    for call, headers in zip(secure.calls, secure.headers, strict=True):
        kind, _, token = headers["authorization"].partition(" ")
        claims = jwt.decode(token, certs=public_key, verify=False)
        jwt.decode(token, certs=public_key, audience=claims.get("aud"))
        assert (kind, claims["iss"]) == ("Bearer", "a@b.iam.gserviceaccount.com")
        assert "https://www.googleapis.com/auth/datastore" in claims["scope"].split()
        assert headers["google-cloud-resource-prefix"] == database
        place = f"projects/{project}/databases/%28default%29"
        assert headers["x-goog-request-params"] == (
            f"parent={place}/documents" if call == "RunQuery" else f"database={place}"
        )


async def test_headers_are_those_of_the_official_client(
    firestore_server: Firestore, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, seen = new_project(), {}
    with GrpcProxy(firestore_server.port) as proxy:
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", proxy.host)
        for name in ("official", "light"):
            catalog = FirestoreCatalog(project, transport=name)
            await catalog.track_entry("", small("k", "1"), write_id=new_write_id())
            await catalog.list_entries("", limit=1)
            await catalog.aclose()
            seen[name] = [
                {**headers, "x-goog-api-client": "", "user-agent": ""} for headers in proxy.headers
            ]
            proxy.headers.clear()
    assert seen["light"] == seen["official"]
    assert len(seen["light"]) == 3


METADATA_SERVER = """
import asyncio, http.server, itertools, json, os, sys, threading
from ltm_async import FirestoreCatalog, LTMBackend
from ltm_async.catalogs.firestore import light
light.HOST = sys.argv[1]
loop_goes_on, asked, numbers = threading.Event(), threading.Event(), itertools.count()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, body = self.path.partition("?")[0], ""
        if path.endswith("/project-id"):
            body = sys.argv[2]
        elif path.endswith("/universe-domain"):
            body = "googleapis.com"
        elif path.endswith("/token"):
            asked.set()
            assert loop_goes_on.wait(20), "the loop waits for a token"
            token = {"access_token": f"token-{next(numbers)}", "expires_in": 1}
            body = json.dumps({**token, "token_type": "Bearer"})
        elif "service-accounts" in path:
            body = json.dumps({"email": "a@b.c", "scopes": [], "aliases": ["default"]})
        kind = "application/json" if body.startswith("{") else "text/plain"
        self.send_response(200)
        for name, value in (("Metadata-Flavor", "Google"), ("Content-Type", kind)):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
host = f"127.0.0.1:{server.server_port}"
os.environ |= {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
async def tick():
    while not asked.is_set():
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    loop_goes_on.set()
async def main():
    ticking = asyncio.create_task(tick())
    catalog = FirestoreCatalog(transport="light")
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    await ltm.store("k", 1)
    await ticking
    assert (await ltm.retrieve("k")).value == 1
    await catalog.aclose()
asyncio.run(main())
server.shutdown()
server.server_close()
"""


def test_a_machine_on_google_cloud_is_asked_for_tokens_beside_the_loop(
    secure: GrpcProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """And again when one is about to end."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    _run(METADATA_SERVER, f"localhost:{secure.port}", new_project())
    tokens = [headers["authorization"] for headers in secure.headers]
    assert len(tokens) == len(set(tokens)) == 3
    assert all(token.startswith("Bearer token-") for token in tokens)


async def test_a_file_that_is_no_key_is_refused_and_not_quoted(
    transport: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    (tmp_path / "key.json").write_text('{"private_key": "c4n4ry"}')
    for name in ("key.json", "missing.json"):
        file = str(tmp_path / name)
        catalog = FirestoreCatalog(new_project(), credentials_file=file, transport=transport)
        with pytest.raises(StoreError, match="credentials_file") as caught:
            await catalog.open()
        assert "c4n4ry" not in "".join(traceback.format_exception(caught.value))
        await catalog.aclose()


async def test_credentials_of_another_universe_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    file = tmp_path / "account.json"
    _write_account(file, new_project(), universe_domain="elsewhere.example")
    catalog = FirestoreCatalog(credentials_file=str(file), transport="light")
    with pytest.raises(StoreError, match="official"):
        await catalog.open()
    await catalog.aclose()


def _write_account(file: pathlib.Path, project: str, **more: str) -> bytes:
    """The file of a service account; returns what its signatures are verified with."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": "a@b.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:9/",
        **more,
    }
    file.write_text(json.dumps(account))
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
