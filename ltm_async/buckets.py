"""Where in a bucket objects are, and at whose server: checked before any I/O.

No message repeats a part of what was given, which may hold a secret where none belongs.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from .errors import ConfigError
from .hosts import is_loopback

MAX_PREFIX_BYTES = 512
"""Of the 1,024 that an object's name may have."""

_S3_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_GCS_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_LIKE_AN_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


def split_uri(uri: object, scheme: str) -> tuple[str, str]:
    """The bucket, unchecked, and the prefix, empty or ending in a slash, of *uri*."""
    if not isinstance(uri, str):
        raise ConfigError(
            f"uri must be text like {scheme}://bucket/prefix/, not {type(uri).__name__}"
        )
    given, separator, location = uri.partition("://")
    if given != scheme or not separator:
        raise ConfigError(f"uri must start with {scheme}://")
    bucket, _, prefix = location.partition("/")
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


def check_s3_bucket(bucket: str) -> None:
    """Refuse what is no bucket's name in S3."""
    if "@" in bucket:
        raise ConfigError("uri takes no credentials; give access_key_id and secret_access_key")
    if not _S3_BUCKET.fullmatch(bucket) or ".." in bucket or _LIKE_AN_IPV4.fullmatch(bucket):
        raise ConfigError(
            "uri has no valid bucket: 3 to 63 lower-case letters, digits, dots and hyphens, a "
            "letter or digit first and last, no two dots together and no IP address"
        )


def check_gcs_bucket(bucket: str) -> None:
    """Refuse what is no bucket's name in Google Cloud Storage."""
    parts = bucket.split(".")
    if (
        not _GCS_BUCKET.fullmatch(bucket)
        or not all(0 < len(part) <= 63 for part in parts)
        or _LIKE_AN_IPV4.fullmatch(bucket)
    ):
        raise ConfigError(
            "uri has no valid bucket: 3 to 63 lower-case letters, digits, '-' and '_', a letter "
            "or digit first and last; or several such names with dots between them, up to 222"
        )


def check_endpoint(name: str, url: str, *, allow_http: bool) -> str:
    """The host of *url*, which is refused where others could read what is sent.

    *name* is that of the argument or variable it came from.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for one that is none
    except ValueError:
        raise ConfigError(f"{name} is no URL like https://host:port") from None
    if parts.scheme not in ("http", "https") or not _is_host(parts) or not is_printable(url):
        raise ConfigError(f"{name} must be a URL like https://host:port, without credentials")
    if parts.query or parts.fragment:
        raise ConfigError(f"{name} takes neither a query nor a fragment")
    host = parts.hostname or ""
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ConfigError(
            f"{name} is http, so anyone on the way could read and change values; take https, or "
            "pass allow_http=True"
        )
    return host


def _is_host(parts: SplitResult) -> bool:
    host = parts.netloc
    if parts.port is not None:
        host = host.rpartition(":")[0]
    return _HOST.fullmatch(host.removesuffix(":")) is not None


def is_printable(text: str) -> bool:
    """All of it can stand in a header: ASCII without spaces, and not nothing."""
    return _PRINTABLE.fullmatch(text) is not None
