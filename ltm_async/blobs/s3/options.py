"""Where an S3 blob store is and how it is reached, checked before any I/O."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from ...buckets import check_s3_bucket
from ...entry import shown
from ...errors import ConfigError

MAX_PREFIX_BYTES = 512
"""Of the 1,024 that a key may have."""
MAX_CONNECTIONS = 1_000

_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that tells one client from another; see :class:`~.store.S3BlobStore` for each."""

    endpoint_url: str | None
    region: str | None
    addressing_style: Literal["path", "virtual", "auto"]
    access_key_id: str | None = dataclasses.field(repr=False)
    secret_access_key: str | None = dataclasses.field(repr=False)
    session_token: str | None = dataclasses.field(repr=False)
    ca_file: str | None
    allow_http: bool
    max_connections: int

    @property
    def is_encrypted(self) -> bool:
        return self.endpoint_url is None or self.endpoint_url.startswith("https:")


def check_location(uri: object) -> tuple[str, str]:
    """The bucket and the prefix, which is empty or ends in a slash, of ``s3://bucket/prefix/``.

    A message repeats no part of *uri*, which may hold a secret where none belongs.
    """
    if not isinstance(uri, str):
        raise ConfigError(f"uri must be text like s3://bucket/prefix/, not {type(uri).__name__}")
    scheme, separator, location = uri.partition("://")
    if scheme != "s3" or not separator:
        raise ConfigError("uri must start with s3://")
    bucket, _, prefix = location.partition("/")
    check_s3_bucket(bucket)
    if not prefix:
        return bucket, ""
    prefix = prefix.removesuffix("/") + "/"
    _check_prefix(prefix)
    return bucket, prefix


def _check_prefix(prefix: str) -> None:
    if not prefix.isprintable():
        raise ConfigError("uri has a character in its prefix that cannot be printed")
    if any(part in ("", ".", "..") for part in prefix[:-1].split("/")):
        raise ConfigError("uri has an empty part, '.' or '..' in its prefix")
    if "?" in prefix or "#" in prefix:
        raise ConfigError("uri has '?' or '#' in its prefix; options are arguments of their own")
    if len(prefix.encode()) > MAX_PREFIX_BYTES:
        raise ConfigError(f"uri has a prefix of over {MAX_PREFIX_BYTES} bytes")


def check_options(
    *,
    endpoint_url: object,
    region: object,
    path_style: object,
    access_key_id: object,
    secret_access_key: object,
    session_token: object,
    ca_file: object,
    allow_http: object,
    max_connections: object,
) -> Options:
    """The options of a client, or ConfigError naming the one that cannot be used."""
    if path_style is not None:
        check_bool("path_style", path_style)
    check_bool("allow_http", allow_http)
    if type(max_connections) is not int:
        raise ConfigError(f"max_connections must be int, not {type(max_connections).__name__}")
    if not 1 <= max_connections <= MAX_CONNECTIONS:
        raise ConfigError(
            f"max_connections is {shown(max_connections)}, it must be 1 to {MAX_CONNECTIONS}"
        )
    endpoint = _text("endpoint_url", endpoint_url)
    if endpoint is not None:
        check_endpoint(endpoint, allow_http=bool(allow_http))
    name = _text("region", region)
    if name is not None and not _REGION.fullmatch(name):
        raise ConfigError("region must be a name like eu-west-1")
    keys = _credentials(access_key_id, secret_access_key, session_token)
    return Options(
        endpoint_url=endpoint.rstrip("/") if endpoint is not None else None,
        region=name,
        addressing_style=_addressing_style(endpoint, path_style),
        access_key_id=keys[0],
        secret_access_key=keys[1],
        session_token=keys[2],
        ca_file=_text("ca_file", ca_file),
        allow_http=bool(allow_http),
        max_connections=max_connections,
    )


def check_endpoint(url: str, *, allow_http: bool) -> None:
    """Refuse what is no address of a server, and an unencrypted one that others could read."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for one that is none
    except ValueError:
        raise ConfigError("endpoint_url is no URL like https://host:port") from None
    if parts.scheme not in ("http", "https") or not _is_host(parts):
        raise ConfigError("endpoint_url must be a URL like https://host:port, without credentials")
    if parts.query or parts.fragment:
        raise ConfigError("endpoint_url takes neither a query nor a fragment")
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname or ""):
        raise ConfigError(
            "endpoint_url is http, so anyone on the way could read and change values; take "
            "https, or pass allow_http=True"
        )


def _is_host(parts: SplitResult) -> bool:
    host = parts.netloc
    if parts.port is not None:
        host = host.rpartition(":")[0]
    return _HOST.fullmatch(host.removesuffix(":")) is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _addressing_style(
    endpoint: str | None, path_style: object
) -> Literal["path", "virtual", "auto"]:
    """As the driver calls them; *auto* is what suits the bucket's name on AWS."""
    if path_style is not None:
        return "path" if path_style else "virtual"
    if endpoint is None:
        return "auto"
    host = urlsplit(endpoint).hostname or ""
    is_amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return "auto" if is_amazon else "path"  # others' buckets rarely have a host name each


def _credentials(
    access_key_id: object, secret_access_key: object, session_token: object
) -> tuple[str | None, str | None, str | None]:
    key_id = _text("access_key_id", access_key_id)
    secret = _text("secret_access_key", secret_access_key)
    token = _text("session_token", session_token)
    if (key_id is None) != (secret is None):
        raise ConfigError("access_key_id and secret_access_key go together; one is missing")
    if token is not None and key_id is None:
        raise ConfigError("session_token needs access_key_id and secret_access_key")
    return key_id, secret, token


def _text(name: str, value: object) -> str | None:
    """Text that can stand in a header; the message does not repeat it, it may be a secret."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    if name == "ca_file" and value and "\0" not in value:
        return value
    if not _PRINTABLE.fullmatch(value):
        raise ConfigError(f"{name} is empty, or has a space or a character that is not ASCII")
    return value


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {shown(value)}")
