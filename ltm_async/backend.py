"""LTMBackend: the one place where a catalog and a blob store meet.

What only some programs need is imported by the method that needs it: a cold start is short.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from . import batching, collecting, reading, telemetry, writing
from .arguments import check_age, check_limit, checked_keys, expected_version
from .config import OPTION_NAMES, Options, check_names, check_timeout, expand_env, options_from
from .deadline import Deadline
from .drafting import draft_all, draft_one, hashed
from .entry import (
    MAX_NAMESPACE_BYTES,
    check_key,
    check_text,
    encode_metadata,
    to_datetime,
    to_expiry,
)
from .errors import ConfigError, InvalidEntryError, StoreError
from .protocols import BlobStore, Catalog
from .registry import plan_blob_store, plan_catalog
from .results import (
    ChangeInfo,
    ChangesResult,
    CleanupResult,
    CollectResult,
    DeleteBatchResult,
    DeleteResult,
    DeleteSnapshotResult,
    ListResult,
    RetrieveBatchResult,
    RetrieveResult,
    SearchResult,
    SnapshotResult,
    SnippetsResult,
    StatsResult,
    StoreBatchResult,
    StoreResult,
    TouchResult,
    VerifyResult,
)
from .retry import RetryPolicy
from .running import Runner
from .stores import Stores
from .transfer import both

if TYPE_CHECKING:
    from .encryption import Keyring
    from .filters import Filter
    from .vectors import Embed

MAX_CLEANUP = 100_000
CLOSE_TIMEOUT_S = 10.0
STRAY_AGE = timedelta(days=7)
_STORES = ("catalog", "storage", "storage_uri")


def _parsed(metadata_filter: Mapping[str, Any] | None) -> Filter | None:
    if metadata_filter is None:
        return None
    from .filters import parse_filter

    return parse_filter(metadata_filter)


class LTMBackend:
    """Long-term memory: values under keys, in a catalog and a blob store.

    A value whose canonical JSON is smaller than *inline_threshold* lives in its catalog row; a
    larger one is a blob. Nothing is opened and no driver imported before the first call or
    ``async with``. Usable from any event loop and thread, and after a fork.

    Args:
        catalog: ``"sqlite:///memory.db"``, ``"memory:"``, a mapping with the key ``type``, or
            a :class:`~ltm_async.protocols.Catalog`, which stays yours to close.
        storage_uri: A folder, ``"file:///path"``, ``"memory:"``, a mapping with the key
            ``uri``, or a :class:`~ltm_async.protocols.BlobStore`, which stays yours to close.
        namespace: Up to 256 bytes; a backend sees no other namespace.
        inline_threshold: Bytes of JSON below which a value lives in its row; 0 to 524288.
        batch_size: Entries that are stored, read or deleted at once; 1 to 10000. Each such batch
            is atomic.
        max_concurrency: Blobs on their way at once; 1 to 1000.
        max_inflight_bytes: Memory for encoded values, of which one that is larger by itself may
            use more; at least 65536.
        on_unavailable: What a store that fails does to a call: ``"degrade"`` logs a warning, at
            most one a minute, and returns a result with ``success=False``; ``"raise"`` raises.
            Bad input, conflicts and a closed backend always raise.
        fallback_size: Entries stored or retrieved one at a time that this process remembers, up to
            16 MiB, to serve while the catalog is down; 0 to 1000000, and only in ``"degrade"``.
        index_text: Keep a full-text index of what this backend stores, for :meth:`search`.
        embed: Keep a vector of what this backend stores, for :meth:`search`. A function, async or
            plain, that takes a list of texts and gives one vector for each: a sequence, or an
            array of NumPy, of 1 to 2048 finite numbers, all of one length. It is called once for
            each batch that is stored, before anything is written, and for each query. A plain one
            runs in a thread, at most four at once.
        encryption: Keys to encrypt values with, each bound to its namespace, key and blob; None
            leaves them as they are. Keys, metadata, sizes and times stay readable in the stores.
        timeout: Seconds for each call, or None; each method takes one for itself.
        retry: How often a store that is unavailable is asked again within that time.

    Raises:
        ConfigError: An argument cannot be used.
    """

    def __init__(
        self,
        catalog: Catalog | str | Mapping[str, Any],
        storage_uri: BlobStore | str | os.PathLike[str] | Mapping[str, Any],
        *,
        namespace: str = "",
        inline_threshold: int = 1024,
        batch_size: int = 500,
        max_concurrency: int = 50,
        max_inflight_bytes: int = 64 * 1024 * 1024,
        on_unavailable: Literal["degrade", "raise"] = "degrade",
        fallback_size: int = 1000,
        index_text: bool = False,
        embed: Embed | None = None,
        encryption: Keyring | None = None,
        timeout: float | None = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  # frozen
    ) -> None:
        try:
            check_text("namespace", namespace, MAX_NAMESPACE_BYTES)
        except InvalidEntryError as exc:
            raise ConfigError(str(exc)) from None
        options = Options(
            namespace=namespace,
            inline_threshold=inline_threshold,
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            max_inflight_bytes=max_inflight_bytes,
            on_unavailable=on_unavailable,
            fallback_size=fallback_size,
            index_text=index_text,
            embed=embed,
            encryption=encryption,
            timeout=timeout,
            retry=retry,
        )
        self._owns_catalog = isinstance(catalog, (str, Mapping))
        self._owns_blobs = isinstance(storage_uri, (str, os.PathLike, Mapping))
        self._runner = Runner(options, plan_catalog(catalog), plan_blob_store(storage_uri))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A backend from the mapping of a configuration file.

        The keys are ``catalog`` (a URL or a mapping with ``type``), ``storage`` or ``storage_uri``
        (a URI or a mapping with ``uri``) and this class's options; ``retry`` is a mapping of
        :class:`~ltm_async.retry.RetryPolicy`'s fields, and ``encryption`` what
        :meth:`~ltm_async.encryption.Keyring.from_config` takes. ``${NAME}`` and
        ``${NAME:-default}`` in any text are replaced from the environment.

        Raises:
            ConfigError: A key is unknown, with the nearest that exists, or a value is wrong.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"the configuration must be a mapping, not {type(config).__name__}")
        check_names("ltm", config, (*_STORES, *OPTION_NAMES))
        # The mappings of stores are expanded where they are read: once, not twice.
        expanded = {
            name: value
            if name in _STORES and isinstance(value, Mapping)
            else expand_env(value, os.environ)
            for name, value in config.items()
        }
        if ("storage" in expanded) == ("storage_uri" in expanded):
            raise ConfigError("ltm needs one of the keys 'storage' and 'storage_uri'")
        if "catalog" not in expanded:
            raise ConfigError("ltm needs the key 'catalog', such as 'sqlite:///memory.db'")
        catalog = expanded.pop("catalog")
        storage = expanded.pop("storage" if "storage" in expanded else "storage_uri")
        return cls(catalog, storage, **options_from(expanded))

    def __repr__(self) -> str:
        state = (
            "closed" if self._runner.closed else "new" if self._runner.made is None else "in use"
        )
        return f"<LTMBackend namespace={self._runner.options.namespace!r} {state}>"

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Connect to both stores now, within the backend's timeout; else the first call does.

        Raises:
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        try:
            async with Deadline(self._runner.options.timeout):
                stores = self._runner.stores()
                await both(
                    stores.to_catalog.unanswered(stores.catalog.open),
                    stores.to_blobs.unanswered(stores.blobs.open),
                )
        except StoreError as exc:
            self._runner.operational(exc)

    async def aclose(self) -> None:
        """Close the stores that this backend made, within 10 seconds. Twice is fine."""
        self._runner.closed = True
        if self._runner.made is not None:
            await self._close(self._runner.made)

    async def release(self) -> None:
        """Close the stores that this backend made, within 10 seconds, until they are needed again.

        The next call makes them anew, as in an app that is stopped and started in one process;
        what ``memory:`` held is gone. A call under way meanwhile may fail with ClosedError.
        """
        stores, self._runner.made = self._runner.made, None
        if stores is not None:
            await self._close(stores)

    async def _close(self, stores: Stores) -> None:
        async with Deadline(CLOSE_TIMEOUT_S):
            if self._owns_blobs:
                await stores.blobs.aclose()
            if self._owns_catalog:
                await stores.catalog.aclose()

    # One entry

    async def store(
        self,
        key: str,
        value: Any,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | timedelta | None = None,
        expires_at: datetime | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
        timeout: float | None = None,
    ) -> StoreResult:
        """Store *value* under *key*, replacing what was there.

        The same content as before is not uploaded again; its metadata and expiry are still
        replaced. When a call fails the old value stays, but where the error says *outcome
        unknown* (:class:`~ltm_async.errors.OutcomeUnknownError`).

        Args:
            key: 1 to 1024 bytes of UTF-8, no NUL.
            value: dict with str keys, list, str, int, finite float, bool or None, nested up to
                500 levels, at most 64 MiB as JSON. It comes back equal, or is refused.
            metadata: A JSON object of up to 16 KiB, without NUL; None is an empty one.
            ttl: Seconds or a timedelta, above 0, at most 100 years, by the catalog's clock.
            expires_at: An aware datetime instead of *ttl*. Neither: for ever.
            if_version: Store only over the live entry with this version.
            if_absent: Store only where there is no live entry.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            ConflictError: *if_version* or *if_absent* did not hold; nothing was written.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        expected = expected_version(if_version, if_absent)
        draft = await hashed(draft_one(key, value, metadata, ttl, expires_at, expected))

        async def store(stores: Stores) -> StoreResult:
            stored = await writing.write_batch(stores, [draft])
            if self._runner.fallback is not None:
                self._runner.fallback.keep_draft(draft, version=stored.written.version)
            return writing.stored_result(stores, draft, stored)

        def failed(exc: StoreError) -> StoreResult:
            if self._runner.fallback is not None and expected is None:
                self._runner.fallback.keep_draft(draft, version=None)
            return StoreResult(
                key=key,
                content_hash=draft.content_hash,
                byte_size=draft.byte_size,
                inlined=draft.byte_size < self._runner.options.inline_threshold,
                exception=exc,
            )

        return await self._runner.call("store", store, failed, timeout)

    async def retrieve(self, key: str, *, timeout: float | None = None) -> RetrieveResult:
        """Read the live entry under *key*.

        A missing entry is ``found=False``, never an error; a damaged or unreadable one is an
        error, never ``found=False`` with ``success=True``. While the catalog or the storage is
        down, ``"degrade"`` gives the last value that this process stored, was to store, or
        retrieved: ``found`` with ``degraded=True``, ``success=False``, ``source="fallback"`` and
        its ``age_s``.

        Raises:
            InvalidEntryError: *key* breaks a limit; nothing was sent.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_key(key)

        async def retrieve(stores: Stores) -> RetrieveResult:
            texts: dict[str, str] = {}
            result = (await reading.read_batch(stores, [key], texts)).result(key)
            if self._runner.fallback is not None:
                if result.row is None:
                    self._runner.fallback.forget([key])
                else:
                    self._runner.fallback.keep(result.row, texts[key])
            telemetry.looked_up(found=int(result.found), missing=int(not result.found))
            return result

        def failed(exc: StoreError) -> RetrieveResult:
            if self._runner.fallback is not None:
                return self._runner.fallback.result(key, exc)
            return RetrieveResult(key=key, exception=exc)

        return await self._runner.call("retrieve", retrieve, failed, timeout)

    async def delete(
        self, key: str, *, if_version: int | None = None, timeout: float | None = None
    ) -> DeleteResult:
        """Delete the entry under *key*, and its blob.

        The entry is gone when this returns; a blob that cannot be deleted now is left to the
        next collection.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            ConflictError: The live entry does not have *if_version*.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_key(key)
        expected = expected_version(if_version, False)
        self._runner.forget([key])

        async def delete(stores: Stores) -> DeleteResult:
            done = await collecting.delete_entries(stores, [key], expected)
            return DeleteResult(key=key, deleted=key in done.live)

        return await self._runner.call(
            "delete", delete, lambda exc: DeleteResult(key=key, exception=exc), timeout
        )

    async def touch(
        self,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        expires_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> TouchResult:
        """Give a live entry a new expiry and, if given, new metadata; its value stays.

        With neither *ttl* nor *expires_at* it never expires; to change the metadata alone, pass
        the *expires_at* it has.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_key(key)
        expiry = to_expiry(ttl, expires_at)
        text = None if metadata is None else encode_metadata(metadata)
        self._runner.forget([key])

        async def touch(stores: Stores) -> TouchResult:
            row = await writing.touch(stores, key, expiry, text)
            if row is None:
                return TouchResult(key=key)
            ends = None if row.expires_at is None else to_datetime(row.expires_at)
            return TouchResult(key=key, touched=True, version=row.version, expires_at=ends)

        return await self._runner.call(
            "touch", touch, lambda exc: TouchResult(key=key, exception=exc), timeout
        )

    async def update(
        self,
        key: str,
        fn: Callable[[Any], Any | Awaitable[Any]],
        *,
        default: Any = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | timedelta | None = None,
        expires_at: datetime | None = None,
        timeout: float | None = None,
    ) -> StoreResult:
        """Replace the value under *key* by ``fn(value)``, so that no other change is lost.

        *fn*, plain or async, gets the stored value, or *default* where there is none. It is
        called again when another writer was faster, until the deadline, so it should have no
        effects of its own. Metadata and expiry stay as they are unless given.

        Raises:
            InvalidEntryError: An argument or the new value breaks a limit.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_key(key)
        to_expiry(ttl, expires_at)
        encode_metadata(metadata)
        self._runner.forget([key])

        async def update(stores: Stores) -> StoreResult:
            from . import updating

            return await updating.update(
                stores,
                key,
                fn,
                default=default,
                metadata=metadata,
                ttl=ttl,
                expires_at=expires_at,
            )

        return await self._runner.call(
            "update", update, lambda exc: StoreResult(key=key, exception=exc), timeout
        )

    # Many entries

    async def store_batch(
        self, entries: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> StoreBatchResult:
        """Store many entries, ``batch_size`` at a time, each such batch whole or not at all.

        A catalog that limits the bytes of a commit, as Firestore does, has smaller batches.
        Every entry is checked before the first is written. Encodings beyond half of
        ``max_inflight_bytes`` are made a second time when their turn comes.

        Args:
            entries: Mappings with ``key``, ``value`` and, if wanted, ``metadata`` and ``ttl`` or
                ``expires_at``, with the meanings and limits of :meth:`store`. Any iterable; it
                is read to its end before anything is sent.

        Returns:
            What was stored, and for each key that was not, why. Store failures never raise here.

        Raises:
            InvalidEntryError: An entry breaks a limit or a key comes twice; nothing was sent.
        """
        check_timeout(timeout)
        keep_bytes = self._runner.options.max_inflight_bytes // 2
        drafts = await draft_all(entries, keep_bytes=keep_bytes)
        self._runner.forget([draft.key for draft in drafts])

        async def store(stores: Stores, timeout_s: float | None) -> StoreBatchResult:
            return await batching.store_batch(stores, drafts, timeout_s)

        return await self._runner.call_batch("store_batch", store, timeout)

    async def retrieve_batch(
        self, keys: Iterable[str], *, timeout: float | None = None
    ) -> RetrieveBatchResult:
        """Read many entries, each ``batch_size`` of them as of one moment.

        A key that comes twice is read once. An entry that could not be read is in ``errors``,
        never in ``missing``. Store failures never raise here.

        Raises:
            InvalidEntryError: A key breaks a limit; nothing was sent.
        """
        wanted = checked_keys(keys)

        async def retrieve(stores: Stores, timeout_s: float | None) -> RetrieveBatchResult:
            return await batching.retrieve_batch(stores, wanted, timeout_s)

        return await self._runner.call_batch("retrieve_batch", retrieve, timeout)

    async def delete_batch(
        self, keys: Iterable[str], *, timeout: float | None = None
    ) -> DeleteBatchResult:
        """Delete many entries and their blobs, each ``batch_size`` of them in one transaction.

        Store failures never raise here.

        Raises:
            InvalidEntryError: A key breaks a limit; nothing was sent.
        """
        wanted = checked_keys(keys)
        self._runner.forget(wanted)

        async def delete(stores: Stores, timeout_s: float | None) -> DeleteBatchResult:
            return await batching.delete_batch(stores, wanted, timeout_s)

        return await self._runner.call_batch("delete_batch", delete, timeout)

    async def list_entries(
        self,
        prefix: str = "",
        *,
        metadata_filter: Mapping[str, Any] | None = None,
        cursor: str | None = None,
        limit: int = 100,
        timeout: float | None = None,
    ) -> ListResult:
        """One page of live entries, without values, in the order of their keys' code points.

        With a filter a call looks at no more than 10,000 rows, in the catalog where that can tell
        which match, on Firestore here; where more are left, the page has a cursor, even if it has
        fewer than *limit* entries, or none.

        Args:
            prefix: Plain text, no pattern; empty for all.
            metadata_filter: Which of them, as :mod:`ltm_async.filters` describes.
            cursor: The ``cursor`` of the page before.
            limit: 1 to 1000.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        from . import listing

        if prefix != "":
            check_key(prefix, "prefix")
        if cursor is not None:
            check_key(cursor, "cursor")
        check_limit(limit, listing.MAX_PAGE)
        wanted = _parsed(metadata_filter)

        async def list_page(stores: Stores) -> ListResult:
            return await listing.list_page(stores, prefix, cursor or "", limit, wanted)

        return await self._runner.call(
            "list_entries", list_page, lambda exc: ListResult(exception=exc), timeout
        )

    async def search(
        self,
        query: str,
        *,
        metadata_filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> SearchResult:
        """The entries that fit *query* by their words, their meaning or both, best first.

        They come without values. The text of an entry is its key and the strings in its value,
        large values too, as far as a backend with ``index_text`` stored it; its vector is what
        ``embed`` made of these strings, as far as a backend with ``embed`` stored it. Both are as
        current as the entry is.

        With ``index_text``, :mod:`ltm_async.text` says what words and queries are, and how matches
        are ranked: the 200 that the catalog's own index puts first are ranked anew by BM25, and
        can be paged through. Of more than 10,000 matches a catalog may leave some unseen. With
        ``embed``, the 200 nearest to the query's vector are ranked by their cosine; entries with a
        vector of another length, as of another model, are left out. With both, an entry's score is
        the sum of 1/(60 + rank) over the rankings that have it.

        Args:
            query: 1 to 1024 bytes: words, ``"phrases"``, and prefixes, as in ``gre*``; without
                ``index_text`` any text.
            metadata_filter: Which of them, as :mod:`ltm_async.filters` describes.
            limit: 1 to 200.
            cursor: The ``cursor`` of the page before.

        Raises:
            ConfigError: This backend keeps neither texts nor vectors, or its catalog cannot.
            MissingDriverError: Vectors are compared here, and NumPy is not installed.
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            StoreError: The catalog or ``embed`` failed, and ``on_unavailable`` is ``"raise"``.
        """
        from . import searching

        options = self._runner.options
        if not options.index_text and options.embed is None:
            raise ConfigError("to search, a backend needs the option index_text=True, or embed")
        sought = searching.Sought.of(query, by_words=options.index_text)
        wanted = _parsed(metadata_filter)
        check_limit(limit, searching.MAX_RANKED)
        skip = searching.parse_cursor(cursor)

        async def search(stores: Stores) -> SearchResult:
            return await searching.search(stores, sought, wanted, skip=skip, limit=limit)

        return await self._runner.call(
            "search", search, lambda exc: SearchResult(exception=exc), timeout
        )

    async def retrieve_snippets(
        self, query: str, keys: Iterable[str], *, timeout: float | None = None
    ) -> SnippetsResult:
        """Of each of some entries the piece of its text that has most of what *query* seeks.

        A piece has up to 160 characters, and says where in it the words are, as
        :mod:`ltm_async.snippets` describes. It is of the value as it is now, which is read for it,
        large values too: 20 entries take one round trip and their blobs. So :meth:`search` gives
        none by itself.

        Args:
            query: As for :meth:`search`; ``index_text`` is not needed.
            keys: Up to 200, such as those of the hits of a page. One that comes twice is read once.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            StoreError: The catalog failed, and ``on_unavailable`` is ``"raise"``.
        """
        from . import searching, text

        sought = text.parse_query(query)
        wanted = checked_keys(keys)
        if len(wanted) > searching.MAX_RANKED:
            raise InvalidEntryError(
                f"keys has {len(wanted)} keys, the limit is {searching.MAX_RANKED}"
            )

        async def retrieve(stores: Stores) -> SnippetsResult:
            return await searching.retrieve_snippets(stores, sought, wanted)

        return await self._runner.call(
            "retrieve_snippets", retrieve, lambda exc: SnippetsResult(exception=exc), timeout
        )

    # What has changed

    async def create_snapshot(self, name: str, *, timeout: float | None = None) -> SnapshotResult:
        """Remember this moment, for ``since_snapshot_id``.

        It is one row, and nothing is copied. In a namespace of more than 100,000 rows, expired
        ones too, it does not count the entries, which :meth:`stats` does, so that its work is
        bounded; on Firestore, which bills what it counts, it never does.

        Args:
            name: For people, 1 to 256 bytes without NUL; need not be unique.

        Raises:
            InvalidEntryError: *name* breaks a limit; nothing was sent.
            StoreError: The catalog failed, and ``on_unavailable`` is ``"raise"``.
        """
        from . import feed

        feed.check_snapshot_name(name)

        async def create(stores: Stores) -> SnapshotResult:
            return await feed.create_snapshot(stores, name)

        return await self._runner.call(
            "create_snapshot",
            create,
            lambda exc: SnapshotResult(name=name, exception=exc),
            timeout,
        )

    async def delete_snapshot(
        self, snapshot_id: str, *, timeout: float | None = None
    ) -> DeleteSnapshotResult:
        """Forget a snapshot, which stays until then; its cursors and the entries are untouched.

        Where a reply was lost it is asked again, and ``deleted`` may be False all the same.

        Args:
            snapshot_id: The ``id`` that :meth:`create_snapshot` gave, of this namespace.

        Raises:
            InvalidEntryError: *snapshot_id* breaks a limit; nothing was sent.
            StoreError: The catalog failed, and ``on_unavailable`` is ``"raise"``.
        """
        from . import feed

        feed.check_snapshot_id(snapshot_id)

        async def delete(stores: Stores) -> DeleteSnapshotResult:
            return await feed.delete_snapshot(stores, snapshot_id)

        return await self._runner.call(
            "delete_snapshot",
            delete,
            lambda exc: DeleteSnapshotResult(id=snapshot_id, exception=exc),
            timeout,
        )

    async def get_changed_entries(
        self,
        since_snapshot_id: str | None = None,
        *,
        cursor: str | None = None,
        limit: int = 100,
        timeout: float | None = None,
    ) -> ChangesResult:
        """One page of the keys that have changed, each with its latest state.

        A pass, from a snapshot, a cursor or the beginning until ``more`` is false, has all that
        was committed before it began, deletions and expiries too, whatever writes beside it. What
        changes meanwhile is in the next pass, which begins at the last cursor. A copy that applies
        each change equals the catalog as soon as the writers rest: entries without values, which
        :meth:`retrieve_batch` reads, and without those past their ``expires_at``. Some changes may
        come twice; on Firestore those of the last minute come in each pass.

        Args:
            since_snapshot_id: The ``id`` of a snapshot of this namespace.
            cursor: The ``cursor`` of the page before, instead. Neither: from the beginning.
            limit: 1 to 1000.

        Raises:
            InvalidEntryError: An argument breaks a limit or is none that this catalog gave.
            WatermarkExpiredError: It is older than the deletions that are kept, seven days, or
                of another catalog; also in ``"degrade"``.
            StoreError: The catalog failed, and ``on_unavailable`` is ``"raise"``.
        """
        from . import feed, listing

        feed.check_since(since_snapshot_id, cursor)
        check_limit(limit, listing.MAX_PAGE)

        async def list_page(stores: Stores) -> ChangesResult:
            return await feed.list_page(stores, since_snapshot_id, cursor, limit)

        return await self._runner.call(
            "get_changed_entries", list_page, lambda exc: ChangesResult(exception=exc), timeout
        )

    def changes(
        self,
        since_snapshot_id: str | None = None,
        *,
        cursor: str | None = None,
        follow: bool = False,
        poll: float = 2.0,
        timeout: float | None = None,
    ) -> AsyncIterator[ChangeInfo]:
        """Iterate over what :meth:`get_changed_entries` pages through, in its order.

        A change that the catalog gives twice in a row comes once. To go on in another process,
        keep the ``cursor`` of the last change that was handled: what it repeats is harmless.

        Args:
            follow: Go on for ever, looking again for what is new. While the catalog does not
                answer, it is asked again in ``"degrade"`` and an error in ``"raise"``.
            poll: The longest wait in seconds between two looks, above 0, at most 3600; after a
                change it is 0.1 s, and doubles.
            timeout: Of each page.

        Raises:
            InvalidEntryError: An argument breaks a limit; nothing was sent.
            WatermarkExpiredError: As :meth:`get_changed_entries` does.
            StoreError: The catalog failed; also in ``"degrade"``, unless it is followed.
        """
        from . import feed, listing

        feed.check_since(since_snapshot_id, cursor)
        feed.check_poll(poll)
        check_timeout(timeout)

        async def get_page(after: str | None) -> ChangesResult:
            first = after is None
            return await self.get_changed_entries(
                since_snapshot_id if first else None,
                cursor=cursor if first else after,
                limit=listing.MAX_PAGE,
                timeout=timeout,
            )

        return feed.flat(feed.follow(get_page, poll_s=poll if follow else None))

    # Keeping house

    async def cleanup_expired(
        self, limit: int = 100, *, timeout: float | None = None
    ) -> CleanupResult:
        """Delete up to *limit* expired entries, the longest expired first, and their blobs.

        Up to as many other blobs that are due for deletion go with them.

        Args:
            limit: 1 to 100000.

        Raises:
            InvalidEntryError: *limit* is out of its range; nothing was sent.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_limit(limit, MAX_CLEANUP)
        done = collecting.Collected()

        def report(exc: StoreError | None = None) -> CleanupResult:
            return CleanupResult(
                deleted=done.entries,
                blobs_deleted=done.deleted,
                errors=[str(error) for error in done.errors],
                exception=exc,
            )

        async def clean_up(stores: Stores) -> CleanupResult:
            await collecting.cleanup_expired(stores, limit, done)
            return report()

        return await self._runner.call("cleanup_expired", clean_up, report, timeout)

    async def collect_garbage(
        self,
        *,
        limit: int = 10_000,
        dry_run: bool = False,
        audit: bool = False,
        stray_age: timedelta = STRAY_AGE,
        timeout: float | None = None,
    ) -> CollectResult:
        """Delete up to *limit* blobs that no entry has any more.

        These are blobs of replaced entries, and reservations whose writer was stopped and whose
        lease of ten minutes has ended. With *audit* the storage is listed too, and objects that
        the ledger does not know and that are older than *stray_age* are deleted; the catalog
        must then be the only one that keeps this namespace under this storage URI.

        Args:
            limit: 1 to 100000.
            dry_run: Only count.

        Raises:
            InvalidEntryError: An argument is out of its range; nothing was sent.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_limit(limit, MAX_CLEANUP)
        check_age(stray_age)
        age_us = stray_age // timedelta(microseconds=1) if audit else None
        done = collecting.Collected()

        def report(exc: StoreError | None = None) -> CollectResult:
            return CollectResult(
                deleted=done.deleted,
                byte_size=done.byte_size,
                dry_run=dry_run,
                errors=[str(error) for error in done.errors],
                exception=exc,
            )

        async def collect(stores: Stores) -> CollectResult:
            act = collecting.count_garbage if dry_run else collecting.collect_garbage
            await act(stores, limit, age_us, done)
            return report()

        return await self._runner.call("collect_garbage", collect, report, timeout)

    async def verify(self, *, timeout: float | None = None) -> VerifyResult:
        """Read everything in the namespace and prove that rows, ledger and objects agree.

        Takes as long as reading it all; give it a *timeout* to match.

        Raises:
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """

        async def verify(stores: Stores) -> VerifyResult:
            from . import verifying

            return VerifyResult(**dataclasses.asdict(await verifying.verify(stores)))

        return await self._runner.call(
            "verify", verify, lambda exc: VerifyResult(exception=exc), timeout
        )

    async def stats(self, *, timeout: float | None = None) -> StatsResult:
        """Count the namespace's entries and blobs; reads every row's size.

        Raises:
            StoreError: The catalog failed, and ``on_unavailable`` is ``"raise"``.
        """

        async def stats(stores: Stores) -> StatsResult:
            counts = await stores.to_catalog.unanswered(stores.catalog.stats, stores.namespace)
            return StatsResult(**counts._asdict())

        return await self._runner.call(
            "stats", stats, lambda exc: StatsResult(exception=exc), timeout
        )


def runner_of(ltm: LTMBackend) -> Runner:
    """What runs the calls of *ltm*, for a part of this package that has calls of its own.

    They share its stores, deadline, retries and circuit breakers, and end when it is closed.
    """
    return ltm._runner  # the class's own module
