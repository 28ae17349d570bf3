"""One client of Firestore for each loop, whose driver is imported beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import MissingDriverError, StoreError
from ...worker import aside

if TYPE_CHECKING:
    from google.cloud.firestore_v1 import AsyncClient

NAME = "firestore"
CLOSE_TIMEOUT_S = 5.0
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclasses.dataclass(frozen=True, slots=True)
class ClientKey:
    """What makes two catalogs share a client."""

    project: str | None
    database: str | None
    credentials_file: str | None
    emulator_host: str | None


async def connect(key: ClientKey) -> AsyncClient:
    """A client with its channel, which connects with the first request."""
    # Importing takes 0.2 s, credentials are read from files, and a channel reads certificates.
    client: AsyncClient = await aside(partial(_make, key, asyncio.get_running_loop()))
    return client


def _make(key: ClientKey, loop: asyncio.AbstractEventLoop) -> Any:
    client = _client(key)
    asyncio.set_event_loop(loop)  # a channel belongs to the loop of the thread that makes it
    try:
        # The client's own channel would, after an outage, wait for up to two minutes.
        client._firestore_api_internal = _api(client, key.emulator_host)
    finally:
        asyncio.set_event_loop(None)
    return client


def _api(client: Any, emulator_host: str | None) -> Any:
    services = importlib.import_module("google.cloud.firestore_v1.services.firestore")
    transports = importlib.import_module(f"{services.__name__}.transports")
    kind = transports.FirestoreGrpcAsyncIOTransport
    if emulator_host is None:
        channel = kind.create_channel(
            client._target, credentials=client._credentials, options=CHANNEL_OPTIONS
        )
    else:
        aio = importlib.import_module("grpc.aio")
        channel = aio.insecure_channel(emulator_host, options=CHANNEL_OPTIONS)
    return services.FirestoreAsyncClient(transport=kind(host=client._target, channel=channel))


def _client(key: ClientKey) -> Any:
    try:
        firestore = importlib.import_module("google.cloud.firestore_v1")
        importlib.import_module(".documents", __package__)
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="FirestoreCatalog", extra="firestore") from exc
    credentials = None
    if key.credentials_file is not None:
        account = importlib.import_module("google.oauth2.service_account")
        try:
            credentials = account.Credentials.from_service_account_file(key.credentials_file)
        except (OSError, ValueError) as exc:
            raise StoreError(
                f"{NAME}: credentials_file cannot be read: {type(exc).__name__}", store=NAME
            ) from None
    auth = importlib.import_module("google.auth.exceptions")
    try:
        return firestore.AsyncClient(
            project=key.project, database=key.database, credentials=credentials
        )
    except auth.DefaultCredentialsError as exc:
        raise StoreError(f"{NAME}: no credentials were found", store=NAME) from exc
    except OSError as exc:
        raise StoreError(f"{NAME}: no project is named and none was found", store=NAME) from exc


async def close(client: AsyncClient) -> None:
    """Close the channel, which the client's own ``close`` leaves open."""
    async with asyncio.timeout(CLOSE_TIMEOUT_S):
        await client._firestore_api.transport.close()
