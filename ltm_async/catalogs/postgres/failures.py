"""What a failure of PostgreSQL means: refused, not reached, or not known."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from typing import NoReturn

import asyncpg

from ...errors import (
    AccessDeniedError,
    ConflictError,
    FencedError,
    OutcomeUnknownError,
    StoreError,
    UnavailableError,
    WatermarkExpiredError,
)

NAME = "postgres"
CONFLICT = "LT001"
FENCED = "LT002"
PRUNED = "LT004"
FOREIGN = "LT005"
RESTORED = "LT006"

_UNAVAILABLE = ("40001", "40P01", "53", "55", "57014", "57P03", "25006")
"""Serialization, deadlock, resources, locks, a cancelled statement, starting up, read-only."""
_UNKNOWN = ("08", "57P01", "57P02")
"""The connection broke, or the server went down, which it may have done after committing."""
_DENIED = ("28", "42501")
_NO_SCHEMA = ("42P01", "42883", "3F000")


@contextlib.contextmanager
def connecting() -> Iterator[None]:
    """Raise what went wrong before anything was sent as ours."""
    try:
        yield
    except asyncpg.PostgresError as exc:
        _refuse(exc, UnavailableError)
    except ssl.SSLError as exc:
        raise StoreError(f"{NAME}: no trusted TLS connection: {exc}", store=NAME) from exc
    except (asyncpg.InterfaceError, OSError) as exc:  # a TimeoutError is an OSError
        raise UnavailableError(f"{NAME}: {_text(exc)}", store=NAME) from exc


@contextlib.contextmanager
def commanding(keys: Sequence[str], versions: Sequence[int | None] = ()) -> Iterator[None]:
    """Raise what went wrong with a command as ours; *keys* as they were sent, for a conflict."""
    try:
        yield
    except asyncpg.PostgresError as exc:
        if exc.sqlstate == CONFLICT:
            raise _conflict(exc, keys, versions) from exc
        if exc.sqlstate == PRUNED:
            raise WatermarkExpiredError.pruned() from exc
        if exc.sqlstate == FOREIGN:
            raise WatermarkExpiredError.foreign() from exc
        _refuse(exc, OutcomeUnknownError)
    except asyncpg.InterfaceError as exc:  # asyncpg would not send it
        raise UnavailableError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    except (asyncpg.InternalClientError, OSError) as exc:
        raise OutcomeUnknownError(f"{NAME}: {_text(exc)}", store=NAME) from exc


def _refuse(exc: asyncpg.PostgresError, broken: type[StoreError]) -> NoReturn:
    """Raise the server's answer as ours, or *broken* where the connection broke."""
    state = exc.sqlstate or "08"
    for states, ours in (
        (_UNKNOWN, broken),
        (_UNAVAILABLE, UnavailableError),
        (_DENIED, AccessDeniedError),
        (FENCED, FencedError),
    ):
        if state.startswith(states):
            raise ours(f"{NAME}: {_text(exc)}", store=NAME) from exc
    if state in _NO_SCHEMA:
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


def _conflict(
    exc: asyncpg.PostgresError, keys: Sequence[str], versions: Sequence[int | None]
) -> ConflictError:
    place, found = map(int, (exc.detail or "1 0").split())
    return ConflictError.between(keys[place - 1], versions[place - 1] or 0, found or None)


def _text(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
