"""What a client of any of the three clouds is made of, and what their options have in common."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

from ...buckets import check_endpoint, is_printable
from ...entry import shown
from ...errors import ConfigError

Cloud: TypeAlias = Literal["azure", "s3", "gcs"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that tells one client from another."""

    cloud: Cloud
    bucket: str
    """Or container."""
    endpoint_url: str
    """Where requests go: no other is taken from the environment."""
    settings: tuple[tuple[str, str | bool], ...] = dataclasses.field(repr=False)
    """The driver's own, without what it finds in the environment by itself."""
    ca_file: str | None


def settings(**given: str | bool | None) -> tuple[tuple[str, str | bool], ...]:
    """Those that are not None."""
    return tuple((name, value) for name, value in given.items() if value is not None)


def endpoint(name: str, url: str, *, allow_http: object) -> tuple[str, str]:
    """The URL of the server, checked, and its host."""
    check_bool("allow_http", allow_http)
    return url.rstrip("/"), check_endpoint(name, url, allow_http=bool(allow_http))


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {shown(value)}")


def text(name: str, value: object) -> str | None:
    """Text, or None; the message does not repeat it: it may be a secret."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not {type(value).__name__}")
    if not value or "\0" in value:
        raise ConfigError(f"{name} is empty or has a NUL")
    return value


def printable(name: str, value: object) -> str | None:
    """Text that can stand in a header, or None."""
    found = text(name, value)
    if found is not None and not is_printable(found):
        raise ConfigError(f"{name} has a space or a character that is not ASCII")
    return found
