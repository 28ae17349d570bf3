"""SQLiteCatalog: every operation is one transaction and one hop to a connection's thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ...clock import system_clock
from ...cursors import VersionPass
from ...entry import Expiry, prefix_end
from ...errors import (
    ClosedError,
    ConfigError,
    ConflictError,
)
from ...protocols import (
    Catalog,
    CatalogStats,
    ChangePage,
    DueBlob,
    LedgerBlob,
    Matches,
    Near,
    Outcome,
    Page,
    Removed,
    Reservation,
    Resolved,
    Row,
    SnapshotRow,
    Write,
    Written,
)
from ...worker import PerProcess
from . import committing, feed, filtering, texts, vectors
from . import statements as sql
from .database import connect, connect_reader
from .lane import Lane, is_undecodable, one_by_one, together

if TYPE_CHECKING:
    from ...filters import Filter
    from ...text import Query

T = TypeVar("T")


_as_row: Callable[[tuple[object, ...]], Row] = partial(tuple.__new__, Row)
"""``Row._make``, without a Python function for each row of a batch."""


def _is_live(expires_at: int | None, now: int) -> bool:
    return expires_at is None or expires_at > now


class SQLiteCatalog(Catalog):
    """A catalog in one SQLite file, or in memory with the path ``":memory:"``.

    Writes go through one connection and its thread, reads through another, in WAL mode; writes
    that wait at the same time share one commit, and each is whole or not there by itself;
    any number of processes of one machine may use the file, and a call waits for their locks
    until its own deadline. Not for network file systems, whose locks SQLite cannot trust.

    Args:
        path: The file, made with its schema on first use; its folder must exist.
        synchronous: ``"FULL"`` makes an acknowledged write survive a power loss. ``"NORMAL"``
            is faster and may lose the last writes then, never consistency.
        clock: The catalog's now in microseconds since the epoch, read inside each
            transaction; all processes of a machine share theirs.
    """

    name = "sqlite"

    def __init__(
        self,
        path: str,
        *,
        synchronous: str = "FULL",
        clock: Callable[[], int] = system_clock,
    ) -> None:
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigError(f"synchronous is {synchronous!r}, it must be 'FULL' or 'NORMAL'")
        self._path = path
        self._synchronous = synchronous
        self._clock = clock
        self._closed = False
        self._lanes = PerProcess(self._make_lanes)

    def __repr__(self) -> str:
        return f"SQLiteCatalog({self._path!r})"

    async def open(self) -> None:
        await self._read(lambda _conn, _now: None)

    async def aclose(self) -> None:
        self._closed = True
        writer, reader = self._lanes.get()
        await reader.aclose()
        await writer.aclose()  # last, so that closing folds the write-ahead log into the file

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        return await self._write(
            lambda conn, now: committing.commit(conn, now, namespace, writes, write_id)
        )

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        wanted = json.dumps(keys)

        def get(conn: sqlite3.Connection, now: int) -> list[Row]:
            bound = {"namespace": namespace, "keys": wanted, "now": now}
            return list(map(_as_row, conn.execute(sql.GET, bound).fetchall()))

        return await self._read(get)

    async def touch_entry(
        self,
        namespace: str,
        key: str,
        *,
        expiry: Expiry | None,
        metadata: str | None,
        write_id: str,
    ) -> Row | None:
        def touch(conn: sqlite3.Connection, now: int) -> Row | None:
            version, _, _ = conn.execute(sql.NEXT_VERSION).fetchone()
            bound = {
                "namespace": namespace,
                "key": key,
                "version": version,
                "write_id": write_id,
                "metadata": metadata,
                "new_expiry": expiry is not None,
                "expires_at": None if expiry is None else expiry.resolve(now),
                "now": now,
            }
            row = conn.execute(sql.TOUCH, bound).fetchone()
            return None if row is None else Row._make(row)

        return await self._write(touch)

    async def delete_entries_batch(
        self,
        namespace: str,
        keys: Sequence[str],
        *,
        write_id: str,
        if_version: int | None = None,
    ) -> list[Removed]:
        def delete(conn: sqlite3.Connection, now: int) -> list[Removed]:
            present = conn.execute(sql.PRESENT, (json.dumps(keys), namespace)).fetchall()
            live: dict[str, bool] = {}
            for key, version, _, _, expires_at, _ in present:
                was_live = _is_live(expires_at, now)
                if was_live and if_version is not None and if_version != version:
                    raise ConflictError.between(key, if_version, version)
                live[key] = was_live
            if if_version is not None and not any(live.values()):
                raise ConflictError.between(keys[0], if_version, None)
            return self._remove(conn, now, namespace, live, write_id)

        return await self._write(delete)

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        within = _within(namespace, prefix, after)

        def page(conn: sqlite3.Connection, now: int) -> list[Row]:
            bound = {**within, "now": now, "limit": limit}
            return list(map(Row._make, conn.execute(sql.LIST, bound).fetchall()))

        return await self._read(page)

    async def filter_entries(
        self,
        namespace: str,
        wanted: Filter,
        *,
        prefix: str = "",
        after: str = "",
        limit: int,
        most: int,
    ) -> Page:
        within = _within(namespace, prefix, after)
        return await self._read(
            lambda conn, now: filtering.page(conn, now, within, wanted, limit, most)
        )

    async def search_entries(
        self, namespace: str, query: Query, *, wanted: Filter | None, limit: int
    ) -> Matches:
        return await self._read(
            lambda conn, now: texts.search(conn, now, namespace, query, wanted, limit)
        )

    async def nearest_entries(
        self, namespace: str, vector: bytes, *, wanted: Filter | None, limit: int
    ) -> list[Near]:
        return await self._read(
            lambda conn, now: vectors.nearest(conn, now, namespace, vector, wanted, limit)
        )

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        def expire(conn: sqlite3.Connection, now: int) -> list[Removed]:
            ended = [key for (key,) in conn.execute(sql.EXPIRED, (namespace, now, limit))]
            return self._remove(conn, now, namespace, dict.fromkeys(ended, False), write_id)

        return await self._write(expire)

    async def reserve_blobs(
        self, namespace: str, blobs: Sequence[Reservation], *, lease_us: int
    ) -> Mapping[str, str]:
        hashes = {blob.key: blob.content_hash for blob in blobs}
        keys = json.dumps(list(hashes))

        def reserve(conn: sqlite3.Connection, now: int) -> Mapping[str, str]:
            held = {
                key: blob_id
                for key, _, content_hash, blob_id, *_ in conn.execute(
                    sql.PRESENT, (keys, namespace)
                )
                if blob_id is not None and content_hash == hashes[key]
            }
            conn.executemany(
                sql.RESERVE,
                [
                    (namespace, blob.blob_id, blob.key, blob.byte_size, now + lease_us)
                    for blob in blobs
                    if blob.key not in held
                ],
            )
            return held

        return await self._write(reserve)

    async def abandon_blobs(
        self, namespace: str, blob_ids: Sequence[str], *, grace_us: int
    ) -> None:
        def abandon(conn: sqlite3.Connection, now: int) -> None:
            conn.execute(sql.ABANDON, (now + grace_us, namespace, json.dumps(blob_ids)))

        await self._write(abandon)

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        def resolve(conn: sqlite3.Connection, now: int) -> Resolved:
            ids = json.dumps(blob_ids)
            conn.execute(sql.ABANDON, (now + grace_us, namespace, ids))
            known, committed = conn.execute(sql.COMMITTED, (namespace, ids)).fetchone()
            row = conn.execute(sql.CARRIES, (namespace, json.dumps(keys), write_id)).fetchone()
            if row is not None or committed:
                return Resolved(Outcome.STORED, None if row is None else row[0])
            return Resolved(Outcome.FAILED if known else Outcome.UNKNOWN)

        return await self._write(resolve)

    async def resolve_removal(
        self, namespace: str, write_id: str, keys: Sequence[str]
    ) -> list[str]:
        def find(conn: sqlite3.Connection, _now: int) -> list[str]:
            found = conn.execute(sql.REMOVED_BY, (namespace, json.dumps(keys), write_id))
            return [key for (key,) in found]

        return await self._write(find)  # behind whatever is still under way

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        def take(conn: sqlite3.Connection, now: int) -> list[DueBlob]:
            due = _due(conn, namespace, now, limit)
            ids = json.dumps([blob.blob_id for blob in due])
            conn.execute(sql.PUT_OFF, (now + backoff_us, namespace, ids))
            feed.prune_deletions(conn, namespace, now, limit)
            return due

        return await self._write(take)

    async def due_blobs(self, namespace: str, limit: int) -> list[DueBlob]:
        return await self._read(lambda conn, now: _due(conn, namespace, now, limit))

    async def forget_blobs(self, namespace: str, blob_ids: Sequence[str]) -> None:
        def forget(conn: sqlite3.Connection, _now: int) -> None:
            conn.execute(sql.FORGET, (namespace, json.dumps(blob_ids)))

        await self._write(forget)

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        def page(conn: sqlite3.Connection, _now: int) -> list[LedgerBlob]:
            found = conn.execute(sql.LIST_BLOBS, (namespace, after, limit)).fetchall()
            return list(map(LedgerBlob._make, found))

        return await self._read(page)

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        def known(conn: sqlite3.Connection, _now: int) -> Collection[str]:
            found = conn.execute(sql.KNOWN, (namespace, json.dumps(blob_ids)))
            return {blob_id for (blob_id,) in found}

        return await self._read(known)

    async def stats(self, namespace: str) -> CatalogStats:
        def count(conn: sqlite3.Connection, now: int) -> CatalogStats:
            entries = conn.execute(sql.ENTRY_STATS, (now, namespace)).fetchone()
            blobs = conn.execute(sql.BLOB_STATS, (namespace,)).fetchone()
            return CatalogStats(*entries, *blobs)

        return await self._read(count)

    async def create_snapshot(self, namespace: str, snapshot_id: str, name: str) -> SnapshotRow:
        # Counted outside of the writers' lock: it may take its time.
        moment = await self._read(lambda conn, now: feed.read_moment(conn, namespace, now))
        return await self._write(
            lambda conn, now: feed.take_snapshot(conn, namespace, now, snapshot_id, name, moment)
        )

    async def get_snapshot(self, namespace: str, snapshot_id: str) -> SnapshotRow | None:
        return await self._read(lambda conn, _now: feed.find_snapshot(conn, namespace, snapshot_id))

    async def delete_snapshot(self, namespace: str, snapshot_id: str) -> bool:
        bound = (namespace, snapshot_id)
        return await self._write(
            lambda conn, _now: conn.execute(sql.DELETE_SNAPSHOT, bound).rowcount == 1
        )

    async def list_changes(self, namespace: str, since: str, limit: int) -> ChangePage:
        place = VersionPass.of(since)
        return await self._read(
            lambda conn, now: feed.page_of_changes(conn, namespace, now, place, limit)
        )

    @staticmethod
    def _remove(
        conn: sqlite3.Connection,
        now: int,
        namespace: str,
        live: Mapping[str, bool],
        write_id: str,
    ) -> list[Removed]:
        """Remove the rows of *live*, which says of each key whether it was."""
        if not live:
            return []
        keys = json.dumps(list(live))
        version, has_texts, has_vectors = conn.execute(sql.NEXT_VERSION).fetchone()
        conn.execute(sql.DELETE, (namespace, keys))
        if has_texts:
            texts.drop(conn, namespace, keys)
        if has_vectors:
            vectors.drop(conn, namespace, keys)
        # What the ledger says was theirs, not what a row said: that may be another's.
        dead = dict(conn.execute(sql.RETIRE_OTHERS, (now, namespace, keys, "[]")).fetchall())
        conn.executemany(
            sql.ENTOMB,
            [
                (namespace, key, version, write_id, now, not was_live)
                for key, was_live in live.items()
            ],
        )
        return [Removed(key, was_live, dead.get(key)) for key, was_live in live.items()]

    async def _read(self, query: Callable[[sqlite3.Connection, int], T]) -> T:
        _, reader = self._open_lanes()
        return await reader.run(lambda conn: self._query(query, conn))

    def _query(self, query: Callable[[sqlite3.Connection, int], T], conn: sqlite3.Connection) -> T:
        try:
            return query(conn, self._clock())
        except sqlite3.OperationalError as exc:
            if not is_undecodable(exc):
                raise
        # One damaged row must not hide the others: what is no UTF-8 will give it away.
        conn.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        try:
            return query(conn, self._clock())
        finally:
            conn.text_factory = str

    async def _write(self, change: Callable[[sqlite3.Connection, int], T]) -> T:
        writer, _ = self._open_lanes()
        return await writer.run(lambda conn: change(conn, self._clock()))

    def _open_lanes(self) -> tuple[Lane, Lane]:
        if self._closed:
            raise ClosedError("the sqlite catalog is closed")
        if self._path == ":memory:" and self._lanes.inherited:
            raise ClosedError("a catalog in memory stays in the process that filled it")
        return self._lanes.get()

    def _make_lanes(self) -> tuple[Lane, Lane]:
        writer = Lane(
            "ltm-sqlite-writer", partial(connect, self._path, self._synchronous), together
        )
        if self._path == ":memory:":
            return writer, writer
        reader = Lane(
            "ltm-sqlite-reader", lambda: connect_reader(self._path, self._synchronous), one_by_one
        )
        return writer, reader


def _within(namespace: str, prefix: str, after: str) -> dict[str, object]:
    """What the statements of a listing bind for the keys below *prefix* and above *after*."""
    end = prefix_end(prefix)
    return {
        "namespace": namespace,
        "start": max(prefix, after + "\0" if after else ""),
        "end": b"" if end is None else end,  # every text sorts before every blob
    }


def _due(conn: sqlite3.Connection, namespace: str, now: int, limit: int) -> list[DueBlob]:
    return list(map(DueBlob._make, conn.execute(sql.DUE, (namespace, now, limit)).fetchall()))
