"""The three requests that are made of Firestore: read some, commit some, look up a range."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions as google
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.firestore_v1.base_query import FieldFilter

from ...deadline import remaining_s
from ...errors import (
    AccessDeniedError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)
from .changes import Changes, Found, StaleError, Usage
from .layout import Document, Range

if TYPE_CHECKING:
    from google.cloud.firestore_v1 import AsyncClient

NAME = "firestore"
LONGEST_S = 60.0
"""For a request in a call without a deadline."""


_DONE_NOTHING = (google.FailedPrecondition, google.NotFound, google.AlreadyExists)
_LOST = (
    google.ServiceUnavailable,
    google.DeadlineExceeded,
    google.Cancelled,
    google.Unknown,
    google.InternalServerError,
)
"""The request may have been carried out all the same."""


@contextlib.contextmanager
def answering(unexpected: type[Exception]) -> Iterator[None]:
    """Raise what went wrong with a request as ours.

    *unexpected* is for a document that is not as a request expects it.
    """
    try:
        yield
    except _DONE_NOTHING as exc:
        raise unexpected(f"{NAME}: {_text(exc)}") from exc
    except google.ResourceExhausted as exc:
        raise RateLimitedError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    except google.Aborted as exc:
        raise UnavailableError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    except _LOST as exc:
        raise OutcomeUnknownError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    except (google.PermissionDenied, google.Unauthenticated) as exc:
        raise AccessDeniedError(f"{NAME}: {_text(exc)}", store=NAME) from exc
    except google.GoogleAPICallError as exc:
        # Other texts may quote what was sent.
        raise StoreError(f"{NAME}: refused as {type(exc).__name__}", store=NAME) from None
    except TransportError as exc:
        raise UnavailableError(f"{NAME}: no credentials could be fetched", store=NAME) from exc
    except GoogleAuthError as exc:
        raise AccessDeniedError(f"{NAME}: no usable credentials", store=NAME) from exc


def _text(exc: google.GoogleAPICallError) -> str:
    return f"{type(exc).__name__} {exc.message}"


class Documents:
    """The documents of one project and database, in collections that begin with *prefix*."""

    def __init__(self, client: AsyncClient, prefix: str, usage: Usage) -> None:
        self._client = client
        self._prefix = prefix
        self._usage = usage

    async def read(
        self, names: Mapping[str, Iterable[str]], *, fields: Sequence[str] | None = None
    ) -> Found:
        """Those of *names*, by collection, that are there; one request, of one name at least."""
        references = [
            self._client.collection(self._prefix + collection).document(name)
            for collection, wanted in names.items()
            for name in wanted
        ]
        self._usage.requests += 1
        self._usage.reads += len(references)
        found: dict[str, Document] = {}
        now_us = 0
        with answering(StoreError):
            async for snapshot in self._client.get_all(
                references, field_paths=fields, retry=None, timeout=_timeout_s()
            ):
                now_us = to_us(snapshot.read_time)
                if snapshot.exists:
                    found[snapshot.id] = _document(snapshot)
        return Found(found, now_us)

    async def commit(self, changes: Changes) -> int:
        """All of *changes* or none; the version that changed documents have from now on.

        Raises:
            StaleError: A document was not as expected.
        """
        batch = self._client.batch()
        changes.fill(batch, self._client, self._prefix)
        self._usage.requests += 1
        with answering(StaleError):
            await batch.commit(retry=None, timeout=_timeout_s())
        changes.counted(self._usage)
        return to_us(batch.commit_time)

    async def query(
        self, collection: str, within: Range, *, limit: int | None, fields: Sequence[str] = ()
    ) -> Found:
        """Up to *limit* documents of a range, in the order of its field, with these *fields*."""
        query = (
            self._client.collection(self._prefix + collection)
            .where(filter=FieldFilter(within.field, ">=", within.low))
            .where(filter=FieldFilter(within.field, "<", within.high))
            .order_by(within.field)
        )
        if limit is not None:
            query = query.limit(limit)
        if fields:
            query = query.select(fields)
        self._usage.requests += 1
        found: dict[str, Document] = {}
        now_us = 0
        with answering(StoreError):
            for snapshot in await query.get(retry=None, timeout=_timeout_s()):
                now_us = to_us(snapshot.read_time)
                found[snapshot.id] = _document(snapshot)
        self._usage.reads += max(1, len(found))
        return Found(found, now_us)


def _document(snapshot: Any) -> Document:
    return Document(
        snapshot.id, snapshot.to_dict(), snapshot.update_time, to_us(snapshot.update_time)
    )


def to_us(moment: Any) -> int:
    stamp = moment.timestamp_pb()
    return int(stamp.seconds * 1_000_000 + stamp.nanos // 1_000)


def _timeout_s() -> float:
    """The server is told to give up, too."""
    remaining = remaining_s()
    return LONGEST_S if remaining is None else max(0.001, min(remaining, LONGEST_S))
