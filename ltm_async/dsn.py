"""Where the database is: its URL, checked before it is used and shown without its password."""

from __future__ import annotations

import dataclasses
import os
from urllib.parse import parse_qs, unquote, urlsplit

from .errors import ConfigError
from .hosts import is_loopback


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A URL that has the form of one, and what may be said of it."""

    dsn: str = dataclasses.field(repr=False)
    shown: str
    """Without password and options."""
    hosts: tuple[str, ...]
    parameters: frozenset[str]
    """The names in its query."""

    @property
    def is_local(self) -> bool:
        """No byte leaves this machine; without a host, the environment names one or none."""
        hosts = self.hosts or tuple(filter(None, os.environ.get("PGHOST", "").split(",")))
        return all(map(is_loopback, hosts))

    @classmethod
    def of(cls, dsn: object) -> Address:
        """*dsn* itself is in no error's text: it may hold a password."""
        if not isinstance(dsn, str) or not dsn.startswith(("postgresql://", "postgres://")):
            raise ConfigError("a PostgreSQL URL begins with postgresql://")
        try:
            parts = urlsplit(dsn)
            query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ConfigError("the PostgreSQL URL cannot be parsed") from None
        if parts.fragment or "\0" in unquote(dsn):
            raise ConfigError("the PostgreSQL URL has a # or a NUL; write # in a password as %23")
        user, at, places = parts.netloc.rpartition("@")
        hosts = [_host(place) for place in places.split(",") if place]
        hosts += [host for value in query.get("host", []) for host in value.split(",")]
        name = unquote(user.partition(":")[0])
        # A path with an @ is an authority that went astray, as after a scheme that stands twice.
        path = "/…" if "@" in unquote(parts.path) else parts.path
        shown = f"postgresql://{name}{at}{places}{path}"
        return cls(dsn, shown, tuple(filter(None, hosts)), frozenset(query))


def _host(place: str) -> str:
    """The host in ``host:port``, of which the port is checked."""
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, ""
    if colon and port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise ConfigError("the PostgreSQL URL has a port that is no number from 1 to 65535")
    return unquote(host).removeprefix("[").removesuffix("]")
