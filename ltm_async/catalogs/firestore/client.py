"""One client of Firestore for each loop, whose driver is imported beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ...errors import StoreError

if TYPE_CHECKING:
    from google.cloud.firestore_v1 import AsyncClient

NAME = "firestore"
CLOSE_TIMEOUT_S = 5.0

if importlib.util.find_spec("google.cloud.firestore_v1") is None:
    raise ModuleNotFoundError(
        "No module named 'google.cloud.firestore'", name="google.cloud.firestore"
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
    client: AsyncClient = await asyncio.to_thread(_make, key, asyncio.get_running_loop())
    return client


def _make(key: ClientKey, loop: asyncio.AbstractEventLoop) -> Any:
    client = _client(key)
    asyncio.set_event_loop(loop)  # a channel belongs to the loop of the thread that makes it
    try:
        _ = client._firestore_api
    finally:
        asyncio.set_event_loop(None)
    return client


def _client(key: ClientKey) -> Any:
    firestore = importlib.import_module("google.cloud.firestore_v1")
    importlib.import_module(".documents", __package__)
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
