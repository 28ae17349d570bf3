"""On what operations are stopped, and how: everything there is, and the slice of each run.

The slice, which is the same in each run:

- SQLite with local blobs has every step of every operation in every mode, with and without
  retries, and two faults in the modes that leave most behind;
- each other pair has every step of every operation in one of ``HARD``, by a Latin square, so that
  every catalog meets each of those on one of the blob stores, and every blob store on one of the
  catalogs.

Stores in memory are tried by ``CrashPointContract``, on a catalog of the examples.
"""

from __future__ import annotations

import enum
import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

from ltm_async.testing import Mode
from ltm_async.testing.crashing import IN_PROCESS

CATALOGS = ("sqlite", "postgres", "supabase", "firestore")
BLOB_STORES = ("local", "s3", "gcs", "azure")
PAIRS = tuple(f"{catalog}+{blobs}" for catalog, blobs in itertools.product(CATALOGS, BLOB_STORES))
HARD = (Mode.KILL_AFTER, Mode.LOST_REPLY, Mode.CANCEL_AFTER, Mode.KILL_BEFORE)
"""The modes that leave most behind."""


EXHAUSTIVE = os.environ.get("LTM_CRASH") == "exhaustive"
"""Leave nothing out; then ``LTM_CRASH_PAIRS="sqlite+s3 firestore+gcs"`` may bound it."""
LONG_S = 1500 if EXHAUSTIVE else 180
"""How long one test may take, on a machine that is busy."""


class Kind(enum.Enum):
    """How many faults there are, and where."""

    ONE = "one fault"
    RETRIED = "one fault, with retries"
    CALL = "two faults in a call"
    """A step loses its reply, and then each one that follows is broken: resolving, abandoning."""
    CALL_RETRIED = "two faults in a call, with retries"
    COLLECTION = "two faults, in a call and in a collection"
    """The stores are gone from a step on, and the collection that comes next is broken."""

    @property
    def retries(self) -> bool:
        return self in {Kind.RETRIED, Kind.CALL_RETRIED}


class Setting(NamedTuple):
    pair: str
    kind: Kind
    modes: Sequence[Mode]

    @property
    def name(self) -> str:
        return f"{self.pair}, {self.kind.value}"


def everything(pairs: Sequence[str]) -> list[Setting]:
    """All modes and kinds on *pairs*, the single faults of all pairs first."""
    return [
        Setting(pair, kind, IN_PROCESS if kind is Kind.RETRIED else tuple(Mode))
        for kind in Kind
        for pair in pairs
    ]


def the_slice() -> list[Setting]:
    square = {
        f"{catalog}+{blobs}": HARD[(row + column) % len(HARD)]
        for row, catalog in enumerate(CATALOGS)
        for column, blobs in enumerate(BLOB_STORES)
    }
    del square["sqlite+local"]
    return [
        Setting("sqlite+local", Kind.ONE, tuple(Mode)),
        Setting("sqlite+local", Kind.RETRIED, IN_PROCESS),
        Setting("sqlite+local", Kind.CALL, HARD[:2]),
        Setting("sqlite+local", Kind.COLLECTION, HARD[:1]),
        *(Setting(pair, Kind.ONE, (mode,)) for pair, mode in square.items()),
    ]


def chosen() -> list[Setting]:
    """The slice, unless the environment asks for everything."""
    if not EXHAUSTIVE:
        return the_slice()
    pairs = os.environ.get("LTM_CRASH_PAIRS", "").replace(",", " ").split() or PAIRS
    if unknown := set(pairs) - set(PAIRS):
        raise ValueError(f"LTM_CRASH_PAIRS has {sorted(unknown)}; there are {', '.join(PAIRS)}")
    return everything(pairs)
