"""MemoryCatalog: the catalog's contract in dicts, for tests and for what may be forgotten."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..clock import system_clock
from ..cursors import DELETIONS_KEPT_US, VersionPass, version_watermark
from ..entry import Expiry
from ..errors import ClosedError, ConflictError, FencedError
from ..filters import Filter, may_match
from ..nearest import PAGE, Nearest, load_numpy
from ..protocols import (
    MAX_COUNTED,
    Catalog,
    CatalogStats,
    Change,
    ChangePage,
    DueBlob,
    Found,
    LedgerBlob,
    Matches,
    Near,
    Outcome,
    Removed,
    Reservation,
    Resolved,
    Row,
    SnapshotRow,
    Write,
    Written,
)
from ..text import Query, matches, occurrences, scores, text_in
from ..worker import aside


@dataclasses.dataclass(slots=True)
class _Blob:
    key: str
    byte_size: int
    due_at: int
    state: str = "pending"
    committed: bool = False


class _Deletion(NamedTuple):
    version: int
    write_id: str
    kind: str
    deleted_at: int


@dataclasses.dataclass(slots=True)
class _Space:
    """One namespace."""

    rows: dict[str, Row] = dataclasses.field(default_factory=dict)
    write_ids: dict[str, str] = dataclasses.field(default_factory=dict)
    blobs: dict[str, _Blob] = dataclasses.field(default_factory=dict)
    words: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    vectors: dict[str, bytes] = dataclasses.field(default_factory=dict)
    deletions: dict[str, _Deletion] = dataclasses.field(default_factory=dict)
    pruned: int = 0
    """The last version of a deletion that was forgotten."""
    snapshots: dict[str, SnapshotRow] = dataclasses.field(default_factory=dict)


class MemoryCatalog(Catalog):
    """A catalog that lasts as long as the object does.

    No method awaits while it looks at rows, so each is one transaction to all tasks of a loop; not
    for use from several threads.

    Args:
        clock: The catalog's now, in microseconds since the epoch.
    """

    name = "memory"

    def __init__(self, *, clock: Callable[[], int] = system_clock) -> None:
        self._clock = clock
        self._spaces: dict[str, _Space] = {}
        self._version = 0
        self._closed = False

    async def open(self) -> None:
        self._space("")

    async def aclose(self) -> None:
        self._closed = True

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        space, now = self._space(namespace), self._clock()
        fresh = [write.blob_id for write in writes if write.blob_id is not None]
        if ended := [name for name in fresh if _state(space, name) != "pending"]:
            raise FencedError(f"memory: {len(ended)} reservations have ended", store=self.name)
        rows: list[Row] = []
        unchanged: list[str] = []
        for write in writes:
            present = space.rows.get(write.key)
            live = present if present is not None and _is_live(present, now) else None
            _check_version(write.key, write.if_version, live)
            blob_id = write.blob_id
            if blob_id is None and write.inlined_value is None:
                if present is None or present.content_hash != write.content_hash:
                    raise FencedError("memory: the value to renew changed", store=self.name)
                blob_id = present.blob_id
                if blob_id is None:
                    raise FencedError("memory: the value to renew changed", store=self.name)
            if live is not None and live.content_hash == write.content_hash:
                unchanged.append(write.key)
            rows.append(
                Row(
                    write.key,
                    self._version + 1,
                    write.content_hash,
                    write.byte_size,
                    write.inlined_value,
                    blob_id,
                    write.metadata,
                    write.expiry.resolve(now),
                    live.created_at if live is not None and 0 <= live.created_at <= now else now,
                    now,
                )
            )
        self._version += 1
        for row in rows:
            space.rows[row.key] = row
            space.write_ids[row.key] = write_id
        for write in writes:
            space.words.pop(write.key, None)
            if write.words:
                space.words[write.key] = write.words.split(" ")
            space.vectors.pop(write.key, None)
            if write.vector:
                space.vectors[write.key] = write.vector
        for name in fresh:
            space.blobs[name].state = "live"
            space.blobs[name].committed = True
        named = {row.blob_id for row in rows}
        _retire(space, {row.key for row in rows}, now, keep=named)
        ends = {row.key: row.expires_at for row in rows if row.expires_at is not None}
        return Written(self._version, unchanged, ends)

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        rows, now = self._space(namespace).rows, self._clock()
        found = (rows.get(key) for key in keys)
        return [row for row in found if row is not None and _is_live(row, now)]

    async def touch_entry(
        self,
        namespace: str,
        key: str,
        *,
        expiry: Expiry | None,
        metadata: str | None,
        write_id: str,
    ) -> Row | None:
        space, now = self._space(namespace), self._clock()
        row = space.rows.get(key)
        if row is None or not _is_live(row, now):
            return None
        self._version += 1
        row = row._replace(
            version=self._version,
            expires_at=row.expires_at if expiry is None else expiry.resolve(now),
            metadata=row.metadata if metadata is None else metadata,
            updated_at=now,
        )
        space.rows[key] = row
        space.write_ids[key] = write_id
        return row

    async def delete_entries_batch(
        self,
        namespace: str,
        keys: Sequence[str],
        *,
        write_id: str,
        if_version: int | None = None,
    ) -> list[Removed]:
        space, now = self._space(namespace), self._clock()
        present = [space.rows[key] for key in keys if key in space.rows]
        live = [row for row in present if _is_live(row, now)]
        if if_version is not None:
            for row in live:
                _check_version(row.key, if_version, row)
            if not live:
                _check_version(keys[0], if_version, None)
        return self._remove(space, present, now, write_id)

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        rows, now = self._space(namespace).rows, self._clock()
        keys = sorted(rows)
        found: list[Row] = []
        for key in keys[bisect.bisect_left(keys, prefix) :]:
            if not key.startswith(prefix) or len(found) == limit:
                break
            if key > after and _is_live(rows[key], now):
                found.append(rows[key]._replace(inlined_value=None))
        return found

    async def search_entries(
        self, namespace: str, query: Query, *, wanted: Filter | None, limit: int
    ) -> Matches:
        space, now = self._space(namespace), self._clock()
        texts = {key: text_in(words, query) for key, words in space.words.items()}
        having = {
            term: sum(1 for text in texts.values() if occurrences(term, text))
            for term in query.terms
        }
        found = [
            Found(space.rows[key]._replace(inlined_value=None), text)
            for key, text in texts.items()
            if matches(query, text)
            and _is_live(space.rows[key], now)
            and may_match(wanted, space.rows[key].metadata)
        ]
        ranks = scores(query, [text for _, text in found], entries=len(texts), having=having)
        best = sorted(zip(ranks, found, strict=True), key=lambda ranked: -ranked[0])[:limit]
        return Matches([match for _, match in best], len(found), len(texts), having)

    async def nearest_entries(
        self, namespace: str, vector: bytes, *, wanted: Filter | None, limit: int
    ) -> list[Near]:
        await aside(load_numpy)
        space, now = self._space(namespace), self._clock()
        keys = [
            key
            for key, held in space.vectors.items()
            if len(held) == len(vector)
            and _is_live(space.rows[key], now)
            and may_match(wanted, space.rows[key].metadata)
        ]
        nearest = Nearest(vector, limit)
        for start in range(0, len(keys), PAGE):
            page = keys[start : start + PAGE]
            nearest.add(page, [space.vectors[key] for key in page])
        return [
            Near(space.rows[key]._replace(inlined_value=None), cosine)
            for key, cosine in nearest.best().items()
        ]

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        space, now = self._space(namespace), self._clock()
        ended = sorted(
            (row for row in space.rows.values() if not _is_live(row, now)),
            key=lambda row: row.expires_at or 0,
        )
        return self._remove(space, ended[:limit], now, write_id)

    async def reserve_blobs(
        self, namespace: str, blobs: Sequence[Reservation], *, lease_us: int
    ) -> Mapping[str, str]:
        space, now = self._space(namespace), self._clock()
        held: dict[str, str] = {}
        for blob in blobs:
            row = space.rows.get(blob.key)
            if row is not None and row.blob_id and row.content_hash == blob.content_hash:
                held[blob.key] = row.blob_id
            else:
                entered = _Blob(blob.key, blob.byte_size, now + lease_us)
                space.blobs.setdefault(blob.blob_id, entered)
        return held

    async def abandon_blobs(
        self, namespace: str, blob_ids: Sequence[str], *, grace_us: int
    ) -> None:
        space, now = self._space(namespace), self._clock()
        for name in blob_ids:
            if _state(space, name) == "pending":
                space.blobs[name].state = "dead"
                space.blobs[name].due_at = now + grace_us

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        space = self._space(namespace)
        await self.abandon_blobs(namespace, blob_ids, grace_us=grace_us)
        known = [space.blobs[name] for name in blob_ids if name in space.blobs]
        carrying = [key for key in keys if space.write_ids.get(key) == write_id]
        if carrying or any(blob.committed for blob in known):
            version = space.rows[carrying[0]].version if carrying else None
            return Resolved(Outcome.STORED, version)
        return Resolved(Outcome.FAILED if known else Outcome.UNKNOWN)

    async def resolve_removal(
        self, namespace: str, write_id: str, keys: Sequence[str]
    ) -> list[str]:
        deletions = self._space(namespace).deletions
        gone = {key: deletions[key] for key in keys if key in deletions}
        return [
            key
            for key, mark in gone.items()
            if mark.write_id == write_id and mark.kind == "deleted"
        ]

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        space, now = self._space(namespace), self._clock()
        due = await self.due_blobs(namespace, limit)
        for blob in due:
            space.blobs[blob.blob_id].state = "dead"
            space.blobs[blob.blob_id].due_at = now + backoff_us
        _prune(space, now - DELETIONS_KEPT_US)
        return due

    async def due_blobs(self, namespace: str, limit: int) -> list[DueBlob]:
        space, now = self._space(namespace), self._clock()
        due = [
            (blob.due_at, DueBlob(name, blob.byte_size))
            for name, blob in space.blobs.items()
            if blob.state != "live" and blob.due_at <= now
        ]
        return [blob for _, blob in sorted(due)[:limit]]

    async def forget_blobs(self, namespace: str, blob_ids: Sequence[str]) -> None:
        space = self._space(namespace)
        for name in blob_ids:
            if _state(space, name) == "dead":
                del space.blobs[name]

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        space = self._space(namespace)
        named = {row.blob_id for row in space.rows.values()}
        return [
            LedgerBlob(name, blob.key, blob.state, blob.byte_size, name in named)
            for name, blob in sorted(space.blobs.items(), key=lambda item: item[0])
            if name > after
        ][:limit]

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        return self._space(namespace).blobs.keys() & set(blob_ids)

    async def stats(self, namespace: str) -> CatalogStats:
        space, now = self._space(namespace), self._clock()
        live = [row for row in space.rows.values() if _is_live(row, now)]
        inlined = [row.byte_size for row in live if row.blob_id is None]
        states = [blob.state for blob in space.blobs.values()]
        return CatalogStats(
            entries=len(live),
            expired=len(space.rows) - len(live),
            inlined=len(inlined),
            inlined_bytes=sum(inlined),
            blobs=states.count("live"),
            blob_bytes=sum(b.byte_size for b in space.blobs.values() if b.state == "live"),
            pending_blobs=states.count("pending"),
            dead_blobs=states.count("dead"),
        )

    async def create_snapshot(self, namespace: str, snapshot_id: str, name: str) -> SnapshotRow:
        space, now = self._space(namespace), self._clock()
        sizes = [row.byte_size for row in space.rows.values() if _is_live(row, now)]
        watermark = version_watermark(self._version)
        made = SnapshotRow(snapshot_id, name, watermark, len(sizes), sum(sizes), now)
        if len(space.rows) > MAX_COUNTED:
            made = made._replace(entry_count=None, total_bytes=None)
        return space.snapshots.setdefault(snapshot_id, made)

    async def get_snapshot(self, namespace: str, snapshot_id: str) -> SnapshotRow | None:
        return self._space(namespace).snapshots.get(snapshot_id)

    async def delete_snapshot(self, namespace: str, snapshot_id: str) -> bool:
        return self._space(namespace).snapshots.pop(snapshot_id, None) is not None

    async def list_changes(self, namespace: str, since: str, limit: int) -> ChangePage:
        place = VersionPass.of(since)
        space, now = self._space(namespace), self._clock()
        place.check(self._version, space.pruned)
        upper = self._version if place.upper is None else place.upper
        changes = [_change_of(row, now) for row in space.rows.values()] + [
            Change(gone.kind, key, gone.version, None)
            for key, gone in space.deletions.items()
            if key not in space.rows
        ]
        after = place.version, place.key
        found = [
            change
            for change in sorted(changes, key=_place_of)
            if _place_of(change) > after and change.version <= upper
        ]
        return place.page(found[:limit], upper, limit)

    def _space(self, namespace: str) -> _Space:
        if self._closed:
            raise ClosedError("the memory catalog is closed")
        return self._spaces.setdefault(namespace, _Space())

    def _remove(self, space: _Space, rows: Sequence[Row], now: int, write_id: str) -> list[Removed]:
        self._version += 1
        for row in rows:
            del space.rows[row.key], space.write_ids[row.key]
            space.words.pop(row.key, None)
            space.vectors.pop(row.key, None)
            kind = "deleted" if _is_live(row, now) else "expired"
            space.deletions[row.key] = _Deletion(self._version, write_id, kind, now)
        dead = _retire(space, {row.key for row in rows}, now)
        return [Removed(row.key, _is_live(row, now), dead.get(row.key)) for row in rows]


def _is_live(row: Row, now: int) -> bool:
    return row.expires_at is None or row.expires_at > now


def _place_of(change: Change) -> tuple[int, str]:
    return change.version, change.key


def _change_of(row: Row, now: int) -> Change:
    if _is_live(row, now):
        return Change("stored", row.key, row.version, row._replace(inlined_value=None))
    return Change("expired", row.key, row.version, None)


def _prune(space: _Space, before: int) -> None:
    """Forget the deletions until *before*, and remember up to where."""
    old = {key: gone for key, gone in space.deletions.items() if gone.deleted_at <= before}
    for key, gone in old.items():
        space.pruned = max(space.pruned, gone.version)
        del space.deletions[key]


def _state(space: _Space, blob_id: str) -> str | None:
    blob = space.blobs.get(blob_id)
    return None if blob is None else blob.state


def _retire(
    space: _Space, keys: Collection[str], now: int, *, keep: Iterable[str | None] = ()
) -> dict[str, str]:
    """Turn every live blob of *keys* dead, but those to keep; return them by key."""
    kept, dead = set(keep), {}
    for name, blob in space.blobs.items():
        if blob.state == "live" and blob.key in keys and name not in kept:
            blob.state = "dead"
            blob.due_at = now
            dead[blob.key] = name
    return dead


def _check_version(key: str, expected: int | None, live: Row | None) -> None:
    found = None if live is None else live.version
    if expected is not None and expected != (found or 0):
        raise ConflictError.between(key, expected, found)
