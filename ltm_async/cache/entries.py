"""A cached result as an entry: its value as it is, and beside it what the cache needs to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from ..clock import system_clock
from ..entry import encode_metadata, to_datetime
from ..errors import InvalidEntryError
from ..frozen import frozen
from ..results import Failure, Result, RetrieveResult

ACTION = "_cache_action"
"""In the metadata of every entry that a cache wrote: the action's name."""
CREATED_AT = "_cache_created_at"
TOOK_S = "_cache_took_s"
FAILURE = "_cache_failure"
_RESERVED = "_cache_"
MAX_ERROR_CHARACTERS = 1_000
_ROOM = {ACTION: "x" * 256, CREATED_AT: "x" * 40, TOOK_S: 1e-10}


def now_text() -> str:
    """Now, as ISO 8601 in UTC; for people, since it is this process's clock."""
    return to_datetime(system_clock()).isoformat()


def check_user_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """The user's own part, with room left for the cache's.

    Raises:
        InvalidEntryError: It is no JSON object, too large, or uses a name of the cache's.
    """
    if metadata is None:
        return {}
    encode_metadata(metadata)
    own = [name for name in metadata if name.startswith(_RESERVED)]
    if own:
        raise InvalidEntryError(f"metadata has {own[0][:60]!r}; names in _cache_ are the cache's")
    encode_metadata({**metadata, **_ROOM})
    return dict(metadata)


def metadata_of(
    user: Mapping[str, Any], action: str, created_at: str, took_s: float, failure: Failure | None
) -> dict[str, Any]:
    ours: dict[str, Any] = {ACTION: action, CREATED_AT: created_at, TOOK_S: round(took_s, 6)}
    if failure is not None:
        ours[FAILURE] = failure._asdict()
    return {**user, **ours}


def failure_of(exc: Exception) -> Failure:
    text = str(exc)[:MAX_ERROR_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return Failure(text.encode("utf-8", "replace").decode(), type(exc).__name__)


class Found(NamedTuple):
    """An entry of the cache that a lookup has found."""

    hit: RetrieveResult

    @property
    def usable(self) -> bool:
        """The catalog gave it; else it is what this process remembers while the catalog is down."""
        return self.hit.success

    @property
    def age_s(self) -> float:
        """Since it was written: the catalog's instant, by this process's clock."""
        written_us = self.hit.row.updated_at if self.hit.row is not None else 0
        return max(0.0, (system_clock() - written_us) / 1e6)

    @property
    def took_s(self) -> float:
        """How long the action took."""
        took_s = self.hit.metadata.get(TOOK_S)
        return took_s if isinstance(took_s, float) else 0.0

    @property
    def created_at(self) -> str | None:
        return created_at_of(self.hit.metadata, self.hit.updated_at)

    @property
    def failure(self) -> Failure | None:
        """The failure of the action that is remembered here instead of a result."""
        return failure_in(self.hit.metadata)


def created_at_of(metadata: Mapping[str, Any], written: datetime | None) -> str | None:
    """When the result was made; for an entry that no cache wrote, when it was written."""
    text = metadata.get(CREATED_AT)
    if isinstance(text, str):
        return text
    return None if written is None else written.isoformat()


def failure_in(metadata: Mapping[str, Any]) -> Failure | None:
    held = metadata.get(FAILURE)
    if not isinstance(held, Mapping):
        return None
    return Failure(str(held.get("error", "")), str(held.get("error_type", "")))


@frozen
class CacheEntry(Result):
    """What :meth:`Cache.get` found. ``found`` with a value of None is a cached null."""

    FIELDS: ClassVar = (
        "found",
        "key",
        "value",
        "action",
        "created_at",
        "expires_at",
        "metadata",
        "failure",
    )

    key: str
    found: bool = False
    value: Any = None
    action: str | None = None
    """The name of the action; None also where no cache wrote the entry."""
    created_at: str | None = None
    """ISO 8601, by the clock of the process that made it."""
    expires_at: datetime | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The user's own."""
    failure: Failure | None = None
    """The failure that is remembered here instead of a result."""

    @classmethod
    def of(cls, hit: RetrieveResult) -> CacheEntry:
        if not hit.found:
            return cls(key=hit.key, exception=hit.exception)
        action = hit.metadata.get(ACTION)
        return cls(
            key=hit.key,
            found=True,
            value=hit.value,
            action=action if isinstance(action, str) else None,
            created_at=created_at_of(hit.metadata, hit.updated_at),
            expires_at=hit.expires_at,
            metadata={
                name: value
                for name, value in hit.metadata.items()
                if not name.startswith(_RESERVED)
            },
            failure=failure_in(hit.metadata),
            exception=hit.exception,
        )


@frozen
class InvalidateResult(Result):
    """What :meth:`Cache.invalidate` did."""

    FIELDS: ClassVar = ("deleted", "errors")

    deleted: int = 0
    """Entries that were there, and are not any more."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Entries that could not be deleted, or not be looked at, and why."""
