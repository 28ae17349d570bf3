"""SupabaseCatalog: every operation is one request, which calls one function of the database."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...cursors import DELETIONS_KEPT_US
from ...entry import Expiry
from ...errors import ClosedError
from ...filters import Filter
from ...jsonpath import as_arguments
from ...passes import SnapshotPass, to_snapshot
from ...protocols import (
    MAX_COUNTED,
    Catalog,
    CatalogStats,
    ChangePage,
    DueBlob,
    LedgerBlob,
    Matches,
    Near,
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
from ...sql_functions import (
    end_of,
    in_lock_order,
    to_commit,
    to_near,
    to_nearest,
    to_page,
    to_resolved,
    to_written,
)
from ...text import Query
from ...tsearch import answer, ask
from .connecting import Isolation, close, connect, isolation
from .options import NAME, AccessToken, ClientKey, check_options

if TYPE_CHECKING:
    from .client import Client

BATCH_BYTES = 32 * 1024 * 1024
"""Twice that once it is escaped, which is below what gateways take: 100 MB at Supabase's."""


class SupabaseCatalog(Catalog):
    """A catalog in one schema of a Supabase project, or of any PostgreSQL behind PostgREST.

    Each operation is one ``POST`` that calls a function of the database: one request, one
    transaction, and nothing of the entries in a URL. What a user may read and write is decided by
    row-level security: the namespaces that are the ``sub`` of their JWT, or begin with it and a
    slash. The tables and functions are not made by the library: ``ltm schema supabase`` prints
    what to run. Catalogs with the same arguments share a client in each process and event loop.

    Args:
        url: ``supabase://reference``, or the project's URL. TLS is verified; plain http is for this
            machine alone.
        key: The project's publishable or anon key; None for ``SUPABASE_KEY`` of the environment, or
            ``SUPABASE_SERVICE_ROLE_KEY`` with *service_role*.
        access_token: The user's JWT, or an async function that returns one that is valid now: it
            is called for the first request, and again once the server has refused what it
            returned. None for ``SUPABASE_USER_TOKEN``; without any, nothing can be read.
        schema: Where the tables and functions are; the project's API must expose it.
        service_role: *key* is that of the role that sees every user's rows, and it is meant to be.
        rest_path: Where the REST API is; ``/`` for a PostgREST of one's own.
        max_connections: At most, in each process and event loop.

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = NAME
    batch_bytes = BATCH_BYTES
    _clients: ClassVar[Shared[ClientKey, Client]] = Shared(connect, close)

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        access_token: AccessToken | None = None,
        schema: str = "public",
        service_role: bool = False,
        rest_path: str = "/rest/v1",
        max_connections: int = 20,
    ) -> None:
        client_key = check_options(
            url,
            key=key,
            access_token=access_token,
            schema=schema,
            service_role=service_role,
            rest_path=rest_path,
            max_connections=max_connections,
            environ=os.environ,
        )
        self._shown = client_key.rest_url
        self._share = self._clients.share(client_key)
        self._closed = False

    def __repr__(self) -> str:
        return f"SupabaseCatalog({self._shown!r})"

    async def open(self) -> None:
        self._check_open()
        await self._share.get()

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()

    async def isolation(self) -> Isolation:
        """What role this catalog's requests have, and what its users see of each other."""
        self._check_open()
        return await isolation(await self._share.get())

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        ordered = in_lock_order(writes)
        commit = to_commit(namespace, ordered)
        (found,) = await self._call(
            "commit",
            {"in_namespace": namespace, "in_write_id": write_id, **commit._asdict()},
            keys=commit.in_keys,
            versions=commit.in_versions or (),
        )
        return to_written(ordered, *found)

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        found = await self._call("get", {"in_namespace": namespace, "in_keys": keys})
        return list(map(Row._make, found))

    async def touch_entry(
        self,
        namespace: str,
        key: str,
        *,
        expiry: Expiry | None,
        metadata: str | None,
        write_id: str,
    ) -> Row | None:
        ttl_us, at_us = expiry or (None, None)
        found = await self._call(
            "touch",
            {
                "in_namespace": namespace,
                "in_key": key,
                "in_write_id": write_id,
                "in_new_expiry": expiry is not None,
                "in_ttl": ttl_us,
                "in_end": at_us,
                "in_metadata": metadata,
            },
        )
        return Row._make(found[0]) if found else None

    async def delete_entries_batch(
        self,
        namespace: str,
        keys: Sequence[str],
        *,
        write_id: str,
        if_version: int | None = None,
    ) -> list[Removed]:
        found = await self._call(
            "delete",
            {
                "in_namespace": namespace,
                "in_keys": keys,
                "in_write_id": write_id,
                "in_if_version": if_version,
            },
            keys=keys,
            versions=[if_version] * len(keys),
        )
        return list(map(Removed._make, found))

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        found = await self._call(
            "list",
            {
                "in_namespace": namespace,
                "in_start": prefix,
                "in_after": after,
                "in_end": end_of(prefix),
                "in_limit": limit,
            },
        )
        return list(map(Row._make, found))

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
        path, variables = as_arguments(wanted)
        found = await self._call(
            "filter",
            {
                "in_namespace": namespace,
                "in_start": prefix,
                "in_after": after,
                "in_end": end_of(prefix),
                "in_path": path,
                "in_variables": variables,
                "in_wanted": limit,
                "in_limit": most,
            },
        )
        return to_page(found, limit, most)

    async def search_entries(
        self, namespace: str, query: Query, *, wanted: Filter | None, limit: int
    ) -> Matches:
        asked = ask(namespace, query, wanted, limit)
        found = await self._call(
            "search",
            {
                "in_namespace": namespace,
                "in_query": asked.query,
                "in_terms": asked.terms,
                "in_words": asked.words,
                "in_prefixes": asked.prefixes,
                "in_path": asked.path,
                "in_variables": asked.variables,
                "in_best": asked.limit,
                "in_most": asked.most,
                "in_counted": asked.counted,
            },
        )
        return answer(query, found)

    async def nearest_entries(
        self, namespace: str, vector: bytes, *, wanted: Filter | None, limit: int
    ) -> list[Near]:
        return to_near(
            await self._call(
                "nearest",
                {"in_namespace": namespace, **to_nearest(vector, wanted, limit)._asdict()},
            )
        )

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        found = await self._call(
            "expire", {"in_namespace": namespace, "in_limit": limit, "in_write_id": write_id}
        )
        return list(map(Removed._make, found))

    async def reserve_blobs(
        self, namespace: str, blobs: Sequence[Reservation], *, lease_us: int
    ) -> Mapping[str, str]:
        blob_ids, keys, hashes, sizes = zip(*blobs, strict=True)
        found = await self._call(
            "reserve",
            {
                "in_namespace": namespace,
                "in_blob_ids": blob_ids,
                "in_keys": keys,
                "in_hashes": hashes,
                "in_sizes": sizes,
                "in_lease": lease_us,
            },
        )
        return dict(found)

    async def abandon_blobs(
        self, namespace: str, blob_ids: Sequence[str], *, grace_us: int
    ) -> None:
        await self._call(
            "abandon", {"in_namespace": namespace, "in_blob_ids": blob_ids, "in_grace": grace_us}
        )

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        (found,) = await self._call(
            "resolve_write",
            {
                "in_namespace": namespace,
                "in_write_id": write_id,
                "in_keys": keys,
                "in_blob_ids": blob_ids,
                "in_grace": grace_us,
            },
        )
        return to_resolved(*found)

    async def resolve_removal(
        self, namespace: str, write_id: str, keys: Sequence[str]
    ) -> list[str]:
        found = await self._call(
            "resolve_removal",
            {"in_namespace": namespace, "in_write_id": write_id, "in_keys": keys},
        )
        return [key for (key,) in found]

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        found = await self._call(
            "take_due",
            {
                "in_namespace": namespace,
                "in_limit": limit,
                "in_backoff": backoff_us,
                "in_keep_deletions": DELETIONS_KEPT_US,
            },
        )
        return list(map(DueBlob._make, found))

    async def due_blobs(self, namespace: str, limit: int) -> list[DueBlob]:
        found = await self._call("due", {"in_namespace": namespace, "in_limit": limit})
        return list(map(DueBlob._make, found))

    async def forget_blobs(self, namespace: str, blob_ids: Sequence[str]) -> None:
        await self._call("forget", {"in_namespace": namespace, "in_blob_ids": blob_ids})

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        found = await self._call(
            "ledger", {"in_namespace": namespace, "in_after": after, "in_limit": limit}
        )
        return list(map(LedgerBlob._make, found))

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        found = await self._call("known", {"in_namespace": namespace, "in_blob_ids": blob_ids})
        return {blob_id for (blob_id,) in found}

    async def create_snapshot(self, namespace: str, snapshot_id: str, name: str) -> SnapshotRow:
        found = await self._call(
            "snapshot",
            {
                "in_namespace": namespace,
                "in_id": snapshot_id,
                "in_name": name,
                "in_limit": MAX_COUNTED,
            },
        )
        return to_snapshot(found[0])

    async def get_snapshot(self, namespace: str, snapshot_id: str) -> SnapshotRow | None:
        found = await self._call("find_snapshot", {"in_namespace": namespace, "in_id": snapshot_id})
        return to_snapshot(found[0]) if found else None

    async def delete_snapshot(self, namespace: str, snapshot_id: str) -> bool:
        asked = {"in_namespace": namespace, "in_id": snapshot_id}
        return bool(await self._call("delete_snapshot", asked))

    async def list_changes(self, namespace: str, since: str, limit: int) -> ChangePage:
        place = SnapshotPass.of(since)
        found = await self._call(
            "changes",
            {
                "in_namespace": namespace,
                "in_since": place.since,
                "in_upper": place.upper,
                "in_after": place.after,
                "in_after_key": place.key,
                "in_limit": limit,
            },
        )
        return place.page(found, limit)

    async def stats(self, namespace: str) -> CatalogStats:
        return CatalogStats._make((await self._call("stats", {"in_namespace": namespace}))[0])

    async def _call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        *,
        keys: Sequence[str] = (),
        versions: Sequence[int | None] = (),
    ) -> list[Any]:
        """The rows that *function* gives; *keys* and *versions* are for a conflict's error."""
        self._check_open()
        client = await self._share.get()
        rows: list[Any] = await client.call(f"ltm_rpc_{function}", arguments, keys, versions)
        return rows

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the supabase catalog is closed")
