"""Entries that stay loaded, for more than one query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from ..errors import InvalidEntryError, StoreError
from ..results import Failure
from ..running import Runner
from ..stores import Stores
from ..text import Query, parse_query
from .checking import check_arguments, check_sql
from .feeding import Loaded
from .matching import find_matches
from .results import QueryResult
from .running import run_sql
from .tables import Table


class LoadedEntries:
    """Entries as they were when they were loaded: what is stored later is not seen.

    Made by :meth:`DuckDBQueryEngine.load`, and used in the same event loop. Its queries run one
    after another. They take memory, or disk below *temp_directory*, until it is closed.
    """

    def __init__(self, runner: Runner, table: Table, loaded: Loaded, loaded_at: datetime) -> None:
        self.loaded_at = loaded_at
        """When loading began, by this process's clock."""
        self._runner = runner
        self._table = table
        self._loaded = loaded

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return self._loaded.entries

    @property
    def errors(self) -> dict[str, Failure]:
        """As those of :class:`~ltm_async.engine.QueryResult`."""
        return self._loaded.errors

    @property
    def cursor(self) -> str | None:
        """Where the changes end that were loaded, to begin the next at; else None."""
        return self._loaded.cursor

    async def query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        search: str | None = None,
        limit: int = 10_000,
        timeout: float | None = None,
    ) -> QueryResult:
        """As :meth:`DuckDBQueryEngine.query`, without loading anything.

        Raises:
            InvalidEntryError: An argument breaks a limit, or *search* is given and the entries were
                not loaded with *index_text*.
            QueryError: The SQL is refused or fails.
            ClosedError: The entries are no longer loaded.
        """
        check_arguments(sql, params, limit)
        sought = None if search is None else parse_query(search, "search")
        if sought is not None and not self._loaded.has_words:
            raise InvalidEntryError("search needs entries that were loaded with index_text=True")

        async def query(_: Stores) -> QueryResult:
            await self._table.run(partial(check_sql, sql=sql))
            return await answer(self._table, self._loaded, sql, params, sought, limit)

        return await self._runner.call("query", query, failed_query, timeout)

    async def aclose(self) -> None:
        """Give the memory back. Twice is fine."""
        self._table.release()


async def answer(
    table: Table,
    loaded: Loaded,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    sought: Query | None,
    limit: int,
) -> QueryResult:
    prepare = None if sought is None else partial(find_matches, query=sought)
    found = await table.run(partial(run_sql, sql=sql, params=params, limit=limit, prepare=prepare))
    return QueryResult(
        columns=found.columns,
        types=found.types,
        rows=found.rows,
        truncated=found.truncated,
        entries=loaded.entries,
        errors=loaded.errors,
        cursor=loaded.cursor,
        exception=loaded.exception,
    )


def failed_query(exc: StoreError) -> QueryResult:
    return QueryResult(exception=exc)
