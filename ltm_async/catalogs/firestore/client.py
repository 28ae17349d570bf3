"""One client of Firestore for each loop, whose driver is imported beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from ...errors import MissingDriverError, StoreError
from ...worker import aside
from .statuses import NAME

CLOSE_TIMEOUT_S = 5.0
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
"""By itself a channel would, after an outage, wait for up to two minutes."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClientKey:
    """What makes two catalogs share a client."""

    project: str | None
    database: str | None
    credentials_file: str | None
    emulator_host: str | None
    transport: str


class Client(Protocol):
    """The four requests, each of one message and tried once.

    Messages are those of protobuf itself, of google.firestore.v1, so that they are built and read
    in one way whoever declares them.
    """

    database: str
    """``projects/…/databases/…``"""
    commit_request: type[Any]
    read_request: type[Any]
    query_request: type[Any]
    count_request: type[Any]

    async def commit(self, request: Any, timeout_s: float) -> Any: ...

    def read(self, request: Any, timeout_s: float) -> AsyncIterator[Any]: ...

    def query(self, request: Any, timeout_s: float) -> AsyncIterator[Any]: ...

    def count(self, request: Any, timeout_s: float) -> AsyncIterator[Any]: ...

    def answering(self, unexpected: type[Exception]) -> AbstractContextManager[None]:
        """Raise what goes wrong with a request as ours, see `statuses.refused`."""

    async def aclose(self) -> None: ...


async def connect(key: ClientKey) -> Client:
    """A client with its channel, which connects with the first request."""
    # Imports take up to 0.2 s; credentials and certificates are read from files.
    client: Client = await aside(partial(_make, key, asyncio.get_running_loop()))
    return client


def _make(key: ClientKey, loop: asyncio.AbstractEventLoop) -> Any:
    asyncio.set_event_loop(loop)  # a channel belongs to the loop of the thread that makes it
    try:
        return importlib.import_module(f".{key.transport}", __package__).connect(key)
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="FirestoreCatalog", extra="firestore") from exc
    finally:
        asyncio.set_event_loop(None)


async def close(client: Client) -> None:
    async with asyncio.timeout(CLOSE_TIMEOUT_S):
        await client.aclose()


async def answers_of(call: Any) -> AsyncIterator[Any]:
    """The answers to *call*, which ends with whoever reads them.

    By itself a call goes on to its deadline when it has just begun as its reader is cancelled.
    """
    try:
        async for answer in call:
            yield answer
    finally:
        call.cancel()


def database_path(project: str, database: str | None) -> str:
    return f"projects/{project}/databases/{database or '(default)'}"


def headers(database: str, emulator_host: str | None) -> tuple[tuple[str, str], ...]:
    """What every request carries; an emulator takes its owner at their word."""
    place = ("google-cloud-resource-prefix", database)
    return (place,) if emulator_host is None else (place, ("authorization", "Bearer owner"))


def service_account(credentials_file: str) -> Any:
    """The credentials in a file."""
    account = importlib.import_module("google.oauth2.service_account")
    try:
        return account.Credentials.from_service_account_file(credentials_file)
    except (OSError, ValueError) as exc:
        raise StoreError(
            f"{NAME}: credentials_file cannot be read: {type(exc).__name__}", store=NAME
        ) from None
