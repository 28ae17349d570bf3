"""SQL over a memory: its entries as a table of DuckDB, which is asked and never stored to.

The engine reads through a backend's own catalog and blob store, a page at a time, into a
temporary table of its own; the SQL that runs over it reaches nothing else.
"""

from .loading import LoadedEntries
from .querying import DuckDBQueryEngine
from .results import ExportParquetResult, ImportParquetResult, QueryResult

__all__ = [
    "DuckDBQueryEngine",
    "ExportParquetResult",
    "ImportParquetResult",
    "LoadedEntries",
    "QueryResult",
]
