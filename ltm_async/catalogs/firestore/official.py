"""Requests by Google's own client, without what it wraps around messages and retries."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud.firestore_v1 import AsyncClient, types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from ...errors import AccessDeniedError, StoreError, UnavailableError
from .client import CHANNEL_OPTIONS, ClientKey, database_path, headers, service_account
from .statuses import NAME, refused


class OfficialClient:
    commit_request = types.CommitRequest.pb()
    read_request = types.BatchGetDocumentsRequest.pb()
    query_request = types.RunQueryRequest.pb()
    count_request = types.RunAggregationQueryRequest.pb()

    def __init__(self, api: FirestoreAsyncClient, database: str, emulator: str | None) -> None:
        self.database = database
        self._api: Any = api
        self._headers = headers(database, emulator)

    async def commit(self, request: Any, timeout_s: float) -> Any:
        response = await self._api.commit(
            types.CommitRequest.wrap(request),
            retry=None,
            timeout=timeout_s,
            metadata=self._headers,
        )
        return types.CommitResponse.pb(response)

    async def read(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        responses = await self._api.batch_get_documents(
            types.BatchGetDocumentsRequest.wrap(request),
            retry=None,
            timeout=timeout_s,
            metadata=self._headers,
        )
        async for response in responses:
            yield types.BatchGetDocumentsResponse.pb(response)

    async def query(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        responses = await self._api.run_query(
            types.RunQueryRequest.wrap(request),
            retry=None,
            timeout=timeout_s,
            metadata=self._headers,
        )
        async for response in responses:
            yield types.RunQueryResponse.pb(response)

    async def count(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        responses = await self._api.run_aggregation_query(
            types.RunAggregationQueryRequest.wrap(request),
            retry=None,
            timeout=timeout_s,
            metadata=self._headers,
        )
        async for response in responses:
            yield types.RunAggregationQueryResponse.pb(response)

    @contextlib.contextmanager
    def answering(self, unexpected: type[Exception]) -> Iterator[None]:
        try:
            yield
        except GoogleAPICallError as exc:
            code = exc.grpc_status_code
            status = type(exc).__name__ if code is None else code.name
            refused(status, exc.message, exc, unexpected=unexpected)
        except TransportError as exc:
            raise UnavailableError(f"{NAME}: no credentials could be fetched", store=NAME) from exc
        except GoogleAuthError as exc:
            raise AccessDeniedError(f"{NAME}: no usable credentials", store=NAME) from exc

    async def aclose(self) -> None:
        await self._api.transport.close()


def connect(key: ClientKey) -> OfficialClient:
    file = key.credentials_file
    credentials = None if file is None else service_account(file)
    try:
        client = AsyncClient(project=key.project, database=key.database, credentials=credentials)
    except DefaultCredentialsError as exc:
        raise StoreError(f"{NAME}: no credentials were found", store=NAME) from exc
    except OSError as exc:
        raise StoreError(f"{NAME}: no project is named and none was found", store=NAME) from exc
    kind = FirestoreGrpcAsyncIOTransport
    if key.emulator_host is None:
        channel = kind.create_channel(
            client._target, credentials=client._credentials, options=CHANNEL_OPTIONS
        )
    else:
        channel = grpc.aio.insecure_channel(key.emulator_host, options=CHANNEL_OPTIONS)
    api = FirestoreAsyncClient(transport=kind(host=client._target, channel=channel))
    return OfficialClient(api, database_path(client.project, key.database), key.emulator_host)
