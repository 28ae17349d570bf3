"""The clients of the stores: they make their calls in trouble, and may recall in an outage."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from typing import Any

from ltm_async import ConflictError, LTMBackend, RetryPolicy
from ltm_async.testing import faulty_blob_store, faulty_catalog

from .. import places
from ..backends import QUICK, Rig, make_rig
from .call import Call, failure_of, is_unknown
from .reading import Retrieve
from .removing import Delete, DeleteBatch
from .storing import Store, StoreBatch, Touch, Update
from .trouble import Plan, Trouble
from .worlds import text

CALLS_DOWN = 9
"""After so many calls an outage is over."""


@dataclasses.dataclass
class Client:
    ltm: LTMBackend
    trouble: Trouble
    batch_size: int
    known: dict[str, set[str]]
    """The values that each key may have had, for all clients alike."""
    figures: collections.Counter[str]
    calls_down: int = 0
    remembers: set[str] = dataclasses.field(default_factory=set)
    """Keys that it may recall while the catalog is down."""

    async def make(self, call: Call, plan: Plan, now: int) -> Any:
        """What *call* is told; without a fault it does not fail."""
        call.batch_size = self.batch_size
        self._expect(call)
        was_down = self._is_down()
        self.trouble.prepare(plan)
        answer = await self.trouble.caught(call.make(self.ltm, now))
        failure = failure_of(answer)
        if not self.trouble.met and not was_down:
            healthy = failure is None or isinstance(failure, ConflictError)
            assert healthy, f"{call} failed without a fault: {failure!r}"
        self._count(call, failure)
        self._check_memory(call, answer)
        return answer

    def _expect(self, call: Call) -> None:
        match call:
            case Store():
                self.known[call.key].add(text(call.value))
            case StoreBatch():
                for store in call.stores:
                    self._expect(store)

    def _is_down(self) -> bool:
        self.calls_down = self.calls_down + 1 if self.trouble.down else 0
        if self.calls_down > CALLS_DOWN:
            self.trouble.down = False
        return self.trouble.down

    def _count(self, call: Call, failure: BaseException | None) -> None:
        self.figures[type(call).__name__] += 1
        self.figures.update(self.trouble.met)
        if isinstance(failure, ConflictError):
            self.figures["conflicts"] += 1
        elif failure is not None:
            self.figures["outcomes unknown" if is_unknown(failure) else "failed for certain"] += 1

    def _check_memory(self, call: Call, answer: Any) -> None:
        """What is recalled while the catalog is down is marked, was once to be stored, and is
        not what this client has deleted or changed since."""
        match call:
            case Retrieve():
                if not isinstance(answer, BaseException) and answer.found:
                    self._check_found(call.key, answer)
            case Store():
                self.remembers.add(call.key)
            case StoreBatch():
                self.remembers -= {store.key for store in call.stores}
            case DeleteBatch():
                self.remembers -= set(call.keys)
            case Delete() | Touch() | Update():
                self.remembers.discard(call.key)

    def _check_found(self, key: str, answer: Any) -> None:
        recalled = not answer.success
        assert (answer.source == "fallback", answer.degraded) == (recalled, recalled)
        if recalled:
            self.figures["recalled"] += 1
            assert key in self.remembers
            assert text(answer.value) in self.known[key]
        self.known[key].add(text(answer.value))
        self.remembers.add(key)


async def open_clients(
    pair: str, folder: pathlib.Path, figures: collections.Counter[str]
) -> tuple[Rig, list[Client]]:
    """Two clients, set up as differently as can be, of a pair of stores that are empty."""
    if pair.startswith("postgres"):
        places.database().clear()
    if pair.startswith("supabase"):
        places.project().clear()
    first, second = Trouble(), Trouble()
    rig = make_rig(pair, folder, first, retry=RetryPolicy(attempts=1))
    other = LTMBackend(
        faulty_catalog(rig.catalog, second),
        faulty_blob_store(rig.blobs, second),
        inline_threshold=20,
        batch_size=2,
        on_unavailable="degrade",
        retry=QUICK,
    )
    known: dict[str, set[str]] = collections.defaultdict(set)
    return rig, [
        Client(rig.ltm, first, 500, known, figures),
        Client(other, second, 2, known, figures),
    ]
