"""PostgresCatalog: every operation is one call of a function of the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...cursors import DELETIONS_KEPT_US
from ...dsn import Address
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
from .columns import query, sent
from .connecting import close, connect
from .options import PoolKey

if TYPE_CHECKING:
    from .pool import Connections


class PostgresCatalog(Catalog):
    """A catalog in one schema of a PostgreSQL database, version 13 or newer.

    Each operation is one call of a set-based function: one round trip, one transaction. Catalogs
    with the same arguments share a pool of connections in each process and event loop. The
    database's tables and functions are made and updated on first use, unless *install* is false.

    Args:
        dsn: ``postgresql://user:password@host:port/database``, with libpq's options in its query.
            TLS is on and the server's certificate and name are verified, but to this machine, or
            where the URL has an ``sslmode`` of its own.
        schema: Where the tables and functions are.
        min_size: Connections opened at once and kept; 0 suits a function that is rarely called.
        max_size: Connections at most, in each process and event loop.
        pooler: A pooler in transaction mode, such as PgBouncer or Supavisor, stands before the
            server, so no statement is prepared: with the way through it, each call takes some 0.3
            ms more. None finds out.
        install: Make or update the tables and functions where that is needed; false for a role
            that may not (``ltm schema postgres`` prints what another one has to run).

    Raises:
        ConfigError: An argument cannot be used.
    """

    name = "postgres"
    _pools: ClassVar[Shared[PoolKey, Connections]] = Shared(connect, close)

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "public",
        min_size: int = 1,
        max_size: int = 10,
        pooler: bool | None = None,
        install: bool = True,
    ) -> None:
        address = Address.of(dsn)
        key = PoolKey(address, schema, min_size, max_size, pooler, install)
        self._shown = address.shown
        self._schema = schema
        self._share = self._pools.share(key)
        self._closed = False

    def __repr__(self) -> str:
        return f"PostgresCatalog({self._shown!r})"

    async def open(self) -> None:
        self._check_open()
        await self._share.get()

    async def aclose(self) -> None:
        self._closed = True
        await self._share.release()

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        ordered = in_lock_order(writes)
        commit = to_commit(namespace, ordered)
        found = await self._call(
            "commit",
            namespace,
            write_id,
            *commit,
            keys=commit.in_keys,
            versions=commit.in_versions or (),
        )
        return to_written(ordered, *found[0])

    async def get_entries_batch(self, namespace: str, keys: Sequence[str]) -> list[Row]:
        return list(map(Row._make, await self._call("get", namespace, keys)))

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
            "touch", namespace, key, write_id, expiry is not None, ttl_us, at_us, metadata
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
            namespace,
            keys,
            write_id,
            if_version,
            keys=keys,
            versions=[if_version] * len(keys),
        )
        return list(map(Removed._make, found))

    async def list_entries(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int
    ) -> list[Row]:
        found = await self._call("list", namespace, prefix, after, end_of(prefix), limit)
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
        found = await self._call(
            "filter",
            namespace,
            prefix,
            after,
            end_of(prefix),
            *as_arguments(wanted),
            limit,
            most,
        )
        return to_page(found, limit, most)

    async def search_entries(
        self, namespace: str, query: Query, *, wanted: Filter | None, limit: int
    ) -> Matches:
        return answer(
            query, await self._call("search", namespace, *ask(namespace, query, wanted, limit))
        )

    async def nearest_entries(
        self, namespace: str, vector: bytes, *, wanted: Filter | None, limit: int
    ) -> list[Near]:
        return to_near(await self._call("nearest", namespace, *to_nearest(vector, wanted, limit)))

    async def expire_entries(self, namespace: str, limit: int, *, write_id: str) -> list[Removed]:
        return list(map(Removed._make, await self._call("expire", namespace, limit, write_id)))

    async def reserve_blobs(
        self, namespace: str, blobs: Sequence[Reservation], *, lease_us: int
    ) -> Mapping[str, str]:
        blob_ids, keys, hashes, sizes = zip(*blobs, strict=True)
        found = await self._call("reserve", namespace, blob_ids, keys, hashes, sizes, lease_us)
        return dict(found)

    async def abandon_blobs(
        self, namespace: str, blob_ids: Sequence[str], *, grace_us: int
    ) -> None:
        await self._call("abandon", namespace, blob_ids, grace_us)

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        found = await self._call("resolve_write", namespace, write_id, keys, blob_ids, grace_us)
        return to_resolved(*found[0])

    async def resolve_removal(
        self, namespace: str, write_id: str, keys: Sequence[str]
    ) -> list[str]:
        return [key for (key,) in await self._call("resolve_removal", namespace, write_id, keys)]

    async def take_due_blobs(self, namespace: str, limit: int, *, backoff_us: int) -> list[DueBlob]:
        found = await self._call("take_due", namespace, limit, backoff_us, DELETIONS_KEPT_US)
        return list(map(DueBlob._make, found))

    async def due_blobs(self, namespace: str, limit: int) -> list[DueBlob]:
        return list(map(DueBlob._make, await self._call("due", namespace, limit)))

    async def forget_blobs(self, namespace: str, blob_ids: Sequence[str]) -> None:
        await self._call("forget", namespace, blob_ids)

    async def list_blobs(self, namespace: str, *, after: str = "", limit: int) -> list[LedgerBlob]:
        return list(map(LedgerBlob._make, await self._call("ledger", namespace, after, limit)))

    async def known_blobs(self, namespace: str, blob_ids: Sequence[str]) -> Collection[str]:
        return {blob_id for (blob_id,) in await self._call("known", namespace, blob_ids)}

    async def stats(self, namespace: str) -> CatalogStats:
        return CatalogStats._make((await self._call("stats", namespace))[0])

    async def create_snapshot(self, namespace: str, snapshot_id: str, name: str) -> SnapshotRow:
        found = await self._call("snapshot", namespace, snapshot_id, name, MAX_COUNTED)
        return to_snapshot(found[0])

    async def get_snapshot(self, namespace: str, snapshot_id: str) -> SnapshotRow | None:
        found = await self._call("find_snapshot", namespace, snapshot_id)
        return to_snapshot(found[0]) if found else None

    async def delete_snapshot(self, namespace: str, snapshot_id: str) -> bool:
        return bool(await self._call("delete_snapshot", namespace, snapshot_id))

    async def list_changes(self, namespace: str, since: str, limit: int) -> ChangePage:
        place = SnapshotPass.of(since)
        return place.page(await self._call("changes", namespace, *place, limit), limit)

    async def _call(
        self,
        function: str,
        *arguments: Any,
        keys: Sequence[str] = (),
        versions: Sequence[int | None] = (),
    ) -> list[Any]:
        """The rows that *function* gives; *keys* and *versions* are for a conflict's error."""
        self._check_open()
        connections = await self._share.get()
        return await connections.fetch(
            query(self._schema, function, len(arguments)),
            sent(function, arguments),
            keys,
            versions,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the postgres catalog is closed")
