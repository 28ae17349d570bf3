"""What a failure of PostgreSQL means: refused, not reached, or not known."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from typing import NoReturn

import asyncpg

from ...errors import OutcomeUnknownError, StoreError, UnavailableError
from ...sqlstates import CONFLICT, RESTORED, conflict, expired, lacks_schema, meaning

NAME = "postgres"


CONNECTING = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
COMMANDING = (*CONNECTING, asyncpg.InternalClientError)
"""What may go wrong meanwhile; a TimeoutError and an SSLError are an OSError."""


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Raise what went wrong before anything was sent as ours."""
    try:
        yield
    except CONNECTING as exc:
        not_connected(exc)


def not_connected(exc: Exception) -> NoReturn:
    """Raise *exc*, one of ``CONNECTING``, as ours: nothing was sent."""
    if isinstance(exc, asyncpg.PostgresError):
        _refuse(exc, UnavailableError)
    if isinstance(exc, ssl.SSLError):
        raise StoreError(f"{NAME}: no trusted TLS connection: {exc}", store=NAME) from exc
    raise UnavailableError(f"{NAME}: {_text(exc)}", store=NAME) from exc


def not_answered(
    exc: Exception, keys: Sequence[str], versions: Sequence[int | None] = ()
) -> NoReturn:
    """Raise *exc*, one of ``COMMANDING``, as ours; *keys* as they were sent, for a conflict."""
    if isinstance(exc, asyncpg.PostgresError):
        if exc.sqlstate == CONFLICT:
            raise conflict(exc.detail, keys, versions) from exc
        if (ended := expired(exc.sqlstate)) is not None:
            raise ended from exc
        _refuse(exc, OutcomeUnknownError)
    if isinstance(exc, asyncpg.InterfaceError):  # asyncpg would not send it
        raise UnavailableError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    raise OutcomeUnknownError(f"{NAME}: {_text(exc)}", store=NAME) from exc


def _refuse(exc: asyncpg.PostgresError, broken: type[StoreError]) -> NoReturn:
    """Raise the server's answer as ours, or *broken* where the connection broke."""
    state = exc.sqlstate or "08"
    ours = meaning(state)
    if ours is OutcomeUnknownError:
        ours = broken
    if ours is not StoreError:
        raise ours(f"{NAME}: {_text(exc)}", store=NAME) from exc
    if lacks_schema(state):
        raise StoreError(
            f"{NAME}: the catalog's tables and functions are not there, or not this release's: "
            "`ltm schema postgres` prints what to run",
            store=NAME,
        ) from exc
    if state == RESTORED:
        raise StoreError(
            f"{NAME}: the catalog was restored from another cluster: run what `ltm schema "
            "postgres` prints, and begin from the beginning",
            store=NAME,
        ) from exc
    # Other texts quote what was sent, down to whole rows: the number has to do.
    raise StoreError(f"{NAME}: refused with SQLSTATE {state}", store=NAME) from None


def _text(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
