"""What may be said of a project and its credentials before any request is made."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from ...buckets import check_endpoint, is_printable
from ...errors import ConfigError
from ...schema import check_schema

AccessToken: TypeAlias = str | Callable[[], Awaitable[str]]
"""A user's JWT, or what gives one that is valid now."""

NAME = "supabase"
KEY_VARIABLE = "SUPABASE_KEY"
TOKEN_VARIABLE = "SUPABASE_USER_TOKEN"  # noqa: S105  # its name
SERVICE_KEY_VARIABLE = "SUPABASE_SERVICE_ROLE_KEY"
SERVICE_ROLE = "service_role"
_SECRET_KEY = "sb_secret_"  # noqa: S105  # how they begin
_REFERENCE = re.compile(r"[a-z0-9]{1,63}")
_REST_PATH = re.compile(r"(/[A-Za-z0-9_~-]+)+|/")


@dataclasses.dataclass(frozen=True, slots=True)
class ClientKey:
    """What makes two catalogs share a client."""

    rest_url: str
    schema: str
    key: str = dataclasses.field(repr=False)
    access_token: AccessToken | None = dataclasses.field(repr=False)
    service_role: bool
    max_connections: int


def check_options(
    url: object,
    *,
    key: object,
    access_token: object,
    schema: object,
    service_role: object,
    rest_path: object,
    max_connections: object,
    environ: Mapping[str, str],
) -> ClientKey:
    """The options of a client, or ConfigError naming the one that cannot be used."""
    if not isinstance(service_role, bool):
        raise ConfigError("service_role must be true or false")
    if type(max_connections) is not int or not 1 <= max_connections <= 1_000:
        raise ConfigError("max_connections must be a number from 1 to 1000")
    if not isinstance(rest_path, str) or not _REST_PATH.fullmatch(rest_path):
        raise ConfigError("rest_path must be like /rest/v1, or / for a PostgREST of one's own")
    check_schema(schema)
    root = _root(url)
    if key is None:
        variable = SERVICE_KEY_VARIABLE if service_role else KEY_VARIABLE
        key = environ.get(variable) or None
        if key is None:
            raise ConfigError(f"a Supabase project needs key, or {variable} in the environment")
    if access_token is None and not service_role:
        access_token = environ.get(TOKEN_VARIABLE) or None
    return ClientKey(
        root + rest_path.removesuffix("/"),
        str(schema),
        _checked_key(key, service_role=service_role),
        _checked_token(access_token, service_role=service_role),
        service_role,
        max_connections,
    )


def role_of(token: str) -> str | None:
    """Whom the server takes the bearer of *token* for, unverified; None when it does not say."""
    if token.startswith(_SECRET_KEY):
        return SERVICE_ROLE
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return None
    role = claims.get("role") if isinstance(claims, dict) else None
    return role if isinstance(role, str) else None


def is_jwt(key: str) -> bool:
    """Not so the keys that begin with ``sb_``, which are no bearer's."""
    return key.count(".") == 2


def _root(url: object) -> str:
    """``https://ref.supabase.co`` for ``supabase://ref``, or *url* itself, without a path."""
    if not isinstance(url, str):
        raise ConfigError(f"url must be text, not {type(url).__name__}")
    if url.startswith("supabase://"):
        reference = url.removeprefix("supabase://").removesuffix("/")
        if not _REFERENCE.fullmatch(reference):
            raise ConfigError("url must have the project's reference after supabase://")
        return f"https://{reference}.supabase.co"
    url = url.removesuffix("/")
    check_endpoint("url", url, allow_http=False)
    if urlsplit(url).path:
        raise ConfigError("url has a path; one that is not /rest/v1 is given as rest_path")
    return url


def _checked_key(key: object, *, service_role: bool) -> str:
    if not isinstance(key, str) or not is_printable(key):
        raise ConfigError("key must be text without spaces: the project's publishable or anon key")
    role = role_of(key)
    if role == SERVICE_ROLE and not service_role:
        raise ConfigError(
            "key is that of service_role, which sees the rows of every user: take the anon or "
            "publishable key and a user's access_token, or pass service_role=True"
        )
    if service_role and role not in (SERVICE_ROLE, None):
        raise ConfigError("service_role is true, but key is another role's")
    return key


def _checked_token(token: object, *, service_role: bool) -> AccessToken | None:
    if token is None:
        return None
    if service_role:
        raise ConfigError("access_token is a user's, and service_role sees the rows of every user")
    if callable(token):
        return token  # what it returns is checked each time
    if not isinstance(token, str) or not is_printable(token):
        raise ConfigError("access_token must be a JWT, or an async function that returns one")
    if role_of(token) == SERVICE_ROLE:
        raise ConfigError("access_token is that of service_role: pass it as key, by that name")
    return token
