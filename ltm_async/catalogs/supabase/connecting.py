"""A client for the running loop, whose driver is imported beside it: that takes 60 ms."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Literal, NamedTuple

from ...errors import ConfigError, MissingDriverError, StoreError
from ...schema import VERSION
from ...tls import default_context
from ...transfer import both
from ...worker import aside
from .options import NAME, ClientKey

if TYPE_CHECKING:
    import ssl

    from .client import Client

CLOSE_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


async def connect(key: ClientKey) -> Client:
    """A client whose server has this release's functions; it warns if rows are not kept apart."""
    await both(tls_of(key), aside(_load))  # both keep what they have made
    client = _load()(key, await tls_of(key))
    try:
        await _check(client, key)
    except BaseException:
        await close(client)
        raise
    return client


async def close(client: Client) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.aclose()


async def tls_of(key: ClientKey) -> ssl.SSLContext | Literal[False]:
    """Verified, unless no byte leaves the machine: reading certificates takes 20 ms."""
    return await default_context() if key.rest_url.startswith("https:") else False


class Isolation(NamedTuple):
    """What keeps the users of a role apart."""

    role: str
    open_tables: str
    """Names of those in which they see rows of each other, with commas; empty for none."""


async def isolation(client: Client) -> Isolation:
    _, found = await _look(client)
    return found


async def _look(client: Client) -> tuple[int, Isolation]:
    """The version of the schema, and what keeps users apart in it."""
    found = await client.call("ltm_check", {})
    try:
        return int(found["version"]), Isolation(found["role"], ", ".join(found["open"]))
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"{NAME}: what answers there is no catalog", store=NAME) from None


async def _check(client: Client, key: ClientKey) -> None:
    version, (role, open_tables) = await _look(client)
    if version > VERSION:
        raise ConfigError(
            f"the catalog has schema version {version}, this release knows up to {VERSION}: "
            "upgrade ltm-async"
        )
    if version < VERSION:
        raise StoreError(
            f"{NAME}: the catalog has schema version {version}, this release needs {VERSION}: run "
            "what `ltm schema supabase` prints",
            store=NAME,
        )
    if open_tables and not key.service_role:
        logger.warning(
            "%s: row-level security does not keep the users of role %s apart in %s: run what "
            "`ltm schema supabase` prints, and look for policies and roles of others",
            NAME,
            role,
            open_tables,
        )


@functools.cache
def _load() -> type[Client]:
    """What makes clients; what one would import when it is made and used first is imported here."""
    try:
        import anyio
        import httpcore2  # noqa: F401

        from .client import Client
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="SupabaseCatalog", extra="supabase") from exc
    anyio.run(anyio.sleep, 0)
    return Client
