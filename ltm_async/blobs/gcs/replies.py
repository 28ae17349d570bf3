"""What the server's answers, and their absence, mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType

import aiohttp

from ...clock import header_date_us
from ...errors import (
    AccessDeniedError,
    LTMError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)

MOST_WORDS = 200
"""Characters of a server's own message that are repeated in ours."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_THROTTLING = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_DAMAGED = "doesn't match calculated"
_CONTENT_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d{1,18})")


class RefusedError(Exception):
    """The server answered, and not with what it was asked for."""

    def __init__(self, status: int, reason: str, words: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{status} {words}")
        self.status = status
        self.reason = reason
        self.words = words
        self.headers = headers

    @classmethod
    def of(
        cls, status: int, headers: Mapping[str, str], body: bytes, *, secret: str | None
    ) -> RefusedError:
        """With the message of the API, or of a page in plain text, but never with *secret*."""
        reason, words = _read(body)
        if secret is not None:
            words = words.replace(secret, "…")
        return cls(status, reason, words[:MOST_WORDS], headers)


def _read(body: bytes) -> tuple[str, str]:
    """Reason and message; https://cloud.google.com/storage/docs/json_api/v1/status-codes."""
    text = body.decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        return str(error["errors"][0]["reason"]), str(error["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", "" if text.lstrip().startswith("<") else " ".join(text.split())


class Translating:
    """A context manager that raises whatever a request ends in as one of ours.

    Args:
        lost: What it means that there is no answer, or none that says what was done.
    """

    def __init__(self, lost: type[StoreError]) -> None:
        self._lost = lost

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        match exc:
            case RefusedError():
                raise self._meaning(exc) from exc
            case LTMError():
                if self._lost is not OutcomeUnknownError and isinstance(exc, OutcomeUnknownError):
                    raise self._lost(str(exc), store="gcs") from exc
            case ValueError() | RecursionError():
                raise self._lost("gcs: the reply is none of this API", store="gcs") from exc
            case aiohttp.ClientError() | OSError():  # in the middle of a body
                raise self._lost(
                    f"gcs: the reply was cut short: {in_words(exc)}", store="gcs"
                ) from exc

    def _meaning(self, exc: RefusedError) -> StoreError:
        what = f"gcs: {exc.status}: {exc.words}".removesuffix(": ")
        if exc.status < 400:
            return StoreError(
                f"gcs: {exc.status}: this endpoint sends its clients elsewhere", store="gcs"
            )
        if exc.status == 429 or exc.reason in _THROTTLING:
            return RateLimitedError(what, store="gcs", retry_after_s=_retry_after_s(exc.headers))
        if exc.status in (401, 403):
            return AccessDeniedError(what, store="gcs")
        if exc.status == 404:
            return StoreError(f"gcs: the bucket does not exist: {exc.words}", store="gcs")
        if exc.status in (408, 409) or _DAMAGED in exc.words:
            return UnavailableError(what, store="gcs")  # not received whole, or another at work
        if exc.status >= 500:
            return self._lost(what, store="gcs")
        return StoreError(what, store="gcs")


writing = Translating(OutcomeUnknownError)
reading = Translating(UnavailableError)
"""What is lost of a read had no effect, whenever it was lost."""


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The value of Retry-After, seconds or an instant by the server's clock; None if neither."""
    value = headers.get("Retry-After", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    until_us, now_us = header_date_us(value), header_date_us(headers.get("Date"))
    if until_us is None or now_us is None:
        return None
    return max(0.0, (until_us - now_us) / 1e6)


def created_us(value: str) -> int:
    """``timeCreated`` of an object.

    Raises:
        ValueError: It is no instant.
        TypeError: Its time zone is missing.
    """
    return (datetime.fromisoformat(value) - EPOCH) // timedelta(microseconds=1)


def whole_size(headers: Mapping[str, str]) -> int | None:
    """How large the object is of which a range was asked for, if the reply says so."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    return int(found[1]) if found else None


async def first(content: aiohttp.StreamReader, limit: int) -> bytes:
    """Up to *limit* bytes of a body."""
    pieces, missing = [], limit
    while missing > 0 and (piece := await content.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def in_words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
