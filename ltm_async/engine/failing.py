"""DuckDB's exceptions as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import LTMError, QueryError, UnavailableError

if TYPE_CHECKING:
    from .connecting import Base

STORE = "duckdb"


@contextlib.contextmanager
def translating(base: Base) -> Iterator[None]:
    """Raise DuckDB's exceptions as ours; one that it does not survive marks *base* as broken."""
    import duckdb

    try:
        yield
    except (duckdb.FatalException, duckdb.InternalException) as exc:
        base.broken = True
        raise UnavailableError(
            "DuckDB has failed inside, and is started anew", store=STORE
        ) from exc
    except duckdb.Error as exc:
        raise _ours(exc) from exc
    except (OverflowError, ValueError) as exc:
        if isinstance(exc, LTMError):
            raise
        raise QueryError("the result has a value that Python cannot hold") from exc


def _ours(exc: Exception) -> LTMError:
    import duckdb

    match exc:
        case duckdb.OutOfMemoryException():
            return QueryError(
                "this needs more memory than memory_limit, or more disk than"
                " max_temp_directory_size: give the engine more, or read fewer entries"
            )
        case duckdb.InterruptException():
            return UnavailableError("the query was interrupted", store=STORE)
        case duckdb.IOException():
            return UnavailableError(
                "DuckDB cannot use its files in temp_directory: is the disk full?", store=STORE
            )
        case (
            duckdb.ParserException()
            | duckdb.BinderException()
            | duckdb.CatalogException()
            | duckdb.PermissionException()
        ):
            return QueryError(f"the SQL has an error: {exc}")
    # The text of others may show a stored value.
    kind = type(exc).__name__.removesuffix("Exception")
    return QueryError(f"the query failed: {kind}, of which __cause__ says more")
