"""What users would take instead, each in the form that its own documentation recommends for speed.

A peer is a :class:`bench.sides.Side`; what its answer is worth is said here, without its driver.
"""

from __future__ import annotations

from typing import NamedTuple


class Promises(NamedTuple):
    """What a peer gives for its time."""

    how: str
    """The form that is measured."""
    durable: str
    """Whether what it has answered outlives a loss of power."""
    batch: str
    """What a reader, or a process killed on the way, sees of one."""
    expiry: str


OURS = Promises(
    how="`store_batch`, `retrieve_batch`; blobs as local files, or in S3",
    durable="yes",
    batch="whole or not at all, blobs too",
    expiry="to the microsecond; `cleanup_expired`",
)
_LANGGRAPH_EXPIRY = "in whole minutes; a task of the process sweeps"
_ROWS_ONLY = "rows yes; values of 32 KiB and more no"
_ONE_BY_ONE = "entry by entry"
_SWEPT_BY_WRITES = "yes; later writes sweep"

PROMISES: dict[str, dict[str, Promises]] = {
    "PostgreSQL": {
        "LangGraph's AsyncPostgresStore": Promises(
            "a pool of 1 to 10, `abatch`", "yes", "whole or not at all", _LANGGRAPH_EXPIRY
        ),
        "py-key-value's PostgreSQLStore": Promises(
            "a pool of 1 to 10, `put_many`, `get_many`",
            "yes",
            _ONE_BY_ONE,
            "reads check; nothing sweeps",
        ),
    },
    "SQLite": {
        "LangGraph's AsyncSqliteStore": Promises(
            "`abatch`; WAL and `synchronous=FULL` set by hand",
            "yes",
            "whole or not at all",
            _LANGGRAPH_EXPIRY,
        ),
        "py-key-value's DiskStore": Promises(
            "a diskcache with `sqlite_synchronous=2`, `put_many`, `get_many`; blocks the loop",
            _ROWS_ONLY,
            _ONE_BY_ONE,
            _SWEPT_BY_WRITES,
        ),
        "diskcache": Promises(
            "`sqlite_synchronous=2`, a batch in one `transact`, in a thread; pickles",
            _ROWS_ONLY,
            "whole or not at all",
            _SWEPT_BY_WRITES,
        ),
        "diskcache as it comes": Promises(
            "a batch in one `transact`, in a thread; pickles",
            "no",
            "whole or not at all",
            _SWEPT_BY_WRITES,
        ),
        "cashews' disk": Promises(
            "`disk://` as it comes, `set_many`, `get_many`; pickles",
            "no",
            _ONE_BY_ONE,
            "yes; a task of the process sweeps",
        ),
    },
    "S3": {
        "py-key-value's S3Store": Promises(
            "a client of 50 connections, `put_many`, `get_many`",
            "yes",
            _ONE_BY_ONE,
            "reads check; nothing sweeps",
        ),
    },
}
"""By store and by name."""


def all_names() -> set[str]:
    return {name for peers in PROMISES.values() for name in peers}
