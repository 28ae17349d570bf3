"""What a campaign runs on, and the faults that it can have."""

from __future__ import annotations

import contextlib
import pathlib
import random
import signal
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from ltm_async.catalogs.firestore.options import TRANSPORTS
from ltm_async.schema import postgres_script, supabase_script

from ..databases import Console
from ..servers import gcs
from ..servers.azurite import Azurite
from ..servers.firestore import Firestore, grpc_engine, new_project
from ..servers.gcs import GcsServer
from ..servers.grpc_proxy import GrpcProxy
from ..servers.http_proxy import Answer, HttpProxy, error
from ..servers.ministack import MiniStack
from ..servers.postgres import Postgres
from ..servers.postgrest import DEFAULT_PRIVILEGES, SUPABASE, PostgREST, token_of
from ..servers.tcp_proxy import TcpProxy
from .faults import (
    OF_WORKERS,
    TIMEOUT_S,
    Fault,
    between,
    disk_full,
    frozen,
    of_grpc,
    of_web,
    of_wire,
    restarted,
)


class Setup(NamedTuple):
    """One catalog and one blob store, as clients reach them and as a judge does."""

    settings: Sequence[Mapping[str, Any]]
    """Of the clients, through what can be broken; of one process these, of the next those."""
    direct: Mapping[str, Any]
    faults: Mapping[str, Fault]
    clock_off_s: float
    """How wrong the clocks of clients are. SQLite has no other clock than theirs."""


def _settings(
    catalog: Mapping[str, Any],
    storage: Mapping[str, Any],
    timeout_s: float = TIMEOUT_S,
    namespace: str = "",
) -> dict[str, Any]:
    return {
        "catalog": catalog,
        "storage": storage,
        "namespace": namespace,
        "on_unavailable": "raise",
        "timeout": timeout_s,
    }


@contextlib.contextmanager
def postgres_and_s3() -> Iterator[Setup]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Postgres())
        s3 = stack.enter_context(MiniStack())
        wire = stack.enter_context(TcpProxy(server.port))
        web = stack.enter_context(HttpProxy(s3.port))
        _run(server, postgres_script("public"))
        storage = {
            "uri": f"s3://{s3.new_bucket()}/chaos/",
            "region": s3.region,
            "access_key_id": s3.key.access_key_id,
            "secret_access_key": s3.key.secret_access_key,
        }
        proxied = server.dsn.replace(f":{server.port}/", f":{wire.port}/")

        def catalog(dsn: str) -> dict[str, Any]:
            return {"type": "postgres", "dsn": dsn, "install": False}

        codes = {500: "InternalError", 503: "SlowDown", 429: "TooManyRequests"}
        yield Setup(
            [_settings(catalog(proxied), {**storage, "endpoint_url": web.endpoint_url})],
            _settings(catalog(server.dsn), {**storage, "endpoint_url": s3.endpoint_url}, 60),
            {
                **OF_WORKERS,
                **of_wire(wire),
                "catalog: restarted": restarted(server, signal.SIGQUIT),  # without a checkpoint
                "catalog: read-only": _read_only(server),
                **of_web("storage", web, lambda status: error(status, codes[status])),
            },
            clock_off_s=86_400.0,
        )


def _read_only(server: Postgres) -> Fault:
    def alter(change: str) -> None:
        _run(
            server,
            "SET default_transaction_read_only = off",
            f"ALTER SYSTEM {change}",
            "SELECT pg_reload_conf()",
        )

    return between(
        lambda seeded: alter("SET default_transaction_read_only = on"),
        lambda: alter("RESET default_transaction_read_only"),
    )


@contextlib.contextmanager
def supabase_and_azure() -> Iterator[Setup]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Postgres())
        _run(
            server, SUPABASE, DEFAULT_PRIVILEGES.format(schema="public"), supabase_script("public")
        )
        api = stack.enter_context(PostgREST(server))
        azure = stack.enter_context(Azurite())
        gateway = stack.enter_context(HttpProxy(api.port))
        web = stack.enter_context(HttpProxy(azure.port))
        user = "chaos"
        storage = {
            "uri": f"az://{azure.new_container()}/chaos/",
            "account_name": azure.account_name,
            "account_key": azure.account_key,
        }

        def catalog(url: str) -> dict[str, Any]:
            token = token_of(user, valid_s=86_400)
            named = {"url": url, "key": api.anon_key, "access_token": token}
            return {"type": "supabase", "rest_path": "/", **named}

        def through(url: str, port: int, timeout_s: float) -> dict[str, Any]:
            blobs = {**storage, "endpoint_url": azure.endpoint_behind(port)}
            return _settings(catalog(url), blobs, timeout_s, user)

        codes = {500: "OperationTimedOut", 503: "ServerBusy", 429: "TooManyRequests"}
        yield Setup(
            [through(gateway.endpoint_url, web.port, TIMEOUT_S)],
            through(api.url, azure.port, 60),
            {
                **OF_WORKERS,
                **of_web("catalog", gateway, lambda status: Answer(status=status)),
                "catalog: killed": restarted(api, signal.SIGKILL),
                "catalog: frozen": frozen(api),
                "catalog: database restarted": restarted(server, signal.SIGQUIT),
                **of_web("storage", web, lambda status: error(status, codes[status])),
                "storage: frozen": frozen(azure),
            },
            clock_off_s=86_400.0,
        )


@contextlib.contextmanager
def firestore_and_gcs() -> Iterator[Setup]:
    """On both transports, one process on this and the next on that."""
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(Firestore())
        stack.enter_context(grpc_engine())
        server = stack.enter_context(GcsServer())
        api = stack.enter_context(GrpcProxy(emulator.port))
        wire = stack.enter_context(TcpProxy(api.port))
        web = stack.enter_context(HttpProxy(server.port))
        # A judge has no other way to it: it comes when all is healed.
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setenv("FIRESTORE_EMULATOR_HOST", f"127.0.0.1:{wire.port}")
        project, uri = new_project(), f"gs://{server.new_bucket()}/chaos/"

        def through(transport: str, endpoint_url: str, timeout_s: float) -> dict[str, Any]:
            catalog = {"type": "firestore", "project": project, "transport": transport}
            return _settings(catalog, {"uri": uri, "endpoint_url": endpoint_url}, timeout_s)

        reasons = {500: "backendError", 503: "backendError", 429: "rateLimitExceeded"}
        yield Setup(
            [through(transport, web.endpoint_url, TIMEOUT_S) for transport in TRANSPORTS],
            through(TRANSPORTS[0], server.endpoint_url, 60),
            {
                **OF_WORKERS,
                # All calls share a connection, which does not go on with a part of it lost.
                **of_wire(wire, after_silence=wire.reset_all),
                **of_grpc(api),
                "catalog: frozen": frozen(emulator),
                **of_web("storage", web, lambda status: gcs.refusal(status, reasons[status])),
            },
            clock_off_s=86_400.0,
        )


@contextlib.contextmanager
def sqlite_and_local(folder: pathlib.Path) -> Iterator[Setup]:
    file = folder / "chaos.db"
    settings = _settings({"type": "sqlite", "path": str(file)}, {"uri": str(folder / "blobs")})
    yield Setup(
        [settings],
        settings,
        {**OF_WORKERS, "catalog: locked": _locked(file), "disk full": disk_full},
        clock_off_s=0.0,
    )


def _locked(file: pathlib.Path) -> Fault:
    holder: list[sqlite3.Connection] = []

    def lock(seeded: random.Random) -> None:
        conn = sqlite3.connect(file, timeout=10, isolation_level=None, check_same_thread=False)
        conn.execute("BEGIN IMMEDIATE")
        holder.append(conn)

    return between(lock, lambda: holder.pop().close())


def _run(server: Postgres, *scripts: str) -> None:
    console = Console(server.dsn)
    for script in scripts:
        console.run(script)
    console.close()
