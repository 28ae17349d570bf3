"""aiobotocore's client: signatures and formats, but neither HTTP nor retries."""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ClientError
from botocore.httpsession import get_cert_path
from botocore.loaders import Loader
from botocore.utils import get_environ_proxies

from ...errors import ConfigError
from ...worker import PerProcess
from .options import Options, check_endpoint
from .replies import reading
from .requests import Requests
from .sending import Sender

DEFAULT_REGION = "us-east-1"


class _Models:
    """The driver's models of S3 and its endpoints, read once in a process: 50 ms."""

    def __init__(self) -> None:
        self.loader: Loader | None = None
        # Holds for reading them, by the first client that is made.
        self.lock = threading.Lock()


_models = PerProcess(_Models)


class _Loader(Loader):  # type: ignore[misc]
    """Knows that there is S3 without looking through all the services, which takes 18 ms."""

    def list_available_services(self, type_name: str) -> Any:
        return _Services(lambda: super(_Loader, self).list_available_services(type_name))


class _Services:
    """Names of services; the others are looked for when one is asked for, as for credentials."""

    def __init__(self, look: Callable[[], list[str]]) -> None:
        self._look = look

    def __contains__(self, name: object) -> bool:
        return name == "s3" or name in self._look()

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())


class Driver:
    """All that a client needs and that takes a while; for a thread to make."""

    def __init__(self, options: Options) -> None:
        self._options = options
        blocking = botocore.session.Session()
        self._session = AioSession()
        models = _models.get()
        with reading():
            with models.lock:
                if models.loader is None:
                    paths = blocking.get_component("data_loader").search_paths
                    models.loader = _Loader(
                        extra_search_paths=paths, include_default_search_paths=False
                    )
                for session in (blocking, self._session):
                    session.register_component("data_loader", models.loader)
                self._region = (
                    options.region or blocking.get_config_variable("region") or DEFAULT_REGION
                )
                # Reads all that the other session's client will ask for.
                client = blocking.create_client("s3", **self._arguments())
            url = client.meta.endpoint_url
            client.close()
            check_endpoint(url, allow_http=options.allow_http)  # it may be the environment's
            ca_file = options.ca_file or blocking.get_config_variable("ca_bundle")
            self._context = _ssl_context(ca_file or get_cert_path(True))
            self._proxy = get_environ_proxies(url).get(url.partition(":")[0])
            if options.access_key_id is None:
                found = blocking.get_credentials()
                self._session.register_component("credential_provider", _Found(found))
            self._session.full_config  # noqa: B018  # reads the configuration file

    def _arguments(self) -> dict[str, Any]:
        options = self._options
        return {
            "region_name": self._region,
            "endpoint_url": options.endpoint_url,
            "aws_access_key_id": options.access_key_id,
            "aws_secret_access_key": options.secret_access_key,
            "aws_session_token": options.session_token,
            "config": AioConfig(
                retries={"total_max_attempts": 1},
                # We bring our own, and compare what we read by SHA-256.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={
                    "addressing_style": options.addressing_style,
                    # TLS keeps a body whole as well; hashing it here would block the loop.
                    "payload_signing_enabled": not options.is_encrypted,
                },
            ),
        }

    def sender(self) -> Sender:
        """It belongs to the running loop, as its connections do."""
        return Sender(
            context=self._context, max_connections=self._options.max_connections, proxy=self._proxy
        )

    async def requests(self, sender: Sender) -> Requests:
        """Requests of a client that leaves the sending to *sender*."""
        with reading():
            client = await self._session.create_client("s3", **self._arguments()).__aenter__()
        client.meta.events.register_first("before-send.s3", sender.send)
        client.meta.events.register_first("needs-retry.s3", _never_again)
        return Requests(client, sender)


class _Found:
    """In place of the driver's search for credentials, which reads files on the loop."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = None if credentials is None else _FoundCredentials(credentials)

    async def load_credentials(self) -> AioCredentials | None:
        return self._credentials


class _FoundCredentials(AioCredentials):  # type: ignore[misc]
    """Credentials of the driver's blocking half, which are renewed in a thread."""

    def __init__(self, source: Credentials) -> None:
        now = source.get_frozen_credentials()
        super().__init__(now.access_key, now.secret_key, now.token)
        self._source = source

    async def get_frozen_credentials(self) -> Any:
        source = self._source
        if isinstance(source, RefreshableCredentials) and source.refresh_needed():
            return await asyncio.to_thread(source.get_frozen_credentials)
        return source.get_frozen_credentials()


def _never_again(
    response: tuple[Any, Any] | None, caught_exception: Exception | None, operation: Any, **_: Any
) -> None:
    """Keep the driver from trying again, and from following a bucket to another region."""
    if caught_exception is not None:
        raise caught_exception
    if response is not None and response[0].status_code >= 300:
        raise ClientError(response[1], operation.name)


@functools.cache
def _ssl_context(ca_file: str) -> ssl.SSLContext:
    """One for each process: reading the authorities takes 20 ms."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise ConfigError(f"ca_file cannot be read: {exc.strerror or exc}") from exc
