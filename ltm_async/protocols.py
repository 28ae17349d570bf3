"""The two seams: what a catalog and a blob store must do, and what crosses between.

Both are spoken to by the backend alone. An adapter never validates, never retries, never
parses a value or metadata, and judges time by its store's clock, not by its process's.
Instants are integers of microseconds since the epoch, UTC. Every method raises
:class:`~ltm_async.errors.StoreError` subclasses or ``ConflictError`` only: *UnavailableError*
when the request certainly had no effect, *OutcomeUnknownError* when it may have had one.
Cancellation passes through and leaves a call done or not done, never half.

:mod:`ltm_async.testing` has the contract of both as test suites to subclass.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .entry import MAX_VALUE_BYTES, Expiry, last_key
from .errors import ConfigError, StoreError

if TYPE_CHECKING:
    from .filters import Filter
    from .text import Query, Term, Text


class Row(NamedTuple):
    """One live entry as the catalog holds it."""

    key: str
    version: int
    """Grows with every change of the key and is never used again for it."""
    content_hash: str
    byte_size: int
    inlined_value: str | None
    """Canonical JSON text; None when the value is a blob."""
    blob_id: str | None
    metadata: str
    """JSON text of an object."""
    expires_at: int | None
    created_at: int
    updated_at: int


class Write(NamedTuple):
    """One entry to commit.

    Without *inlined_value* and *blob_id* it renews what the row holds: the commit is fenced
    unless the row is still there with this *content_hash* in a blob.
    """

    key: str
    content_hash: str
    byte_size: int
    inlined_value: str | None
    blob_id: str | None
    """A reserved blob whose object has been stored."""
    metadata: str
    expiry: Expiry
    if_version: int | None = None
    """The live version it replaces; 0 for none; None for whatever there is."""
    words: str | None = None
    """The text to find it by, as words with spaces between them; None to leave it out."""
    vector: bytes | None = None
    """The vector to find it by, see :mod:`ltm_async.vectors`; None to leave it out."""


class Written(NamedTuple):
    """What a commit did."""

    version: int | None
    """The new version, the same for every entry of the batch; None if its reply was lost."""
    unchanged: Collection[str]
    """Keys whose live entry had the same content already."""
    expires_at: Mapping[str, int]
    """The expiry of those that have one."""


class Reservation(NamedTuple):
    """A blob about to be uploaded for *key*."""

    blob_id: str
    key: str
    content_hash: str
    byte_size: int


class Removed(NamedTuple):
    """An entry that a delete or an expiry removed."""

    key: str
    was_live: bool
    blob_id: str | None
    """Its blob, now dead in the ledger; its object is still to be deleted."""


class Outcome(enum.Enum):
    """What became of a write whose reply was lost."""

    STORED = "stored"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Resolved(NamedTuple):
    """What became of a write, and its version if a row still carries it."""

    outcome: Outcome
    version: int | None = None


class LedgerBlob(NamedTuple):
    """One row of the blob ledger."""

    blob_id: str
    key: str
    state: str
    """``pending`` (reserved), ``live`` or ``dead`` (to be deleted)."""
    byte_size: int
    named: bool
    """An entry, live or expired, has this blob: true exactly for ``live``."""


class DueBlob(NamedTuple):
    """A dead blob whose object is to be deleted."""

    blob_id: str
    byte_size: int


class Page(NamedTuple):
    """Rows of a listing, and how far it looked for them."""

    rows: list[Row]
    after: str | None
    """Go on above this key: of those that were looked at the last that can be one. None at the
    end."""
    examined: int
    """How many rows were looked at, expired ones too where the store sees them."""

    @classmethod
    def of(cls, rows: list[Row], limit: int) -> Page:
        """Of all there are above a key, up to *limit*."""
        after = last_key([row.key for row in rows]) if len(rows) == limit else None
        return cls(rows, after, len(rows))


class Found(NamedTuple):
    """An entry that matches a query."""

    row: Row
    """Without its ``inlined_value``."""
    text: Text


class Matches(NamedTuple):
    """What a catalog found for a query."""

    found: list[Found]
    """The best of them, by the store's own measure."""
    total: int
    """How many live entries match, counted up to ``MAX_MATCHES``."""
    entries: int
    """How many entries of the namespace have a text, counted up to ``MAX_COUNTED``."""
    having: Mapping[Term, int]
    """In how many of them each term of the query is, counted up to ``MAX_COUNTED``."""


class Near(NamedTuple):
    """An entry with a vector near the one sought."""

    row: Row
    """Without its ``inlined_value``."""
    cosine: float
    """Of the angle between both: 1 for the same direction, -1 for the opposite."""


MAX_MATCHES = 10_000
MAX_COUNTED = 100_000


class CatalogStats(NamedTuple):
    """Counts and bytes of one namespace."""

    entries: int
    expired: int
    """Entries past their end that no cleanup has removed yet."""
    inlined: int
    inlined_bytes: int
    blobs: int
    blob_bytes: int
    pending_blobs: int
    dead_blobs: int


class SnapshotRow(NamedTuple):
    """A named moment."""

    id: str
    name: str
    watermark: str
    """A cursor: changes since that moment are listed from it."""
    entry_count: int | None
    """Live entries then; None where there are more than ``MAX_COUNTED`` rows, or where the store
    does not count cheaply."""
    total_bytes: int | None
    """Of their values as canonical JSON; None as *entry_count*."""
    created_at: int


class Change(NamedTuple):
    """The latest state of one key."""

    kind: str
    """``stored``, ``deleted`` or ``expired``."""
    key: str
    version: int
    """Grows with every change of the key."""
    row: Row | None
    """Of a live entry, ``inlined_value`` left None; None for the other kinds."""


class ChangePage(NamedTuple):
    """Some of the changes of a pass."""

    changes: Sequence[Change]
    cursor: str
    """Where to go on: in this pass, or at its end the watermark of the next."""
    more: bool
    """The pass goes on."""


class Catalog(Protocol):
    """Rows by namespace and key, and the ledger of blobs.

    Safe for concurrent use by tasks, loops and threads of a process, and by other processes.
    Every method but ``open`` and ``aclose`` is one transaction: all of it or nothing.
    """

    name: str
    """Short, for errors: ``"sqlite"``."""
    batch_bytes: int | None = None
    """What the rows of one commit may have together, where there is a limit; batches are cut."""

    async def open(self) -> None:
        """Connect and bring the schema up to date now; else the first call does."""

    async def aclose(self) -> None:
        """Release what ``open`` took, in bounded time. Safe twice and after a failed open."""

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        """Commit *writes*, whose keys differ: all of them or none.

        In this order: every ``blob_id`` turns from pending to live, or the whole batch is
        refused; the rows, their texts and their vectors are written, remembering *write_id*;
        every other live blob of these keys dies. An expired row counts as none.

        Raises:
            FencedError: A blob was no longer pending, or a row to renew has changed.
            ConflictError: An ``if_version`` did not match.
        """
        ...

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        """The live rows among *keys*, as of one moment, in no particular order."""
        ...

    async def touch_entry(
        self,
        namespace: str,
        key: str,
        *,
        expiry: Expiry | None,
        metadata: str | None,
        write_id: str,
    ) -> Row | None:
        """Change a live row's expiry, metadata or both (None leaves one) and return the row."""
        ...

    async def delete_entries_batch(
        self,
        namespace: str,
        keys: Sequence[str],
        *,
        write_id: str,
        if_version: int | None = None,
    ) -> list[Removed]:
        """Remove rows, expired ones too; their blobs die in the same transaction.

        Raises:
            ConflictError: *if_version* is given and a live row among *keys* has another.
        """
        ...

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        """Up to *limit* live rows whose key starts with *prefix* and is above *after*.

        In ascending order of the keys' code points. ``inlined_value`` is left None.
        """
        ...

    async def filter_entries(
        self,
        namespace: str,
        wanted: Filter,  # noqa: ARG002  # for those that can
        *,
        prefix: str = "",
        after: str = "",
        limit: int,
        most: int,
    ) -> Page:
        """Up to *limit* rows as of ``list_entries``, without those that cannot match *wanted*.

        It looks at no more than *most* rows, and may stop before. What the store cannot tell is
        left to the caller: this one, for catalogs that can tell nothing, leaves out none.
        """
        limit = min(limit, most)
        rows = await self.list_entries(namespace, prefix=prefix, after=after, limit=limit)
        return Page.of(rows, limit)

    async def search_entries(
        self,
        namespace: str,  # noqa: ARG002  # for those that can
        query: Query,  # noqa: ARG002
        *,
        wanted: Filter | None,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> Matches:
        """The best *limit* of the live entries whose text matches *query*, as of one moment.

        Entries that do not match *wanted* may be left out, as far as the store can tell; so may
        matches beyond the first ``MAX_MATCHES`` that the store comes upon.

        Raises:
            ConfigError: This catalog keeps no texts.
        """
        raise ConfigError(f"the {self.name} catalog cannot search")

    async def nearest_entries(
        self,
        namespace: str,  # noqa: ARG002  # for those that can
        vector: bytes,  # noqa: ARG002
        *,
        wanted: Filter | None,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> list[Near]:
        """The *limit* live entries whose vectors are nearest to *vector*, nearest first.

        As of one moment. Those without a vector, or with one of another length, are left out, and
        entries that do not match *wanted* may be, as far as the store can tell.

        Raises:
            ConfigError: This catalog keeps no vectors, or cannot compare as many as there are.
            MissingDriverError: What compares them is not installed.
        """
        raise ConfigError(f"the {self.name} catalog keeps no vectors")

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        """Remove up to *limit* expired rows, the longest expired first, by an index."""
        ...

    async def reserve_blobs(
        self, namespace: str, blobs: Sequence[Reservation], *, lease_us: int
    ) -> Mapping[str, str]:
        """Enter *blobs*, whose names were never sent before, as pending until the lease ends.

        One that is delivered twice all the same is entered once.

        Returns:
            The keys whose row, live or expired, holds this content as a blob already, with
            that blob's id; theirs were not reserved.
        """
        ...

    async def abandon_blobs(
        self, namespace: str, blob_ids: Sequence[str], *, grace_us: int
    ) -> None:
        """Turn what is still pending dead, due for deletion after *grace_us*."""

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        """Settle a commit or touch whose reply was lost, for good.

        With blobs it abandons them, so that a commit still under way is refused: *stored* or
        *failed* is then certain. Without blobs a row of *keys* that carries *write_id*
        means stored, and anything else is unknown.
        """
        ...

    async def resolve_removal(
        self, namespace: str, write_id: str, keys: Sequence[str]
    ) -> list[str]:
        """Those of *keys* whose live entry the delete *write_id* removed, as far as it can be told.

        What it removed of the others, if it happened at all, is unknown.
        """
        ...

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        """Up to *limit* dead blobs that are due, each put off by *backoff_us* for others.

        Blobs still pending after their lease die first, which fences their writer.
        """
        ...

    async def due_blobs(self, namespace: str, limit: int) -> list[DueBlob]:
        """What ``take_due_blobs`` would take now; changes nothing."""
        ...

    async def forget_blobs(self, namespace: str, blob_ids: Sequence[str]) -> None:
        """Drop dead blobs from the ledger, once their objects are gone."""

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        """Up to *limit* rows of the ledger with an id above *after*, in order."""
        ...

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        """Those of *blob_ids* that the ledger has, in any state."""
        ...

    async def stats(self, namespace: str) -> CatalogStats:
        """Count one namespace, as of one moment."""
        ...

    async def create_snapshot(self, namespace: str, snapshot_id: str, name: str) -> SnapshotRow:
        """Remember this moment, copying nothing; if *snapshot_id* is there, return that one.

        Its work is bounded, however many entries there are.
        """
        ...

    async def get_snapshot(self, namespace: str, snapshot_id: str) -> SnapshotRow | None:
        """The snapshot *snapshot_id*, or None."""
        ...

    async def delete_snapshot(self, namespace: str, snapshot_id: str) -> bool:
        """Forget a snapshot; whether it was there."""
        ...

    async def list_changes(self, namespace: str, since: str, limit: int) -> ChangePage:
        """Up to *limit* keys that have changed, each with its latest state.

        *since* is the cursor of the page before or a snapshot's watermark; empty for the
        beginning. What was committed after a pass began is of the next one. No change that was
        committed is passed over, however long its transaction took; some may come twice. A key
        is ``deleted`` or ``expired`` only while no row has it, and one of a row past its end
        is ``expired``.

        Raises:
            InvalidEntryError: *since* is none that this kind of catalog gave; nothing was sent.
            WatermarkExpiredError: Deletions since then were forgotten, which happens after
                seven days at the earliest, or the catalog is not the one that gave it.
        """
        ...

    async def track_entry(self, namespace: str, write: Write, *, write_id: str) -> Written:
        """A batch of one."""
        return await self.track_entries_batch(namespace, [write], write_id=write_id)

    async def get_entry(self, namespace: str, key: str) -> Row | None:
        """A batch of one; None when there is no live row."""
        rows = await self.get_entries_batch(namespace, [key])
        return rows[0] if rows else None

    async def delete_entry(self, namespace: str, key: str, *, write_id: str) -> Removed | None:
        """A batch of one; None when there was no row."""
        return next(
            iter(await self.delete_entries_batch(namespace, [key], write_id=write_id)), None
        )


class BlobInfo(NamedTuple):
    """One object as a listing shows it."""

    path: str
    byte_size: int
    age_us: int
    """Since it was written, by the store's clock."""


class BlobStore(Protocol):
    """Immutable byte strings by path. Paths are made by the library, never by a user.

    Safe for concurrent use by tasks, loops and threads of a process, and by other processes.
    """

    name: str

    async def open(self) -> None:
        """Connect now; else the first call does."""

    async def aclose(self) -> None:
        """Release what was opened, in bounded time. Safe twice and after a failed open."""

    async def put(self, path: str, data: bytes) -> None:
        """Create *path* whole and durable, or not at all; repeating the same put is harmless."""

    async def get(self, path: str, *, limit: int) -> bytes | None:
        """The first *limit* bytes of *path*, or None when there is no such object."""
        ...

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """Delete objects; an absent one is fine. Returns those that failed, and why."""
        ...

    def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        """Every object below *prefix*, unfinished uploads included, in any order."""
        ...

    def uri(self, path: str) -> str:
        """The storage URI of *path*: for people, never read back."""
        ...

    async def read_into(self, path: str, sink: Callable[[bytes], object]) -> bool:
        """Give *sink* the object at *path* piece by piece, of any size; False when there is none.

        A store without a way to stream reads it at once, up to the size of the largest value.
        """
        data = await self.get(path, limit=MAX_VALUE_BYTES + 1)
        if data is None:
            return False
        if len(data) > MAX_VALUE_BYTES:
            raise StoreError(f"{self.name}: an object is too large to be read at once")
        sink(data)
        return True
