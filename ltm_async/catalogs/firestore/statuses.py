"""What a status of gRPC means, whichever transport it came by."""

from __future__ import annotations

from typing import NoReturn

from ...errors import (
    AccessDeniedError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)

NAME = "firestore"

_DONE_NOTHING = {"FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS"}
_MEANINGS: dict[str, type[StoreError]] = {
    "RESOURCE_EXHAUSTED": RateLimitedError,
    "ABORTED": UnavailableError,
    "PERMISSION_DENIED": AccessDeniedError,
    "UNAUTHENTICATED": AccessDeniedError,
    # The request may have been carried out all the same.
    "UNAVAILABLE": OutcomeUnknownError,
    "DEADLINE_EXCEEDED": OutcomeUnknownError,
    "CANCELLED": OutcomeUnknownError,
    "UNKNOWN": OutcomeUnknownError,
    "INTERNAL": OutcomeUnknownError,
}


def refused(status: str, text: str, cause: Exception, *, unexpected: type[Exception]) -> NoReturn:
    """Raise what a request that ended with *status* means.

    *unexpected* is for a document that is not as the request expects it.
    """
    if status in _DONE_NOTHING:
        raise unexpected(f"{NAME}: {status}: {text}") from cause
    meaning = _MEANINGS.get(status)
    if meaning is not None:
        raise meaning(f"{NAME}: {status}: {text}", store=NAME) from cause
    # Other texts may quote what was sent.
    raise StoreError(f"{NAME}: refused as {status}", store=NAME) from None
