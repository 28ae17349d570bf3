"""Requests by gRPC alone, on messages that we declare: nothing of Google's client is imported."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import grpc.aio

from ...errors import StoreError, UnavailableError
from .client import (
    CHANNEL_OPTIONS,
    ClientKey,
    answers_of,
    database_path,
    headers,
    service_account,
)
from .statuses import NAME, refused
from .wire import PACKAGE, message_classes

HOST = "firestore.googleapis.com"
UNIVERSE = "googleapis.com"
SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/datastore",
)
EMULATOR_PROJECT = "google-cloud-firestore-emulator"
_SERVICE = f"/{PACKAGE}.Firestore"
_CLASSES = message_classes()


class LightClient:
    commit_request = _CLASSES["CommitRequest"]
    read_request = _CLASSES["BatchGetDocumentsRequest"]
    query_request = _CLASSES["RunQueryRequest"]
    count_request = _CLASSES["RunAggregationQueryRequest"]

    def __init__(self, channel: grpc.aio.Channel, database: str, emulator: str | None) -> None:
        self.database = database
        self._channel = channel
        always = headers(database, emulator)
        self._headers = (*always, _routing("database", database))
        self._query_headers = (*always, _routing("parent", f"{database}/documents"))
        self._commit = channel.unary_unary(
            f"{_SERVICE}/Commit",
            request_serializer=self.commit_request.SerializeToString,
            response_deserializer=_CLASSES["CommitResponse"].FromString,
        )
        self._read = channel.unary_stream(
            f"{_SERVICE}/BatchGetDocuments",
            request_serializer=self.read_request.SerializeToString,
            response_deserializer=_CLASSES["BatchGetDocumentsResponse"].FromString,
        )
        self._query = channel.unary_stream(
            f"{_SERVICE}/RunQuery",
            request_serializer=self.query_request.SerializeToString,
            response_deserializer=_CLASSES["RunQueryResponse"].FromString,
        )
        self._count = channel.unary_stream(
            f"{_SERVICE}/RunAggregationQuery",
            request_serializer=self.count_request.SerializeToString,
            response_deserializer=_CLASSES["RunAggregationQueryResponse"].FromString,
        )

    async def commit(self, request: Any, timeout_s: float) -> Any:
        return await self._commit(request, timeout=timeout_s, metadata=self._headers)

    def read(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        return answers_of(self._read(request, timeout=timeout_s, metadata=self._headers))

    def query(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        return answers_of(self._query(request, timeout=timeout_s, metadata=self._query_headers))

    def count(self, request: Any, timeout_s: float) -> AsyncIterator[Any]:
        return answers_of(self._count(request, timeout=timeout_s, metadata=self._query_headers))

    @contextlib.contextmanager
    def answering(self, unexpected: type[Exception]) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as exc:
            refused(exc.code().name, exc.details() or "", exc, unexpected=unexpected)

    async def aclose(self) -> None:
        await self._channel.close()


def _routing(field: str, value: str) -> tuple[str, str]:
    """By which Google finds the database's region."""
    return "x-goog-request-params", urlencode({field: value}, safe="/")


def connect(key: ClientKey) -> LightClient:
    if key.emulator_host is not None:
        project = key.project or _project_of_environment() or EMULATOR_PROJECT
        channel = grpc.aio.insecure_channel(key.emulator_host, options=CHANNEL_OPTIONS)
    else:
        credentials, project = _credentials(key)
        channel = grpc.aio.secure_channel(
            HOST, _channel_credentials(credentials), options=CHANNEL_OPTIONS
        )
    return LightClient(channel, database_path(project, key.database), key.emulator_host)


def _project_of_environment() -> str | None:
    return os.environ.get("GOOGLE_CLOUD_PROJECT") or os.environ.get("GCLOUD_PROJECT")


def _credentials(key: ClientKey) -> tuple[Any, str]:
    """The credentials, and the project they are used in."""
    auth = importlib.import_module("google.auth")
    try:
        if key.credentials_file is not None:
            credentials = service_account(key.credentials_file).with_scopes(SCOPES)
            found = credentials.project_id
        else:
            credentials, found = auth.default(scopes=SCOPES)
        universe = credentials.universe_domain
    except auth.exceptions.DefaultCredentialsError as exc:
        raise StoreError(f"{NAME}: no credentials were found", store=NAME) from exc
    except auth.exceptions.GoogleAuthError as exc:
        raise UnavailableError(f"{NAME}: no credentials could be fetched", store=NAME) from exc
    if universe != UNIVERSE:
        raise StoreError(
            f"{NAME}: the credentials are not for {UNIVERSE}; use the official transport",
            store=NAME,
        )
    project = key.project or _project_of_environment() or found
    if project is None:
        raise StoreError(f"{NAME}: no project is named and none was found", store=NAME)
    if hasattr(credentials, "with_always_use_jwt_access"):
        # A token that is signed here needs no request (https://google.aip.dev/auth/4111).
        credentials = credentials.with_always_use_jwt_access(True)
    return credentials, project


def _channel_credentials(credentials: Any) -> grpc.ChannelCredentials:
    """TLS, with a token that gRPC has made and renewed in a thread of its own."""
    plugins = importlib.import_module("google.auth.transport.grpc")
    plugin = plugins.AuthMetadataPlugin(credentials, _fetch, default_host=HOST)
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(), grpc.metadata_call_credentials(plugin)
    )


def _fetch(*args: Any, **kwargs: Any) -> Any:
    """A request for a token; what makes it is slow to import, and a key in a file needs none."""
    requests = importlib.import_module("google.auth.transport.requests")
    return requests.Request()(*args, **kwargs)
