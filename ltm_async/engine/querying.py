"""DuckDBQueryEngine: SQL over what a backend remembers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from ..backend import LTMBackend, runner_of
from ..entry import check_key
from ..errors import ClosedError, ConfigError, InvalidEntryError, StoreError
from ..feed import check_since
from ..filters import parse_filter
from ..stores import Stores
from ..text import Query, parse_query
from ..worker import PerProcess
from . import exporting, importing
from .changing import Since
from .checking import check_arguments, check_sql
from .connecting import Base, Opening, connect_locked
from .extending import FTS, check_extensions
from .feeding import Selection, load
from .loading import LoadedEntries, answer, failed_query
from .matching import index_stems, index_words
from .options import EngineOptions, default_threads
from .results import ExportParquetResult, ImportParquetResult, QueryResult
from .tables import Table


class DuckDBQueryEngine:
    """Analytical SQL over the entries of a backend, on DuckDB 1.5 or 2.0; extra ``duckdb``.

    SQL sees one table, ``entries``, of the backend's namespace: ``key VARCHAR``, ``version
    BIGINT``, ``content_hash VARCHAR``, ``byte_size BIGINT``, ``inlined BOOLEAN``, ``metadata
    JSON``, ``expires_at``, ``created_at`` and ``updated_at TIMESTAMPTZ``, and ``value JSON``. On
    request there is another, ``changes``: ``kind`` (``stored``, ``deleted``, ``expired`` or
    ``damaged``) and the same columns but the value, NULL for what is gone. Both are copies, read
    through the backend for each query, with the backend's checks, retries and circuit breakers;
    nothing that SQL does changes an entry.

    Nothing is imported or connected before the first call. Usable from any event loop, and after
    a fork, where the child has a DuckDB of its own.

    Args:
        ltm: What is read; it stays yours to close.
        threads: Of DuckDB, 1 to 256; else the processors', at most 4.
        memory_limit: Of DuckDB's buffers, such as ``"512MB"``. What does not fit goes to disk; a
            single column of 2,048 values has to fit for each thread.
        temp_directory: Where a folder for that is made, which is gone after :meth:`aclose`; else
            the system's.
        max_temp_directory_size: Of that folder.
        max_queries: Statements that run at once, each on a thread; 1 to 64.
        extensions: ``["fts"]``, or none. It adds ``stem(word, 'english')`` to SQL and, where words
            are sought, ``fts_main_entries.match_bm25(key, 'words')``, which goes by English stems;
            each such query or load then has a *memory_limit* of its own.
        extension_directory: Where they are, as ``INSTALL`` lays them out; else in an installed
            wheel ``duckdb-extension-fts``. Of DuckDB's own version to the letter, and never
            downloaded: without it the first call raises ConfigError.

    Raises:
        ConfigError: An argument cannot be used.
    """

    def __init__(
        self,
        ltm: LTMBackend,
        *,
        threads: int | None = None,
        memory_limit: str = "512MB",
        temp_directory: str | os.PathLike[str] | None = None,
        max_temp_directory_size: str = "8GB",
        max_queries: int = 4,
        extensions: Sequence[str] = (),
        extension_directory: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(ltm, LTMBackend):
            raise ConfigError(f"ltm must be an LTMBackend, not {type(ltm).__name__}")
        folder = tempfile.gettempdir() if temp_directory is None else temp_directory
        options = EngineOptions(
            threads=default_threads() if threads is None else threads,
            memory_limit=memory_limit,
            temp_directory=_text(folder),
            max_temp_directory_size=max_temp_directory_size,
            max_queries=max_queries,
            extensions=check_extensions(extensions),
            extension_directory=None if extension_directory is None else _text(extension_directory),
        )
        self._ltm = ltm
        self._runner = runner_of(ltm)
        self._options = options
        self._opening = PerProcess(lambda: Opening(options))
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Import DuckDB and start it now, in a thread; else the first call does.

        Raises:
            MissingDriverError: DuckDB is not installed.
            ConfigError: DuckDB refuses an option.
        """
        await self._base()

    async def aclose(self) -> None:
        """End DuckDB and its threads, within 10 seconds. Twice is fine.

        The end of the process does so for what was not closed, within 2 seconds; but a query that a
        daemon thread still waits for may hold it up until that call's deadline.
        """
        self._closed = True
        await self._opening.get().aclose()

    async def query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        prefix: str = "",
        metadata_filter: Mapping[str, Any] | None = None,
        values: bool = True,
        search: str | None = None,
        since_snapshot_id: str | None = None,
        cursor: str | None = None,
        limit: int = 10_000,
        timeout: float | None = None,
    ) -> QueryResult:
        """Load entries as they are now, and run one SELECT over them.

        The cost is that of reading the entries, so say which: those that *prefix* and
        *metadata_filter* let through are the whole table, no other is read further than its row.
        For several queries over the same entries see :meth:`load`. Cancelling interrupts DuckDB.

        Args:
            sql: One SELECT (or FROM, WITH, VALUES, DESCRIBE, SUMMARIZE) of up to 256 KiB. Of table
                functions it has ``generate_series``, ``json_each``, ``json_tree``, ``range`` and
                ``unnest``; files, networks, extensions and settings are out of its reach.
            params: For ``?`` or ``$1`` a list, for ``$name`` a dict.
            prefix: Which keys; plain text, no pattern; empty for all.
            metadata_filter: Which entries, as :mod:`ltm_async.filters` describes.
            values: False leaves out the column ``value``, and then no value is read.
            search: There is a table ``matches``, too, of the ``key`` and ``score`` of each entry
                that has these words. They are sought and ranked as by :meth:`LTMBackend.search`,
                with no index in the catalog, and without its limit of 200. And ``entries`` has a
                column ``words``: the text that is searched, as words with spaces between them.
            since_snapshot_id: There is a table ``changes``, too: all that has changed since, with
                deletions, whatever *prefix* and *metadata_filter* say.
            cursor: The same, since the ``cursor`` of a result of this or of the change feed.
            limit: Rows of the result, 1 to 1000000; its memory is not bounded otherwise.
            timeout: Seconds for loading and the query together; else the backend's.

        Raises:
            InvalidEntryError: An argument breaks a limit.
            QueryError: The SQL is refused, fails, or needs more memory than it may have.
            WatermarkExpiredError: What has changed since then is not known any more.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        check_arguments(sql, params, limit)
        sought = None if search is None else parse_query(search, "search")
        words = sought is not None
        selection = selected(prefix, metadata_filter, values, words, since_snapshot_id, cursor)

        async def query(stores: Stores) -> QueryResult:
            table = await self._table(words)
            try:
                await table.run(partial(check_sql, sql=sql))
                loaded = await load(stores, table, selection)
                if sought is not None:
                    await self._index(table, sought)
                return await answer(table, loaded, sql, params, sought, limit)
            finally:
                table.release()

        return await self._runner.call("query", query, failed_query, timeout)

    async def load(
        self,
        *,
        prefix: str = "",
        metadata_filter: Mapping[str, Any] | None = None,
        values: bool = True,
        index_text: bool = False,
        since_snapshot_id: str | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> LoadedEntries:
        """Load entries once, for several queries; the arguments are those of :meth:`query`.

        Close what it returns, or use it with ``async with``.

        Args:
            index_text: Index the words of each entry, for queries with *search*; takes some 6 bytes
                of memory a word, which do not go to disk.

        Raises:
            InvalidEntryError: An argument breaks a limit.
            StoreError: A store failed, whatever ``on_unavailable`` says.
        """
        selection = selected(prefix, metadata_filter, values, index_text, since_snapshot_id, cursor)
        made: list[LoadedEntries] = []

        async def load_all(stores: Stores) -> QueryResult:
            loaded_at = datetime.now(UTC)
            table = await self._table(index_text)
            try:
                loaded = await load(stores, table, selection)
                if index_text:
                    await self._index(table, None)
            except BaseException:
                table.release()
                raise
            made.append(LoadedEntries(self._runner, table, loaded, loaded_at))
            return QueryResult()

        (await self._runner.call("load", load_all, failed_query, timeout)).raise_for_error()
        return made[0]

    async def export_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        partition_by: Sequence[str] = (),
        prefix: str = "",
        metadata_filter: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        timeout: float | None = None,
    ) -> ExportParquetResult:
        """Write live entries to a Parquet file, or to a folder of them.

        The columns are those of ``entries``, with value and metadata as JSON text to the letter.
        Nothing is at *path* before all of it is. Entries that are damaged are left out and named.

        Args:
            path: Of the file, whose folder exists; with *partition_by* of a folder that does not.
                Or a storage URI as a backend takes it, below which a new folder is made, of files
                of some 32 MiB (64 at most); they appear one by one, and should lie outside of a
                memory's own.
            partition_by: Up to 8 members of the metadata; each is a column more, of text, and a
                level of folders such as ``kind=note``, of up to 255 bytes as it is escaped.
            prefix: Which keys; plain text.
            metadata_filter: Which entries, as :mod:`ltm_async.filters` describes.
            overwrite: Replace the file that is there; never a folder.

        Raises:
            InvalidEntryError: An argument breaks a limit.
            ConfigError: *path* is there already, or cannot be written to.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        target = exporting.check_target(path, partition_by, overwrite)
        selection = selected(prefix, metadata_filter)

        async def export(stores: Stores) -> ExportParquetResult:
            policy = self._runner.options.retry
            return await exporting.export(stores, await self._base(), selection, target, policy)

        return await self._runner.call(
            "export_parquet", export, lambda exc: ExportParquetResult(exception=exc), timeout
        )

    async def import_parquet(
        self, path: str | os.PathLike[str], *, timeout: float | None = None
    ) -> ImportParquetResult:
        """Store the entries of a Parquet file, or of all below a folder, over what is there.

        Each row is checked before it is stored, in batches as :meth:`LTMBackend.store_batch` has
        them: those before a row that is wrong are stored, and the error's note says how many. Doing
        it twice changes nothing.

        Args:
            path: A file, or a folder with up to 10,000 files ``*.parquet`` in it and below, with
                the columns ``key`` and ``value`` and, if wanted, ``metadata`` (JSON text),
                ``expires_at`` (TIMESTAMPTZ) and ``content_hash``, which then must be that of the
                value. Others are passed over. Or the storage URI of such a file, which then ends in
                ``.parquet``, or folder; there a file may have up to 64 MiB, one is read at a time.

        Raises:
            InvalidEntryError: A file or a row, by its number from 1, is not as described.
            ConfigError: The storage URI cannot be used.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        source = importing.check_source(path)
        done = importing.Imported()

        def report(exc: StoreError | None = None) -> ImportParquetResult:
            return ImportParquetResult(
                imported=done.imported,
                deduplicated=done.deduplicated,
                expired=done.expired,
                files=done.files,
                errors=done.errors,
                exception=exc,
            )

        async def store_all(_: Stores) -> ImportParquetResult:
            policy = self._runner.options.retry
            await importing.import_all(
                self._ltm, await self._base(), self._options, source, policy, done
            )
            return report()

        return await self._runner.call("import_parquet", store_all, report, timeout)

    async def _table(self, words: bool) -> Table:
        """A table's index by fts is no temporary one, so it is in a database of its own."""
        base = await self._base()
        if not words or FTS not in self._options.extensions:
            return Table(base)
        return Table(base, partial(connect_locked, self._options, base.folder))

    async def _index(self, table: Table, sought: Query | None) -> None:
        await table.run(partial(index_words, query=sought))
        if FTS in self._options.extensions:
            await table.run(index_stems)

    async def _base(self) -> Base:
        if self._closed:
            raise ClosedError("the query engine is closed")
        return await self._opening.get().base()


def _text(path: str | os.PathLike[str]) -> str:
    return str(path) if isinstance(path, os.PathLike) else path


def selected(
    prefix: str,
    metadata_filter: Mapping[str, Any] | None,
    values: bool = True,
    words: bool = False,
    snapshot_id: str | None = None,
    cursor: str | None = None,
) -> Selection:
    if prefix != "":
        check_key(prefix, "prefix")
    wanted = None if metadata_filter is None else parse_filter(metadata_filter)
    if words and not values:
        raise InvalidEntryError("words are sought in values: leave out values=False")
    check_since(snapshot_id, cursor)
    since = None if snapshot_id is None and cursor is None else Since(snapshot_id, cursor)
    return Selection(prefix, wanted, values, words, since)
