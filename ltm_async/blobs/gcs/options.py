"""Where a GCS blob store is and how it is reached, checked before any I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ...buckets import check_endpoint, check_gcs_bucket, is_printable, split_uri
from ...entry import shown
from ...errors import ConfigError

GOOGLE = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
"""The variable that Google's own clients read: an address, with or without ``http://``."""
EMULATOR_TOKEN = "STORAGE_EMULATOR_TOKEN"  # noqa: S105  # its name
CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
MAX_CONNECTIONS = 1_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that tells one client from another; see :class:`~.store.GCSBlobStore` for each."""

    endpoint_url: str
    is_google: bool
    service_file: str | None
    """From the environment where none was given."""
    token: str | None = dataclasses.field(repr=False)
    max_connections: int

    @property
    def has_google_credentials(self) -> bool:
        """They are sent to Google, or where a file of them was given for."""
        return self.is_google or self.service_file is not None


def check_location(uri: object) -> tuple[str, str]:
    """The bucket and the prefix, which is empty or ends in a slash, of ``gs://bucket/prefix/``."""
    bucket, prefix = split_uri(uri, "gs")
    check_gcs_bucket(bucket)
    return bucket, prefix


def check_options(
    *,
    endpoint_url: object,
    service_file: object,
    token: object,
    max_connections: object,
    allow_http: object,
    environ: Mapping[str, str],
) -> Options:
    """The options of a client, or ConfigError naming the one that cannot be used."""
    if not isinstance(allow_http, bool):
        raise ConfigError(f"allow_http must be True or False, not {shown(allow_http)}")
    if type(max_connections) is not int:
        raise ConfigError(f"max_connections must be int, not {type(max_connections).__name__}")
    if not 1 <= max_connections <= MAX_CONNECTIONS:
        raise ConfigError(
            f"max_connections is {shown(max_connections)}, it must be 1 to {MAX_CONNECTIONS}"
        )
    file, secret = _text("service_file", service_file), _text("token", token)
    url, host = _endpoint(_text("endpoint_url", endpoint_url), environ, allow_http=allow_http)
    is_google = url.startswith("https:") and f".{host}".endswith(".googleapis.com")
    if secret is not None and (is_google or file is not None):
        raise ConfigError(
            "token is for an endpoint_url other than Google's, and goes without a service_file"
        )
    if is_google:
        file = file or environ.get(CREDENTIALS) or None
    elif file is None:
        secret = secret or environ.get(EMULATOR_TOKEN) or None
    if secret is not None and not is_printable(secret):
        raise ConfigError("token has a space or a character that is not ASCII")
    return Options(
        endpoint_url=url,
        is_google=is_google,
        service_file=file,
        token=secret,
        max_connections=max_connections,
    )


def _endpoint(
    given: str | None, environ: Mapping[str, str], *, allow_http: bool
) -> tuple[str, str]:
    """The URL of the server, and its host."""
    name, url = "endpoint_url", given
    if url is None:
        name, url = EMULATOR, environ.get(EMULATOR) or GOOGLE
        url = url if "://" in url else f"http://{url}"
    return url.rstrip("/"), check_endpoint(name, url, allow_http=allow_http)


def _text(name: str, value: object) -> str | None:
    """The message does not repeat it: it may be a secret."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    if not value or "\0" in value:
        raise ConfigError(f"{name} is empty or has a NUL")
    return value
