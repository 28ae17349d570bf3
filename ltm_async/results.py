"""What the backend's methods return: frozen values with the documented field names.

``success`` is False only when a store failed; ``error`` and ``error_type`` then say why, and
``raise_for_error()`` raises it. Instants are aware datetimes in UTC. ``to_dict()`` gives the
documented fields as a plain dict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from .entry import to_datetime
from .errors import LTMError, OutcomeUnknownError, UnavailableError
from .frozen import Frozen, frozen
from .protocols import Row

if TYPE_CHECKING:
    from .snippets import Snippet


class Failure(NamedTuple):
    """Why one key of a batch failed."""

    error: str
    error_type: str
    """The name of a class of :mod:`ltm_async.errors`."""

    @classmethod
    def of(cls, exc: LTMError) -> Failure:
        return cls(str(exc), type(exc).__name__)


@frozen
class Result(Frozen):
    """What every result has."""

    FIELDS: ClassVar[tuple[str, ...]] = ()

    exception: LTMError | None = dataclasses.field(default=None, repr=False, compare=False)
    """Why it failed, or None."""

    @property
    def success(self) -> bool:
        return self.exception is None

    @property
    def error(self) -> str | None:
        return None if self.exception is None else str(self.exception)

    @property
    def error_type(self) -> str | None:
        return None if self.exception is None else type(self.exception).__name__

    @property
    def degraded(self) -> bool:
        """A store did not answer, so that this is less than it should be."""
        return isinstance(self.exception, (UnavailableError, OutcomeUnknownError))

    def raise_for_error(self) -> Self:
        """This result, or its exception if it failed."""
        if self.exception is not None:
            raise self.exception
        return self

    def to_dict(self) -> dict[str, Any]:
        names = ("success", *self.FIELDS, "degraded", "error", "error_type")
        return {
            name: getattr(self, name) if name in _AS_STORED else _plain(getattr(self, name))
            for name in names
        }


_AS_STORED = ("value", "metadata")
"""What the user stored is handed on as it is."""


def _plain(value: Any) -> Any:
    if isinstance(value, (Result, EntryInfo, ChangeInfo)):
        return value.to_dict()
    if hasattr(value, "_asdict"):  # a Failure or a Snippet
        return value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _instant(instant_us: int | None) -> datetime | None:
    return None if instant_us is None else to_datetime(instant_us)


@frozen
class StoreResult(Result):
    """What :meth:`LTMBackend.store` and :meth:`LTMBackend.update` did."""

    FIELDS: ClassVar = (
        "stored",
        "key",
        "content_hash",
        "inlined",
        "byte_size",
        "storage_uri",
        "deduplicated",
        "version",
        "expires_at",
        "durable",
    )

    key: str
    content_hash: str | None = None
    byte_size: int = 0
    inlined: bool = False
    storage_uri: str | None = None
    """Where the blob lies, for people; None when inlined or not stored."""
    deduplicated: bool = False
    """The live entry had this content already: nothing was uploaded, metadata and TTL are new."""
    version: int | None = None
    """For ``if_version``; None also when the commit's reply was lost and it has been replaced."""
    expires_at: datetime | None = None
    stored: bool = False

    @property
    def durable(self) -> bool:
        """Committed in the catalog."""
        return self.stored


@frozen
class RetrieveResult(Result):
    """What :meth:`LTMBackend.retrieve` found. ``found`` with a value of None is a stored null."""

    FIELDS: ClassVar = (
        "found",
        "key",
        "value",
        "content_hash",
        "byte_size",
        "metadata",
        "inlined",
        "version",
        "expires_at",
        "created_at",
        "updated_at",
        "source",
        "age_s",
    )

    key: str
    value: Any = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    row: Row | None = dataclasses.field(default=None, repr=False)
    age_s: float | None = None
    """How long ago this process last saw it; set when ``source`` is ``"fallback"``."""

    @property
    def found(self) -> bool:
        return self.row is not None

    @property
    def content_hash(self) -> str | None:
        return None if self.row is None else self.row.content_hash

    @property
    def byte_size(self) -> int | None:
        return None if self.row is None else self.row.byte_size

    @property
    def inlined(self) -> bool:
        return self.row is not None and self.row.blob_id is None

    @property
    def version(self) -> int | None:
        """For ``if_version``; None also for a value that was never committed."""
        return None if self.row is None else self.row.version or None

    @property
    def expires_at(self) -> datetime | None:
        return None if self.row is None else _instant(self.row.expires_at)

    @property
    def created_at(self) -> datetime | None:
        return None if self.row is None else to_datetime(self.row.created_at)

    @property
    def updated_at(self) -> datetime | None:
        return None if self.row is None else to_datetime(self.row.updated_at)

    @property
    def source(self) -> str | None:
        """``"catalog"``, or ``"fallback"`` from this process's memory; None when not found."""
        if self.row is None:
            return None
        return "catalog" if self.age_s is None else "fallback"

    @classmethod
    def of(cls, key: str, value: Any, metadata: Mapping[str, Any], row: Row) -> RetrieveResult:
        """What the constructor makes, in a fifth of its time: batches make one for each entry."""
        made: Any = _Unfrozen()
        made.exception = None
        made.key = key
        made.value = value
        made.metadata = metadata
        made.row = row
        made.age_s = None
        made.__class__ = cls
        return made  # type: ignore[no-any-return]


class _Unfrozen(RetrieveResult):
    """A result while it is made."""

    __slots__ = ()
    __init__ = object.__init__
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__  # with the line above, attributes are set without a detour


@frozen
class DeleteResult(Result):
    """What :meth:`LTMBackend.delete` did."""

    FIELDS: ClassVar = ("deleted", "key")

    key: str
    deleted: bool = False
    """There was a live entry, and now there is none."""


@frozen
class TouchResult(Result):
    """What :meth:`LTMBackend.touch` did."""

    FIELDS: ClassVar = ("touched", "key", "version", "expires_at")

    key: str
    touched: bool = False
    """There was a live entry, and its expiry or metadata are new."""
    version: int | None = None
    expires_at: datetime | None = None


@frozen
class StoreBatchResult(Result):
    """What :meth:`LTMBackend.store_batch` did: every key is in *versions* or in *errors*."""

    FIELDS: ClassVar = (
        "stored",
        "failed",
        "errors",
        "versions",
        "inlined",
        "uploaded",
        "deduplicated",
        "byte_size",
    )

    versions: dict[str, int | None] = dataclasses.field(default_factory=dict)
    """The version of each key that was stored."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Why each other key was not; none of its batch was."""
    inlined: int = 0
    uploaded: int = 0
    deduplicated: int = 0
    """Entries whose content was there already; none of these is counted as uploaded."""
    byte_size: int = 0
    """Of all that was stored, as canonical JSON."""

    @property
    def stored(self) -> int:
        return len(self.versions)

    @property
    def failed(self) -> int:
        return len(self.errors)


@frozen
class RetrieveBatchResult(Result):
    """What :meth:`LTMBackend.retrieve_batch` found.

    Every key is in exactly one of *results*, *missing* and *errors*.
    """

    FIELDS: ClassVar = ("results", "missing", "found", "errors")

    results: dict[str, RetrieveResult] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)

    @property
    def found(self) -> int:
        return len(self.results)


@frozen
class DeleteBatchResult(Result):
    """What :meth:`LTMBackend.delete_batch` did."""

    FIELDS: ClassVar = ("deleted", "missing", "errors")

    deleted: int = 0
    missing: list[str] = dataclasses.field(default_factory=list)
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)


@frozen
class EntryInfo(Frozen):
    """An entry without its value, as a listing shows it."""

    key: str
    version: int
    content_hash: str
    byte_size: int = 0
    inlined: bool
    metadata: Mapping[str, Any]
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Row, metadata: Mapping[str, Any]) -> EntryInfo:
        return cls(
            key=row.key,
            version=row.version,
            content_hash=row.content_hash,
            byte_size=row.byte_size,
            inlined=row.blob_id is None,
            metadata=metadata,
            expires_at=_instant(row.expires_at),
            created_at=to_datetime(row.created_at),
            updated_at=to_datetime(row.updated_at),
        )

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@frozen
class ListResult(Result):
    """One page of :meth:`LTMBackend.list_entries`."""

    FIELDS: ClassVar = ("entries", "cursor", "errors")

    entries: list[EntryInfo] = dataclasses.field(default_factory=list)
    """In ascending order of the keys' code points."""
    cursor: str | None = None
    """For the next page; None when this was the last."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Entries of the page that are damaged; no other is missing for them. With a filter, those of
    which the catalog cannot tell that they do not match."""


@frozen
class SearchHit(EntryInfo):
    """An entry that was found, without its value."""

    score: float
    """To be compared within one search only; above 0, but for a cosine, which is -1 to 1."""

    @classmethod
    def found(cls, row: Row, metadata: Mapping[str, Any], score: float) -> SearchHit:
        known = EntryInfo.of(row, metadata).to_dict()
        return cls(**known, score=score)


@frozen
class SearchResult(Result):
    """One page of :meth:`LTMBackend.search`."""

    FIELDS: ClassVar = ("results", "total", "cursor", "errors")

    results: list[SearchHit] = dataclasses.field(default_factory=list)
    """Best first; equally good ones in the order of their keys."""
    total: int = 0
    """How many entries match, counted up to 10,000; with vectors, which have all entries match
    more or less, how many were ranked, at most 400."""
    cursor: str | None = None
    """For the next page; None when this was the last."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Entries that were found but are damaged."""


@frozen
class SnippetsResult(Result):
    """What :meth:`LTMBackend.retrieve_snippets` found."""

    FIELDS: ClassVar = ("snippets", "missing", "errors")

    snippets: dict[str, Snippet] = dataclasses.field(default_factory=dict)
    """By key, in the order asked for; without those that have nothing of what is sought."""
    missing: list[str] = dataclasses.field(default_factory=list)
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Entries whose value could not be read, and why."""


@frozen
class SnapshotResult(Result):
    """What :meth:`LTMBackend.create_snapshot` made."""

    FIELDS: ClassVar = ("id", "name", "entry_count", "total_bytes", "created_at")

    name: str
    id: str | None = None
    """For ``since_snapshot_id``."""
    entry_count: int | None = None
    """Live entries at that moment; None where there are more than 100,000 rows, and on Firestore,
    which would bill them."""
    total_bytes: int | None = None
    """Of their values as canonical JSON; None as *entry_count*."""
    created_at: datetime | None = None


@frozen
class DeleteSnapshotResult(Result):
    """What :meth:`LTMBackend.delete_snapshot` did."""

    FIELDS: ClassVar = ("id", "deleted")

    id: str
    deleted: bool = False
    """It was there."""


@frozen
class ChangeInfo(Frozen):
    """The latest state of a key that has changed."""

    kind: str
    """``stored`` (or touched), ``deleted``, ``expired``, or ``damaged``: it was stored, and its
    row is not what was written."""
    key: str
    version: int
    entry: EntryInfo | None
    """Without its value; None for the other kinds."""
    cursor: str | None
    """To go on after this change, or some before it, which then come again; None begins at the
    beginning."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "key": self.key,
            "version": self.version,
            "entry": None if self.entry is None else self.entry.to_dict(),
            "cursor": self.cursor,
        }


@frozen
class ChangesResult(Result):
    """One page of :meth:`LTMBackend.get_changed_entries`."""

    FIELDS: ClassVar = ("changes", "cursor", "more")

    changes: list[ChangeInfo] = dataclasses.field(default_factory=list)
    cursor: str | None = None
    """Where to go on; None when the call failed."""
    more: bool = False
    """There may be more now. When not, *cursor* is the watermark from which to look again."""


@frozen
class CleanupResult(Result):
    """What :meth:`LTMBackend.cleanup_expired` did."""

    FIELDS: ClassVar = ("deleted", "blobs_deleted", "errors")

    deleted: int = 0
    """Expired entries removed."""
    blobs_deleted: int = 0
    errors: Sequence[str] = ()
    """Blobs that could not be deleted now; a later collection tries again."""


@frozen
class CollectResult(Result):
    """What :meth:`LTMBackend.collect_garbage` did, or would do."""

    FIELDS: ClassVar = ("deleted", "byte_size", "dry_run", "errors")

    deleted: int = 0
    """Blobs deleted; in a dry run, those that would be."""
    byte_size: int = 0
    dry_run: bool = False
    errors: Sequence[str] = ()


@frozen
class VerifyResult(Result):
    """What :meth:`LTMBackend.verify` found."""

    FIELDS: ClassVar = (
        "sound",
        "entries",
        "blobs",
        "byte_size",
        "pending_blobs",
        "dead_blobs",
        "strays",
        "problems",
    )

    entries: int = 0
    blobs: int = 0
    byte_size: int = 0
    pending_blobs: int = 0
    """Uploads under way, or left by a process that was stopped: the collection's work."""
    dead_blobs: int = 0
    strays: int = 0
    """Objects that the ledger does not know, counted up to 500: the audit's work."""
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    """What is wrong, by key."""

    @property
    def sound(self) -> bool:
        return self.success and not self.problems


@frozen
class StatsResult(Result):
    """Counts and bytes of the backend's namespace."""

    FIELDS: ClassVar = (
        "entries",
        "expired",
        "inlined",
        "inlined_bytes",
        "blobs",
        "blob_bytes",
        "pending_blobs",
        "dead_blobs",
    )

    entries: int = 0
    expired: int = 0
    """Past their end, and not yet removed by a cleanup."""
    inlined: int = 0
    inlined_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    pending_blobs: int = 0
    dead_blobs: int = 0
