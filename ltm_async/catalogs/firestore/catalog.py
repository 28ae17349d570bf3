"""FirestoreCatalog: read what is there, then one commit that holds only if it is still so."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import ClassVar, TypeVar

from ...entry import Expiry, last_key, prefix_end
from ...errors import ClosedError, StoreError, UnavailableError
from ...filters import Filter, may_match
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
from ...shared import Shared
from ...text import Query
from . import feed, layout, ledger, texts, vectors
from .changes import Changes, StaleError, Usage
from .client import Client, ClientKey, close, connect
from .committing import Batch, check_version
from .documents import Documents
from .layout import BLOBS, DELETIONS, ENTRIES, Document, Range
from .options import TRANSPORTS, check_options
from .server_time import ServerTime
from .statuses import NAME

T = TypeVar("T")

BATCH_BYTES = 8 * 1024 * 1024
"""Of the 10 MiB that a request may have (https://firebase.google.com/docs/firestore/quotas)."""
ROUNDS = 10
"""How often documents that changed meanwhile are read again."""
FIRST_WAIT_S = 0.01
LONGEST_WAIT_S = 0.5


class FirestoreCatalog(Catalog):
    """A catalog in one Firestore database, in native mode.

    A batch is one commit, each of whose writes expects its document as it was read right before:
    what changed meanwhile is read again. Catalogs of one project and database share a client in
    each process and event loop. No index has to be made but for vectors; see README for that and
    for those to switch off.
    gRPC does not survive a fork, so a process that has connected cannot use it in a child.

    Args:
        project: Its id; None for that of the environment.
        database: Its id; None for ``(default)``.
        collection_prefix: Before ``ltm_entries`` and the names of the other collections; of
            letters, digits, ``_`` and ``-``.
        credentials_file: A service account's; None for what the environment gives
            (https://cloud.google.com/docs/authentication/application-default-credentials).
        batch_bytes: What the rows of one commit may have together, 64 KiB to 9 MiB; a
            larger batch is cut.
        transport: ``official``, Google's own client, or ``light``, which makes the same requests
            by gRPC alone and so starts sooner.
        clock: Gives the catalog's now for the server's, both in microseconds since the epoch.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = NAME
    _clients: ClassVar[Shared[ClientKey, Client]] = Shared(connect, close)

    def __init__(
        self,
        project: str | None = None,
        *,
        database: str | None = None,
        collection_prefix: str = "",
        credentials_file: str | None = None,
        batch_bytes: int = BATCH_BYTES,
        transport: str = TRANSPORTS[0],
        clock: Callable[[int], int] = lambda server_us: server_us,
    ) -> None:
        check_options(project, database, collection_prefix, batch_bytes, transport)
        self.batch_bytes = batch_bytes
        self._prefix = collection_prefix
        self._time = ServerTime(clock)
        self._shown = f"{project or ''}/{database or ''}".rstrip("/")
        emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
        self._share = self._clients.share(
            ClientKey(project, database, credentials_file, emulator, transport)
        )
        self._usage = Usage()
        self._closed = False

    def __repr__(self) -> str:
        return f"FirestoreCatalog({self._shown!r})"

    @property
    def usage(self) -> Usage:
        """Requests made, and documents read, written and deleted so far, as they are billed."""
        return self._usage

    async def open(self) -> None:
        await self._time.now(await self._documents())

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        batch = Batch(namespace, writes, write_id)
        return await self._settled(lambda documents: batch.commit(documents, self._time))

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        named = {layout.entry_name(namespace, key): key for key in keys}
        if not named:
            return []
        documents = await self._documents()
        found = await documents.read({ENTRIES: named}, fields=layout.ROW_FIELDS)
        now_us = self._time.of(found.now_us)
        return [
            layout.to_row(named[name], document)
            for name, document in found.documents.items()
            if layout.is_live(document, now_us)
        ]

    async def touch_entry(
        self,
        namespace: str,
        key: str,
        *,
        expiry: Expiry | None,
        metadata: str | None,
        write_id: str,
    ) -> Row | None:
        space, name = layout.space_of(namespace), layout.entry_name(namespace, key)

        async def attempt(documents: Documents) -> Row | None:
            found = await documents.read({ENTRIES: [name]})
            now_us = self._time.of(found.now_us)
            seen = found.documents.get(name)
            if seen is None or not layout.is_live(seen, now_us):
                return None
            data: dict[str, object] = {"write_id": write_id, "updated_at": now_us}
            if expiry is not None:
                data |= layout.end_data(space, expiry.resolve(now_us))
            if metadata is not None:
                data["metadata"] = metadata
            changes = Changes()
            changes.replace(ENTRIES, seen, data, stamped=layout.changed_field(space))
            version = await documents.commit(changes)
            now = seen._replace(version=version, data={**seen.data, **data})
            return layout.to_row(key, now)

        return await self._settled(attempt)

    async def delete_entries_batch(
        self,
        namespace: str,
        keys: Sequence[str],
        *,
        write_id: str,
        if_version: int | None = None,
    ) -> list[Removed]:
        named = {layout.entry_name(namespace, key): key for key in keys}
        if not named:
            return []

        async def attempt(documents: Documents) -> list[Removed]:
            found = await documents.read({ENTRIES: named}, fields=layout.REMOVED_FIELDS)
            now_us = self._time.of(found.now_us)
            present = {named[name]: document for name, document in found.documents.items()}
            if if_version is not None:
                live = {key for key in present if layout.is_live(present[key], now_us)}
                for key in live or keys[:1]:
                    check_version(key, if_version, present[key] if key in live else None)
            return await self._remove(documents, namespace, present, write_id, now_us)

        return await self._settled(attempt)

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < limit:
            keys, live = await self._look(namespace, prefix, after, limit)
            rows += live
            if len(keys) < limit:
                break
            after = keys[-1]
        return rows[:limit]

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
        """Metadata is a text to Firestore: what it gives is filtered here, *limit* at a time."""
        limit = min(limit, most)
        keys, live = await self._look(namespace, prefix, after, limit)
        rows = [row for row in live if may_match(wanted, row.metadata)]
        return Page(rows, last_key(keys) if len(keys) == limit else None, len(keys))

    async def search_entries(
        self, namespace: str, query: Query, *, wanted: Filter | None, limit: int
    ) -> Matches:
        documents = await self._documents()
        return await texts.search(documents, self._time, namespace, query, wanted, limit)

    async def nearest_entries(
        self, namespace: str, vector: bytes, *, wanted: Filter | None, limit: int
    ) -> list[Near]:
        documents = await self._documents()
        return await vectors.nearest(documents, self._time, namespace, vector, wanted, limit)

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        space = layout.space_of(namespace)

        async def attempt(documents: Documents) -> list[Removed]:
            within = await self._time.up_to_now(documents, "ends", space)
            found = await documents.query(
                ENTRIES, within, limit=limit, fields=(*layout.REMOVED_FIELDS, "ends")
            )
            now_us = self._time.of(found.now_us)
            ended = {
                str(document.data["key"]): document
                for document in found.documents.values()
                if not layout.is_live(document, now_us)
            }
            return await self._remove(documents, namespace, ended, write_id, now_us)

        return await self._settled(attempt)

    async def reserve_blobs(
        self, namespace: str, blobs: Sequence[Reservation], *, lease_us: int
    ) -> Mapping[str, str]:
        space = layout.space_of(namespace)
        named = {layout.entry_name(namespace, blob.key): blob for blob in blobs}

        async def attempt(documents: Documents) -> Mapping[str, str]:
            found = await documents.read({ENTRIES: named}, fields=("content_hash", "blob_id"))
            due_at = self._time.of(found.now_us) + lease_us
            held: dict[str, str] = {}
            changes = Changes()
            for name, blob in named.items():
                seen = found.documents.get(name)
                blob_id = None if seen is None else layout.blob_of(seen)
                if blob_id and seen and seen.data["content_hash"] == blob.content_hash:
                    held[blob.key] = blob_id
                    continue
                changes.create(
                    BLOBS,
                    layout.blob_name(space, blob.blob_id),
                    layout.blob_data(
                        namespace, blob.blob_id, blob.key, blob.byte_size, "pending", due_at
                    ),
                )
            if not changes:
                return held
            try:
                await documents.commit(changes)
            except StaleError:
                # Their names are new, so these are our own, delivered before.
                await ledger.check_reserved(documents, space, named.values(), held)
            return held

        return await self._settled(attempt)

    async def abandon_blobs(
        self, namespace: str, blob_ids: Sequence[str], *, grace_us: int
    ) -> None:
        await self._abandoned(namespace, blob_ids, grace_us)

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        blobs = await self._abandoned(namespace, blob_ids, grace_us)
        documents = await self._documents()
        names = [layout.entry_name(namespace, key) for key in keys]
        found = await documents.read({ENTRIES: names}, fields=("write_id",))
        for document in found.documents.values():
            if document.data.get("write_id") == write_id:
                return Resolved(Outcome.STORED, document.version)
        if any(blob.data.get("committed") for blob in blobs):
            return Resolved(Outcome.STORED)
        return Resolved(Outcome.FAILED if blobs else Outcome.UNKNOWN)

    async def resolve_removal(
        self, namespace: str, write_id: str, keys: Sequence[str]
    ) -> list[str]:
        documents = await self._documents()
        named = {layout.entry_name(namespace, key): key for key in keys}
        found = await documents.read({DELETIONS: named})
        return [
            named[name]
            for name, mark in found.documents.items()
            if mark.data.get("write_id") == write_id and mark.data.get("expired") is False
        ]

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        space = layout.space_of(namespace)

        async def attempt(documents: Documents) -> list[DueBlob]:
            due, now_us = await self._due(documents, space, limit)
            changes = Changes()
            later = {**layout.state_data(space, "dead", now_us + backoff_us)}
            for blob in due:
                changes.replace(BLOBS, blob, later)
            await feed.prune_deletions(documents, changes, space, now_us, limit)
            if changes:
                await documents.commit(changes)
            return [_due_blob(blob) for blob in due]

        return await self._settled(attempt)

    async def due_blobs(self, namespace: str, limit: int) -> list[DueBlob]:
        documents = await self._documents()
        due, _ = await self._due(documents, layout.space_of(namespace), limit)
        return [_due_blob(blob) for blob in due]

    async def forget_blobs(self, namespace: str, blob_ids: Sequence[str]) -> None:
        async def attempt(documents: Documents) -> None:
            blobs = await ledger.find(documents, namespace, blob_ids)
            changes = Changes()
            for blob in blobs:
                if blob.data.get("state") == "dead":
                    changes.delete(BLOBS, blob.name, updated=blob.updated)
            if changes:
                await documents.commit(changes)

        await self._settled(attempt)

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        return await ledger.page(await self._documents(), namespace, after, limit)

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        documents = await self._documents()
        blobs = await ledger.find(documents, namespace, blob_ids)
        return {blob.data["blob_id"] for blob in blobs}

    async def stats(self, namespace: str) -> CatalogStats:
        return await ledger.count(await self._documents(), namespace, self._time)

    async def create_snapshot(self, namespace: str, snapshot_id: str, name: str) -> SnapshotRow:
        return await self._settled(
            lambda documents: feed.create_snapshot(
                documents, self._time, namespace, snapshot_id, name
            )
        )

    async def get_snapshot(self, namespace: str, snapshot_id: str) -> SnapshotRow | None:
        return await feed.get_snapshot(await self._documents(), namespace, snapshot_id)

    async def delete_snapshot(self, namespace: str, snapshot_id: str) -> bool:
        return await self._settled(
            lambda documents: feed.delete_snapshot(documents, namespace, snapshot_id)
        )

    async def list_changes(self, namespace: str, since: str, limit: int) -> ChangePage:
        place = feed.TimePass.of(since)
        documents = await self._documents()
        return await feed.list_changes(documents, self._time, namespace, place, limit)

    # What the operations have in common

    async def _settled(self, attempt: Callable[[Documents], Awaitable[T]]) -> T:
        """Do *attempt* until nothing that it had read was changed before its commit."""
        documents = await self._documents()
        for round_ in range(ROUNDS):
            try:
                return await attempt(documents)
            except StaleError:
                longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**round_)
                await asyncio.sleep(random.uniform(0, longest_s))
        raise UnavailableError(
            f"{NAME}: others change the same documents faster than they can be written", store=NAME
        )

    async def _remove(
        self,
        documents: Documents,
        namespace: str,
        present: Mapping[str, Document],
        write_id: str,
        now_us: int,
    ) -> list[Removed]:
        """Remove entries by key; their blobs die, and a mark remembers each."""
        if not present:
            return []
        space = layout.space_of(namespace)
        stamped = layout.changed_field(space)
        changes = Changes()
        blobs: dict[str, str] = {}
        for key, document in present.items():
            changes.delete(ENTRIES, document.name, updated=document.updated)
            expired = not layout.is_live(document, now_us)
            mark = layout.mark_data(space, key, write_id, now_us, expired=expired)
            changes.put(DELETIONS, document.name, mark, stamped=stamped)
            blob_id = layout.blob_of(document)
            if blob_id is not None:
                blobs[blob_id] = key
        dead = await ledger.retire(documents, changes, space, blobs, now_us)
        await documents.commit(changes)
        return [
            Removed(key, layout.is_live(document, now_us), dead.get(key))
            for key, document in present.items()
        ]

    async def _look(
        self, namespace: str, prefix: str, after: str, limit: int
    ) -> tuple[list[str], list[Row]]:
        """Up to *limit* keys in order, expired ones too, and the live rows among them."""
        documents = await self._documents()
        space = layout.space_of(namespace)
        end = prefix_end(prefix)
        start = max(prefix, after + "\0" if after else "")
        found = await documents.query(
            ENTRIES,
            Range("place", space + start, layout.after_all(space) if end is None else space + end),
            limit=limit,
            fields=(*layout.HEAD_FIELDS, "place"),
        )
        now_us = self._time.of(found.now_us)
        keyed = {
            str(document.data["place"])[len(space) :]: document
            for document in found.documents.values()
        }
        rows = [
            layout.to_row(key, document)
            for key, document in keyed.items()
            if layout.is_live(document, now_us)
        ]
        return list(keyed), rows

    async def _abandoned(
        self, namespace: str, blob_ids: Sequence[str], grace_us: int
    ) -> list[Document]:
        """Have those die that are pending; return all that the ledger has, as they were."""
        space = layout.space_of(namespace)

        async def attempt(documents: Documents) -> list[Document]:
            blobs = await ledger.find(documents, namespace, blob_ids)
            pending = [blob for blob in blobs if blob.data.get("state") == "pending"]
            if pending:
                due_at = await self._time.now(documents) + grace_us
                changes = Changes()
                for blob in pending:
                    changes.replace(BLOBS, blob, layout.state_data(space, "dead", due_at))
                await documents.commit(changes)
            return blobs

        return await self._settled(attempt)

    async def _due(
        self, documents: Documents, space: str, limit: int
    ) -> tuple[list[Document], int]:
        within = await self._time.up_to_now(documents, "due", space)
        found = await documents.query(BLOBS, within, limit=limit)
        if not found.documents:
            return [], await self._time.now(documents)
        now_us = self._time.of(found.now_us)
        return [blob for blob in found.documents.values() if blob.data["due_at"] <= now_us], now_us

    async def _documents(self) -> Documents:
        if self._closed:
            raise ClosedError("the firestore catalog is closed")
        if self._clients.inherited:
            raise StoreError(
                f"{NAME}: gRPC does not work in a child whose parent has connected: close the "
                "backend before the fork, or start the process by spawn",
                store=NAME,
            )
        client = await self._share.get()
        return Documents(client, self._prefix, self._usage)


def _due_blob(document: Document) -> DueBlob:
    return DueBlob(document.data["blob_id"], document.data["byte_size"])
