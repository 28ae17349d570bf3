"""What the engine's methods return."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

from ..frozen import frozen
from ..results import Failure, Result


@frozen
class QueryResult(Result):
    """The rows of one query, and what they were made from."""

    FIELDS: ClassVar = ("columns", "types", "rows", "truncated", "entries", "errors", "cursor")

    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """DuckDB's names of the columns' types."""
    rows: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)
    """As Python values; a column of the type JSON is JSON text, an instant is aware."""
    truncated: bool = False
    """There are more rows than *limit*."""
    entries: int = 0
    """How many entries the query has seen."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Entries that are damaged, which the query has not seen, and those whose value is JSON that
    DuckDB does not read, which it has seen with a value of NULL."""
    cursor: str | None = None
    """Where the changes end that the query has seen, to begin the next at; else None."""

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict by column; of columns with the same name the last counts."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


@frozen
class ExportParquetResult(Result):
    """What :meth:`DuckDBQueryEngine.export_parquet` wrote."""

    FIELDS: ClassVar = ("exported", "files", "byte_size", "errors")

    exported: int = 0
    """Entries."""
    files: tuple[str, ...] = ()
    """The path or storage URI of each file."""
    byte_size: int = 0
    """Of all files."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """Entries that are damaged, and left out."""


@frozen
class ImportParquetResult(Result):
    """What :meth:`DuckDBQueryEngine.import_parquet` stored."""

    FIELDS: ClassVar = ("imported", "deduplicated", "expired", "files", "errors")

    imported: int = 0
    deduplicated: int = 0
    """Of the imported, those whose content was there already."""
    expired: int = 0
    """Past their end already, and not stored."""
    files: int = 0
    """Read to their end."""
    errors: dict[str, Failure] = dataclasses.field(default_factory=dict)
    """What was not stored of the rows at which a store ended the import; those after them were not
    tried, those before them are stored."""
