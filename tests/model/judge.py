"""Two clients of one pair of stores, and the worlds that explain what they have been told."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from ltm_async import LTMBackend
from ltm_async.entry import blob_path

from ..backends import Rig
from .call import Call, failure_of, is_unknown
from .client import Client
from .reading import RetrieveBatch
from .removing import Cleanup
from .trouble import Late, Plan
from .worlds import EMPTY, KEYS, Explain, World, through

MAX_WORLDS = 150
"""With more, everything is read before it goes on."""


@dataclasses.dataclass
class Beside:
    """What the other client does while a call waits before its step *at*."""

    call: Call
    at: int
    plan: Plan = dataclasses.field(default_factory=dict)
    after_s: float = 0.0
    """So much time passes first."""


class Judge:
    def __init__(
        self, rig: Rig, clients: Sequence[Client], figures: collections.Counter[str]
    ) -> None:
        self.rig = rig
        self.clients = clients
        self.figures = figures
        self.plain = LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise")
        """Of a witness, who has no trouble."""
        self.worlds: set[World] = {EMPTY}
        self.late: list[tuple[Late, Callable[[World, int], Iterable[World]] | None]] = []
        """What is still on its way, and what it may change when it arrives."""

    async def call(self, number: int, call: Call, plan: Plan, beside: Beside | None = None) -> Any:
        """What client *number* is told, once there is a world that explains it."""
        before = self.rig.clock()
        between: list[Explain] = []
        if beside is not None:
            other = self.clients[1 - number]
            plan = {**plan, beside.at: functools.partial(self._meanwhile, other, beside, between)}
        answer = await self._made(self.clients[number], call, plan)
        first, last = call.parts(answer, before), call.parts(answer, self.rig.clock())
        orders = [
            [*first[:cut], *between, *last[cut:]]
            for cut in (range(len(first) + 1) if between else [0])
        ]
        self.now_in(set().union(*(through(self.worlds, *order) for order in orders)), call, answer)
        if len(self.worlds) > MAX_WORLDS:
            await self._read_everything()
        return answer

    async def _meanwhile(self, other: Client, beside: Beside, between: list[Explain]) -> None:
        if beside.after_s:  # in a thread: the clock of a database is a file
            await asyncio.to_thread(self.rig.clock.advance, beside.after_s)
        self.figures["calls beside"] += 1
        told = await self._made(other, beside.call, beside.plan)
        between += beside.call.parts(told, self.rig.clock())

    async def _made(self, client: Client, call: Call, plan: Plan) -> Any:
        answer = await client.make(call, plan, self.rig.clock())
        failure = failure_of(answer)
        may_come = is_unknown(failure) or (failure is not None and isinstance(call, Cleanup))
        self.late += [(late, call.happened if may_come else None) for late in client.trouble.late]
        client.trouble.late.clear()
        return answer

    def now_in(self, worlds: set[World], cause: object, answer: object) -> None:
        assert worlds, (
            f"nothing explains {answer!r} of {cause!r} at {self.rig.clock()}; "
            f"before it there was one of {self.worlds!r}"
        )
        self.figures["worlds pruned"] += max(0, len(self.worlds) - len(worlds))
        self.worlds = worlds
        self.figures["most worlds"] = max(self.figures["most worlds"], len(worlds))

    async def arrive(self, number: int) -> None:
        """A request that was late arrives."""
        late, happened = self.late.pop(number)
        await late.arrive()
        self.figures["late arrivals"] += 1
        if happened is not None:
            now = self.rig.clock()
            more = {after for world in self.worlds for after in happened(world, now)}
            self.now_in(self.worlds | more, late.name, None)

    async def _read_everything(self) -> None:
        answer = await self.plain.retrieve_batch(KEYS)
        explains = RetrieveBatch(list(KEYS)).parts(answer, self.rig.clock())
        self.now_in(through(self.worlds, *explains), "a look at everything", answer)

    async def come_to_rest(self, after_s: float) -> None:
        """All is up, what was late has arrived: *after_s*, rows, ledger and objects agree."""
        while self.late:
            await self.arrive(0)
        await self._read_everything()
        self.rig.clock.advance(after_s)
        while (await self.plain.collect_garbage(audit=True, stray_age=timedelta(0))).deleted:
            pass
        verified = await self.plain.verify()
        assert verified.sound, verified.problems
        assert (verified.pending_blobs, verified.dead_blobs, verified.strays) == (0, 0, 0)
        ledger = await self.rig.catalog.list_blobs("", limit=1_000)
        assert await self.rig.objects() == {blob_path("", blob.blob_id) for blob in ledger}
        await self._read_everything()

    async def aclose(self) -> None:
        for client in self.clients:
            await client.ltm.aclose()
        await self.plain.aclose()
        await self.rig.aclose()
