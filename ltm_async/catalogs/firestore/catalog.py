"""FirestoreCatalog: read what is there, then one commit that holds only if it is still so."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import ClassVar, TypeVar

from ...entry import NEVER, Expiry, prefix_end
from ...errors import ClosedError, ConflictError, FencedError, StoreError, UnavailableError
from ...protocols import (
    Catalog,
    CatalogStats,
    DueBlob,
    LedgerBlob,
    Outcome,
    Removed,
    Reservation,
    Resolved,
    Row,
    Write,
    Written,
)
from ...shared import Shared
from . import layout
from .changes import Changes, StaleError, Usage
from .client import Client, ClientKey, close, connect
from .documents import Documents
from .layout import Document, Range
from .options import TRANSPORTS, check_options
from .statuses import NAME

T = TypeVar("T")

ENTRIES = "ltm_entries"
BLOBS = "ltm_blobs"
DELETIONS = "ltm_deletions"
DELETIONS_KEPT_US = 7 * 86_400 * 1_000_000
BATCH_BYTES = 8 * 1024 * 1024
"""Of the 10 MiB that a request may have (https://firebase.google.com/docs/firestore/quotas)."""
ROUNDS = 10
"""How often documents that changed meanwhile are read again."""
FIRST_WAIT_S = 0.01
LONGEST_WAIT_S = 0.5
AHEAD_US = 1_000_000
"""By how much the server's clock may be ahead of what is reckoned."""


class FirestoreCatalog(Catalog):
    """A catalog in one Firestore database, in native mode.

    A batch is one commit, each of whose writes expects its document as it was read right before:
    what changed meanwhile is read again. Catalogs of one project and database share a client in
    each process and event loop. No index has to be made; see README for those to switch off.
    gRPC does not survive a fork, so a process that has connected cannot use it in a child.

    Args:
        project: Its id; None for that of the environment.
        database: Its id; None for ``(default)``.
        collection_prefix: Before ``ltm_entries``, ``ltm_blobs`` and ``ltm_deletions``; of letters,
            digits, ``_`` and ``-``.
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
        self._clock = clock
        self._shown = f"{project or ''}/{database or ''}".rstrip("/")
        emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
        self._share = self._clients.share(
            ClientKey(project, database, credentials_file, emulator, transport)
        )
        self._usage = Usage()
        self._known_now: tuple[int, float] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"FirestoreCatalog({self._shown!r})"

    @property
    def usage(self) -> Usage:
        """Requests made, and documents read, written and deleted so far, as they are billed."""
        return self._usage

    async def open(self) -> None:
        await self._server_now(await self._documents())

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        space = layout.space_of(namespace)
        named = {layout.entry_name(namespace, write.key): write for write in writes}
        fresh = {
            layout.blob_name(space, write.blob_id): write
            for write in writes
            if write.blob_id is not None
        }
        fields = (*layout.COMPARED_FIELDS, "state")

        async def attempt(documents: Documents) -> Written:
            found = await documents.read({ENTRIES: named, BLOBS: fresh}, fields=fields)
            now_us = self._learn(found.now_us)
            present = found.documents
            ended = sum(_state(present.get(name)) != "pending" for name in fresh)
            if ended:
                raise FencedError(
                    f"{NAME}: {ended} of {len(fresh)} reservations have ended", store=NAME
                )
            changes = Changes()
            unchanged: list[str] = []
            ends: dict[str, int] = {}
            replaced: dict[str, str] = {}
            for name, write in named.items():
                seen = present.get(name)
                live = seen if seen is not None and layout.is_live(seen, now_us) else None
                _check_version(write.key, write.if_version, live)
                blob_id = write.blob_id
                if blob_id is None and write.inlined_value is None:
                    blob_id = _renewed(write, seen)
                if live is not None and live.data.get("content_hash") == write.content_hash:
                    unchanged.append(write.key)
                ends_at = None if write.expiry is NEVER else write.expiry.resolve(now_us)
                if ends_at is not None:
                    ends[write.key] = ends_at
                data = layout.entry_data(
                    namespace,
                    write,
                    write_id=write_id,
                    now_us=now_us,
                    created_at=_created_at(live, now_us),
                    blob_id=blob_id,
                    ends_at=ends_at,
                )
                if seen is None:
                    changes.create(ENTRIES, name, data)
                    continue
                changes.replace(ENTRIES, seen, data)
                held = layout.blob_of(seen)
                if held is not None and held != blob_id:
                    replaced[held] = write.key
            for name in fresh:
                live_now = {**layout.state_data(space, "live", None), "committed": True}
                changes.replace(BLOBS, present[name], live_now)
            await self._retire(documents, changes, space, replaced, now_us)
            version = await documents.commit(changes)
            return Written(version, unchanged, ends)

        return await self._settled(attempt)

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        named = {layout.entry_name(namespace, key): key for key in keys}
        if not named:
            return []
        documents = await self._documents()
        found = await documents.read({ENTRIES: named}, fields=layout.ROW_FIELDS)
        now_us = self._learn(found.now_us)
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
            now_us = self._learn(found.now_us)
            seen = found.documents.get(name)
            if seen is None or not layout.is_live(seen, now_us):
                return None
            data: dict[str, object] = {"write_id": write_id, "updated_at": now_us}
            if expiry is not None:
                data |= layout.end_data(space, expiry.resolve(now_us))
            if metadata is not None:
                data["metadata"] = metadata
            changes = Changes()
            changes.replace(ENTRIES, seen, data)
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
            now_us = self._learn(found.now_us)
            present = {named[name]: document for name, document in found.documents.items()}
            if if_version is not None:
                live = {key for key in present if layout.is_live(present[key], now_us)}
                for key in live or keys[:1]:
                    _check_version(key, if_version, present[key] if key in live else None)
            return await self._remove(documents, namespace, present, write_id, now_us)

        return await self._settled(attempt)

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        documents = await self._documents()
        space = layout.space_of(namespace)
        end = prefix_end(prefix)
        high = layout.after_all(space) if end is None else space + end
        start = max(prefix, after + "\0" if after else "")
        rows: list[Row] = []
        while len(rows) < limit:
            found = await documents.query(
                ENTRIES,
                Range("place", space + start, high),
                limit=limit,
                fields=(*layout.HEAD_FIELDS, "place"),
            )
            for document in found.documents.values():
                key = str(document.data["place"])[len(space) :]
                start = key + "\0"
                if layout.is_live(document, self._clock(found.now_us)) and len(rows) < limit:
                    rows.append(layout.to_row(key, document))
            if len(found.documents) < limit:
                break
        return rows

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        space = layout.space_of(namespace)

        async def attempt(documents: Documents) -> list[Removed]:
            within = await self._up_to_now(documents, "ends", space)
            found = await documents.query(
                ENTRIES, within, limit=limit, fields=(*layout.REMOVED_FIELDS, "ends")
            )
            now_us = self._clock(found.now_us)
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
            due_at = self._learn(found.now_us) + lease_us
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
                await self._check_reserved(documents, space, named.values(), held)
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
            if mark.data.get("write_id") == write_id
        ]

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        space = layout.space_of(namespace)

        async def attempt(documents: Documents) -> list[DueBlob]:
            due, now_us = await self._due(documents, space, limit)
            changes = Changes()
            later = {**layout.state_data(space, "dead", now_us + backoff_us)}
            for blob in due:
                changes.replace(BLOBS, blob, later)
            old = Range(
                "age", layout.first_of(space), layout.instant(space, now_us - DELETIONS_KEPT_US)
            )
            marks = await documents.query(DELETIONS, old, limit=limit, fields=("age",))
            for name, mark in marks.documents.items():
                changes.delete(DELETIONS, name, updated=mark.updated)
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
            blobs = await self._ledger(documents, namespace, blob_ids)
            changes = Changes()
            for blob in blobs:
                if blob.data.get("state") == "dead":
                    changes.delete(BLOBS, blob.name, updated=blob.updated)
            if changes:
                await documents.commit(changes)

        await self._settled(attempt)

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        documents = await self._documents()
        space = layout.space_of(namespace)
        low = space + (after + "\0" if after else "")
        blobs = await documents.query(
            BLOBS, Range("place", low, layout.after_all(space)), limit=limit
        )
        if not blobs.documents:
            return []
        found = list(blobs.documents.values())
        entries = {layout.entry_name(namespace, str(blob.data["key"])): None for blob in found}
        named = await documents.read({ENTRIES: entries}, fields=("blob_id",))
        held = {document.data.get("blob_id") for document in named.documents.values()}
        return [
            LedgerBlob(
                blob.data["blob_id"],
                blob.data["key"],
                blob.data["state"],
                blob.data["byte_size"],
                blob.data["blob_id"] in held,
            )
            for blob in found
        ]

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        documents = await self._documents()
        blobs = await self._ledger(documents, namespace, blob_ids)
        return {blob.data["blob_id"] for blob in blobs}

    async def stats(self, namespace: str) -> CatalogStats:
        documents = await self._documents()
        space = layout.space_of(namespace)
        everything = Range("place", space, layout.after_all(space))
        entries = await documents.query(
            ENTRIES, everything, limit=None, fields=("expires_at", "blob_id", "byte_size", "place")
        )
        blobs = await documents.query(
            BLOBS, everything, limit=None, fields=("state", "byte_size", "place")
        )
        now_us = self._clock(entries.now_us)
        live = [entry for entry in entries.documents.values() if layout.is_live(entry, now_us)]
        inlined = [entry.data["byte_size"] for entry in live if entry.data["blob_id"] is None]
        states = [blob.data["state"] for blob in blobs.documents.values()]
        return CatalogStats(
            entries=len(live),
            expired=len(entries.documents) - len(live),
            inlined=len(inlined),
            inlined_bytes=sum(inlined),
            blobs=states.count("live"),
            blob_bytes=sum(
                blob.data["byte_size"]
                for blob in blobs.documents.values()
                if blob.data["state"] == "live"
            ),
            pending_blobs=states.count("pending"),
            dead_blobs=states.count("dead"),
        )

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
        changes = Changes()
        blobs: dict[str, str] = {}
        for key, document in present.items():
            changes.delete(ENTRIES, document.name, updated=document.updated)
            changes.put(DELETIONS, document.name, layout.mark_data(space, key, write_id, now_us))
            blob_id = layout.blob_of(document)
            if blob_id is not None:
                blobs[blob_id] = key
        dead = await self._retire(documents, changes, space, blobs, now_us)
        await documents.commit(changes)
        return [
            Removed(key, layout.is_live(document, now_us), dead.get(key))
            for key, document in present.items()
        ]

    async def _retire(
        self,
        documents: Documents,
        changes: Changes,
        space: str,
        blobs: Mapping[str, str],
        now_us: int,
    ) -> dict[str, str]:
        """Have *blobs* die that the ledger, too, says to be live and of their keys."""
        if not blobs:
            return {}
        named = {layout.blob_name(space, blob_id): blob_id for blob_id in blobs}
        found = await documents.read({BLOBS: named}, fields=layout.LEDGER_FIELDS)
        dead: dict[str, str] = {}
        for name, document in found.documents.items():
            key = blobs[named[name]]
            if document.data.get("state") == "live" and document.data.get("key") == key:
                changes.replace(BLOBS, document, layout.state_data(space, "dead", now_us))
                dead[key] = named[name]
        return dead

    async def _abandoned(
        self, namespace: str, blob_ids: Sequence[str], grace_us: int
    ) -> list[Document]:
        """Have those die that are pending; return all that the ledger has, as they were."""
        space = layout.space_of(namespace)

        async def attempt(documents: Documents) -> list[Document]:
            blobs = await self._ledger(documents, namespace, blob_ids)
            pending = [blob for blob in blobs if blob.data.get("state") == "pending"]
            if pending:
                due_at = await self._server_now(documents) + grace_us
                changes = Changes()
                for blob in pending:
                    changes.replace(BLOBS, blob, layout.state_data(space, "dead", due_at))
                await documents.commit(changes)
            return blobs

        return await self._settled(attempt)

    async def _ledger(
        self, documents: Documents, namespace: str, blob_ids: Iterable[str]
    ) -> list[Document]:
        space = layout.space_of(namespace)
        names = [layout.blob_name(space, blob_id) for blob_id in blob_ids]
        if not names:
            return []
        found = await documents.read({BLOBS: names})
        self._learn(found.now_us)
        return list(found.documents.values())

    async def _due(
        self, documents: Documents, space: str, limit: int
    ) -> tuple[list[Document], int]:
        within = await self._up_to_now(documents, "due", space)
        found = await documents.query(BLOBS, within, limit=limit)
        if not found.documents:
            return [], await self._server_now(documents)
        now_us = self._clock(found.now_us)
        return [blob for blob in found.documents.values() if blob.data["due_at"] <= now_us], now_us

    async def _check_reserved(
        self,
        documents: Documents,
        space: str,
        blobs: Iterable[Reservation],
        held: Mapping[str, str],
    ) -> None:
        names = [layout.blob_name(space, blob.blob_id) for blob in blobs if blob.key not in held]
        found = await documents.read({BLOBS: names}, fields=("state",))
        if len(found.documents) != len(names):
            raise StoreError(f"{NAME}: some names were reserved before", store=NAME)

    async def _up_to_now(self, documents: Documents, field: str, space: str) -> Range:
        now_us = await self._server_now(documents)
        return Range(field, layout.first_of(space), layout.instant(space, now_us + AHEAD_US))

    async def _server_now(self, documents: Documents) -> int:
        """The catalog's now: asked for once, and reckoned from then on."""
        if self._known_now is None:
            found = await documents.read({ENTRIES: ["now"]}, fields=("key",))
            return self._learn(found.now_us)
        server_us, heard_at = self._known_now
        return self._clock(server_us + round((time.monotonic() - heard_at) * 1e6))

    def _learn(self, server_us: int) -> int:
        """The catalog's now, for what a reply said of the server's."""
        self._known_now = server_us, time.monotonic()
        return self._clock(server_us)

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


def _state(document: Document | None) -> object:
    return None if document is None else document.data.get("state")


def _due_blob(document: Document) -> DueBlob:
    return DueBlob(document.data["blob_id"], document.data["byte_size"])


def _check_version(key: str, expected: int | None, live: Document | None) -> None:
    found = None if live is None else live.version
    if expected is not None and expected != (found or 0):
        raise ConflictError.between(key, expected, found)


def _renewed(write: Write, seen: Document | None) -> str:
    """The blob that stays under a key whose metadata and expiry are renewed."""
    blob_id = None if seen is None else layout.blob_of(seen)
    if blob_id is None or seen is None or seen.data.get("content_hash") != write.content_hash:
        raise FencedError(f"{NAME}: the value to renew changed", store=NAME)
    return blob_id


def _created_at(live: Document | None, now_us: int) -> int:
    made_at = None if live is None else live.data.get("created_at")
    return made_at if isinstance(made_at, int) and 0 <= made_at <= now_us else now_us
