"""Requests by Google's own client, without what it wraps around messages and retries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import grpc.aio
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud.firestore_v1 import AsyncClient, types
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

from ...errors import AccessDeniedError, StoreError, UnavailableError
from .client import (
    CHANNEL_OPTIONS,
    ClientKey,
    answers_of,
    database_path,
    headers,
    service_account,
)
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

    def read(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        asked = types.BatchGetDocumentsRequest.wrap(request)
        answer = types.BatchGetDocumentsResponse
        return self._answers(self._api.batch_get_documents, asked, answer, timeout_s)

    def query(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        asked = types.RunQueryRequest.wrap(request)
        return self._answers(self._api.run_query, asked, types.RunQueryResponse, timeout_s)

    def count(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        asked = types.RunAggregationQueryRequest.wrap(request)
        answer = types.RunAggregationQueryResponse
        return self._answers(self._api.run_aggregation_query, asked, answer, timeout_s)

    async def _answers(
        self, method: Any, request: Any, answer: Any, timeout_s: float
    ) -> AsyncIterator[Any]:
        call = await _begun(method(request, retry=None, timeout=timeout_s, metadata=self._headers))
        async for response in answers_of(call):
            yield answer.pb(response)

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


async def _begun(beginning: Coroutine[Any, Any, Any]) -> Any:
    """The call that *beginning* makes; it ends as soon as it has begun if its caller is gone then.

    The driver loses one that is cancelled while it begins, and it goes on to its deadline.
    """
    task = asyncio.ensure_future(beginning)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_end)
        raise


def _end(beginning: asyncio.Task[Any]) -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().cancel()


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
