"""What a reply that is no result means: refused, not reached, or not known."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import httpx2

from ...errors import (
    AccessDeniedError,
    ConflictError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)
from ...sqlstates import CONFLICT, RESTORED, conflict, expired, lacks_schema, meaning
from .options import NAME

_NOT_DONE = {"PGRST000", "PGRST002", "PGRST003"}
"""No database, no schema cache yet, no free connection: so nothing was asked of the database."""
_BROKEN = {"PGRST001"}
_NOT_THERE = {"PGRST106", "PGRST202", "PGRST203"}
"""No such schema or function, as far as PostgREST has been told."""
_NO_TOKEN = "PGRST302"  # noqa: S105  # its code
_SQLSTATE_LENGTH = 5
_MOST_WORDS = 200

INSTALL = (
    f"{NAME}: the catalog's tables and functions are not there, or not this release's: run what "
    "`ltm schema supabase` prints, and expose its schema in the API settings"
)


class Reply(NamedTuple):
    """An answer that came whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@contextlib.contextmanager
def sending() -> Iterator[None]:
    """Raise what kept a whole answer away as ours."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as exc:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                raise StoreError(
                    f"{NAME}: no trusted TLS connection: {_text(cause)}", store=NAME
                ) from exc
            cause = cause.__cause__ or cause.__context__
        raise UnavailableError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    except (httpx2.HTTPError, OSError) as exc:
        raise OutcomeUnknownError(f"{NAME}: the reply was lost: {_text(exc)}", store=NAME) from exc


def result_of(reply: Reply, keys: Sequence[str], versions: Sequence[int | None]) -> Any:
    """What the function returned; *keys* and *versions* as they were sent, for a conflict."""
    if reply.status != 200:
        _refuse(reply, keys, versions)
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise OutcomeUnknownError(f"{NAME}: the reply is no JSON", store=NAME) from None


def _refuse(reply: Reply, keys: Sequence[str], versions: Sequence[int | None]) -> NoReturn:
    said = _said(reply.body)
    code = str(said.get("code") or "")
    if code == CONFLICT:
        raise _conflict(said.get("details"), keys, versions)
    if (ended := expired(code)) is not None:
        raise ended
    if reply.status == 401 or code == "42501":
        _deny(code, str(said.get("message") or ""))
    if code in _NOT_THERE or lacks_schema(code):
        raise StoreError(INSTALL, store=NAME)
    if code in _NOT_DONE:
        raise UnavailableError(f"{NAME}: {_words(said, code)}", store=NAME)
    if code in _BROKEN:
        raise OutcomeUnknownError(f"{NAME}: {_words(said, code)}", store=NAME)
    if len(code) == _SQLSTATE_LENGTH:
        ours = meaning(code)
        if ours is not StoreError:
            raise ours(f"{NAME}: {_words(said, code)}", store=NAME)
        if code == RESTORED:
            raise StoreError(
                f"{NAME}: the catalog was restored from another cluster: run what `ltm schema "
                "supabase` prints, and begin from the beginning",
                store=NAME,
            )
        # Other texts quote what was sent, down to whole rows: the number has to do.
        raise StoreError(f"{NAME}: refused with SQLSTATE {code}", store=NAME)
    _refuse_by_status(reply, code)


def _conflict(
    details: object, keys: Sequence[str], versions: Sequence[int | None]
) -> ConflictError | StoreError:
    try:
        return conflict(None if details is None else str(details), keys, versions)
    except (ValueError, LookupError):
        return StoreError(f"{NAME}: a conflict that is none of this catalog", store=NAME)


def _refuse_by_status(reply: Reply, code: str) -> NoReturn:
    """A gateway's answer, or one of PostgREST's that asks for no reaction of its own."""
    if reply.status == 429:
        raise RateLimitedError(
            f"{NAME}: throttled", store=NAME, retry_after_s=_seconds(reply.headers)
        )
    if reply.status == 403:
        raise AccessDeniedError(f"{NAME}: refused with HTTP status 403", store=NAME)
    named = f"HTTP status {reply.status}" + (f" and {code[:20]}" if code else "")
    if reply.status >= 500 or reply.status == 408 or reply.status < 300:
        raise OutcomeUnknownError(f"{NAME}: answered with {named}", store=NAME)
    raise StoreError(f"{NAME}: refused with {named}", store=NAME)


def _deny(code: str, message: str) -> NoReturn:
    if code == "42501":
        raise AccessDeniedError(
            f"{NAME}: not permitted: the namespace is not this user's, or the request was made "
            "without a user's access_token",
            store=NAME,
        )
    if "expired" in message:
        raise AccessDeniedError(f"{NAME}: the access token has expired", store=NAME)
    if code.startswith("PGRST3") and code != _NO_TOKEN:
        raise AccessDeniedError(
            f"{NAME}: the access token was refused: it is not one of this project's", store=NAME
        )
    raise AccessDeniedError(f"{NAME}: the key or the access token was refused", store=NAME)


def _said(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _words(said: Mapping[str, Any], code: str) -> str:
    return f"{str(said.get('message') or 'refused')[:_MOST_WORDS]} ({code})"


def _seconds(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    return float(text[:9]) if text.isascii() and text.isdigit() else None


def _text(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
