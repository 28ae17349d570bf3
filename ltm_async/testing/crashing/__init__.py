"""Crash points: every operation stopped at each of its steps in each way, and recovered from.

A catalog or blob store of one's own is tried by subclassing :class:`CrashPointContract` with
its place. For more than that, such as children to kill, the parts are here: ``prepare`` fills a
pair of stores with ``FOUND``, ``attempt`` runs one of ``OPERATIONS`` through
:class:`~ltm_async.testing.Faults`, and ``check_recovery`` judges what is found then.
"""

from typing import TYPE_CHECKING, Any

from .attempts import AGAIN, ONCE, Attempt, Told, attempt
from .operations import DAY_S, OPERATIONS, Operation
from .places import (
    BlobPlace,
    CatalogPlace,
    MemoryBlobPlace,
    MemoryCatalogPlace,
    Pair,
    RawBlob,
    RawRow,
)
from .points import (
    COLLECTION,
    IN_PROCESS,
    KILLS,
    Broken,
    Prepared,
    PreparedEachTime,
    Scene,
    run,
    steps_of,
    stop_and_stop_the_collection,
    stop_at,
    stop_at_each,
    why,
)
from .recovery import Fresh, Look, check_agreement, check_recovery, check_rest, look_at, opened
from .state import BEFORE, FOUND, NAMESPACE, Entry, large, prepare, small

if TYPE_CHECKING:
    from .contract import CrashPointContract

__all__ = [
    "AGAIN",
    "BEFORE",
    "COLLECTION",
    "DAY_S",
    "FOUND",
    "IN_PROCESS",
    "KILLS",
    "NAMESPACE",
    "ONCE",
    "OPERATIONS",
    "Attempt",
    "BlobPlace",
    "Broken",
    "CatalogPlace",
    "CrashPointContract",
    "Entry",
    "Fresh",
    "Look",
    "MemoryBlobPlace",
    "MemoryCatalogPlace",
    "Operation",
    "Pair",
    "Prepared",
    "PreparedEachTime",
    "RawBlob",
    "RawRow",
    "Scene",
    "Told",
    "attempt",
    "check_agreement",
    "check_recovery",
    "check_rest",
    "large",
    "look_at",
    "opened",
    "prepare",
    "run",
    "small",
    "steps_of",
    "stop_and_stop_the_collection",
    "stop_at",
    "stop_at_each",
    "why",
]


def __getattr__(name: str) -> Any:
    if name != "CrashPointContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .contract import CrashPointContract  # it alone needs pytest

    return CrashPointContract
