"""The state machine: two clients, faults, a clock that is set, and the worlds that may be."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, ClassVar, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, multiple, rule

from ltm_async import ConflictError, LTMBackend, RetryPolicy, WatermarkExpiredError
from ltm_async.entry import blob_path
from ltm_async.testing import faulty_blob_store, faulty_catalog

from .. import places
from ..backends import QUICK, make_rig
from .calls import (
    Call,
    Cleanup,
    Collect,
    Count,
    Delete,
    DeleteBatch,
    List,
    Retrieve,
    RetrieveBatch,
    Store,
    StoreBatch,
    Touch,
    Update,
    Verify,
    failure_of,
    instant,
    is_unknown,
    looking,
    seen,
)
from .trouble import COMMIT, Fault, Late, Trouble
from .worlds import EMPTY, KEYS, Explain, World, text, through

CALLS_DOWN = 9
"""After so many calls an outage is over."""
MAX_WORLDS = 150
"""With more, the machine reads everything before it goes on."""
LEASE_S = 700.0
Version: TypeAlias = tuple[str, int]

keys = st.sampled_from(KEYS)
some_keys = st.lists(keys, min_size=1, max_size=len(KEYS), unique=True)
values = st.one_of(
    st.sampled_from([None, 0, "small", "x" * 40, "x" * 2_000, ["y" * 2_000]]),
    st.integers(1, 9).map(lambda number: [number, "z" * 1_500]),
    st.integers(1, 9),
)
metadata = st.sampled_from([None, {"m": 1}, {"m": 2}])
ttls = st.sampled_from([None, None, 1.0, 30.0])
stores = st.builds(
    Store, keys, values, metadata, ttls, expected=st.sampled_from([None, None, None, 0])
) | st.builds(Store, keys, values, metadata, ends_in=st.sampled_from([-5.0, 0.0, 5.0]))
batches = st.lists(
    st.builds(Store, keys, values, metadata, ttls),
    min_size=1,
    max_size=len(KEYS),
    unique_by=lambda store: store.key,
).map(StoreBatch)
calls: st.SearchStrategy[Call] = st.one_of(
    stores,
    batches,
    st.builds(Retrieve, keys),
    st.builds(RetrieveBatch, some_keys),
    st.builds(Delete, keys),
    st.builds(DeleteBatch, some_keys),
    st.builds(Touch, keys, ttls, metadata),
    st.builds(Update, keys, st.integers(1, 9), ttls),
    st.builds(Cleanup, st.sampled_from([1, 2, 100])),
)
steps = st.sampled_from([COMMIT, COMMIT, COMMIT, 0, 0, 1, 2, 3])
once = [fault for fault in Fault if fault is not Fault.DOWN]
faults = st.sampled_from([*once, *once, Fault.DOWN])
plans: st.SearchStrategy[dict[int, Fault]] = st.just({}) | st.dictionaries(
    steps, faults, min_size=1, max_size=2
)
who = st.sampled_from([0, 1])
seconds = st.sampled_from([1e-6, 1.0, 29.0, LEASE_S, 8 * 86_400.0, -1.0, -30.0, -LEASE_S])


@dataclasses.dataclass
class Client:
    ltm: LTMBackend
    trouble: Trouble
    batch_size: int
    calls_down: int = 0
    remembers: set[str] = dataclasses.field(default_factory=set)
    """Keys that it may recall while the catalog is down."""


@dataclasses.dataclass
class Copy:
    """What is made of the change feed alone."""

    entries: dict[str, Any] = dataclasses.field(default_factory=dict)
    cursor: str | None = None

    async def follow(self, ltm: LTMBackend, since: str | None = None) -> None:
        more = True
        while more:
            page = await ltm.get_changed_entries(
                since, cursor=None if since else self.cursor, limit=2
            )
            page.raise_for_error()
            for change in page.changes:
                assert change.kind in {"stored", "deleted", "expired"}
                self.entries[change.key] = change.entry
            self.cursor, since, more = page.cursor, None, page.more


class Machine(RuleBasedStateMachine):
    """Two clients of one pair of stores, and what they may find in them."""

    pair: ClassVar[str] = "memory+memory"
    figures: ClassVar[collections.Counter[str]] = collections.Counter()

    versions = Bundle("versions")
    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.figures["examples"] += 1
        self.runner = asyncio.Runner()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ltm-model-"))
        self.worlds: set[World] = {EMPTY}
        self.known: dict[str, set[str]] = collections.defaultdict(set)
        self.late: list[tuple[Late, Callable[[World, int], Iterable[World]] | None]] = []
        self.copy = Copy()
        self.set_back_s = 0.0
        self.era = 0
        self.failed = False
        self.runner.run(self._open())

    async def _open(self) -> None:
        if self.pair.startswith("postgres"):
            places.database().clear()
        if self.pair.startswith("supabase"):
            places.project().clear()
        first, second = Trouble(), Trouble()
        once = RetryPolicy(attempts=1)
        self.rig = make_rig(self.pair, self.folder, first, retry=once)
        other = LTMBackend(
            faulty_catalog(self.rig.catalog, second),
            faulty_blob_store(self.rig.blobs, second),
            inline_threshold=20,
            batch_size=2,
            on_unavailable="degrade",
            retry=QUICK,
        )
        self.plain = LTMBackend(self.rig.catalog, self.rig.blobs, on_unavailable="raise")
        self.clients = [Client(self.rig.ltm, first, 500), Client(other, second, 2)]

    # Calls

    @rule(target=versions, client=who, store=stores, plan=plans)
    def store(
        self, client: int, store: Store, plan: dict[int, Fault]
    ) -> Version | MultipleResults[Version]:
        return self._version(store.key, self._call(client, store, plan))

    @rule(target=versions, client=who, store=stores, version=versions, plan=plans)
    def compare_and_swap(
        self, client: int, store: Store, version: Version, plan: dict[int, Fault]
    ) -> Version | MultipleResults[Version]:
        swap = dataclasses.replace(store, key=version[0], expected=version[1])
        return self._version(swap.key, self._call(client, swap, plan))

    @rule(client=who, batch=batches, plan=plans)
    def store_batch(self, client: int, batch: StoreBatch, plan: dict[int, Fault]) -> None:
        self._call(client, batch, plan)

    @rule(target=versions, client=who, key=keys, plan=plans)
    def retrieve(
        self, client: int, key: str, plan: dict[int, Fault]
    ) -> Version | MultipleResults[Version]:
        return self._version(key, self._call(client, Retrieve(key), plan))

    @rule(client=who, keys=some_keys, plan=plans)
    def retrieve_batch(self, client: int, keys: list[str], plan: dict[int, Fault]) -> None:
        self._call(client, RetrieveBatch(keys), plan)

    @rule(client=who, key=keys, plan=plans)
    def delete(self, client: int, key: str, plan: dict[int, Fault]) -> None:
        self._call(client, Delete(key), plan)

    @rule(client=who, version=versions, plan=plans)
    def compare_and_delete(self, client: int, version: Version, plan: dict[int, Fault]) -> None:
        self._call(client, Delete(*version), plan)

    @rule(client=who, keys=some_keys, plan=plans)
    def delete_batch(self, client: int, keys: list[str], plan: dict[int, Fault]) -> None:
        self._call(client, DeleteBatch(keys), plan)

    @rule(client=who, key=keys, ttl=ttls, metadata=metadata, plan=plans)
    def touch(
        self,
        client: int,
        key: str,
        ttl: float | None,
        metadata: dict[str, Any] | None,
        plan: dict[int, Fault],
    ) -> None:
        self._call(client, Touch(key, ttl, metadata), plan)

    @rule(client=who, key=keys, mark=st.integers(1, 9), ttl=ttls, plan=plans)
    def update(
        self, client: int, key: str, mark: int, ttl: float | None, plan: dict[int, Fault]
    ) -> None:
        self._call(client, Update(key, mark, ttl), plan)

    @rule(client=who, limit=st.sampled_from([1, 2, 100]), plan=plans)
    def cleanup_expired(self, client: int, limit: int, plan: dict[int, Fault]) -> None:
        self._call(client, Cleanup(limit), plan)

    @rule(client=who, plan=plans)
    def collect_garbage(self, client: int, plan: dict[int, Fault]) -> None:
        self._call(client, Collect(), plan)

    @rule(client=who, prefix=st.sampled_from(["", "a", "k%"]), wanted=metadata)
    def list_entries(self, client: int, prefix: str, wanted: dict[str, Any] | None) -> None:
        self._call(client, List(prefix, wanted), {})

    @rule(client=who, call=st.sampled_from([Count(), Verify()]))
    def stats_and_verify(self, client: int, call: Call) -> None:
        self._call(client, call, {})

    @rule(client=who, call=calls, at=steps, meanwhile=calls, other_plan=plans)
    def beside_another(
        self, client: int, call: Call, at: int, meanwhile: Call, other_plan: dict[int, Fault]
    ) -> None:
        """While a call of one client waits before its step *at*, one of the other is made."""
        self._call(client, call, {}, at=at, meanwhile=meanwhile, other_plan=other_plan)

    @rule(client=who, call=calls, plan=plans, at=steps, meanwhile=calls | st.just(Collect()))
    def in_trouble_beside_another(
        self, client: int, call: Call, plan: dict[int, Fault], at: int, meanwhile: Call
    ) -> None:
        self._call(client, call, plan, at=at, meanwhile=meanwhile)

    @rule(
        client=who,
        call=calls,
        at=steps,
        meanwhile=st.sampled_from([Collect(), Cleanup(100)]) | stores,
        later=st.sampled_from([1.0, 30.0, LEASE_S]),
    )
    def for_longer_than_expected(
        self, client: int, call: Call, at: int, meanwhile: Call, later: float
    ) -> None:
        """The same, and time passes."""
        self._call(client, call, {}, at=at, meanwhile=meanwhile, later=later)

    @rule(client=who, keys=some_keys, change=calls | st.builds(Delete, keys))
    def outage(self, client: int, keys: list[str], change: Call) -> None:
        """What is read before and after a change in an outage, and when it is over."""
        for key in keys:
            self._call(client, Retrieve(key), {})
        self.clients[client].trouble.down = True
        for call in (*map(Retrieve, keys), change, *map(Retrieve, keys)):
            self._call(client, call, {})
        self.clients[client].trouble.down = False
        for key in keys:
            self._call(client, Retrieve(key), {})

    # The change feed

    @rule(client=who)
    def follow_the_changes(self, client: int) -> None:
        self._guarded(self._follow(self.clients[client], self.copy))

    @rule(target=snapshots, client=who)
    def create_snapshot(self, client: int) -> Any:
        return self._guarded(self._snapshot(self.clients[client]))

    @rule(client=who, snapshot=snapshots)
    def follow_since_a_snapshot(self, client: int, snapshot: tuple[str, Copy, int]) -> None:
        since, then, era = snapshot
        if era == self.era:
            copy = Copy(dict(then.entries))
            self._guarded(self._follow(self.clients[client], copy, since))

    # The world around

    @rule(seconds=seconds)
    def pass_time(self, seconds: float) -> None:
        self._pass_time(seconds)

    @rule()
    def stores_are_up_again(self) -> None:
        for client in self.clients:
            client.trouble.down = False

    @rule(number=st.integers(0, 5))
    def a_late_request_arrives(self, number: int) -> None:
        if number < len(self.late):
            self._guarded(self._arrive(number))

    # How

    def _version(self, key: str, answer: Any) -> Version | MultipleResults[Version]:
        version = getattr(answer, "version", None)
        return multiple() if version is None else (key, version)

    def _guarded(self, work: Any) -> Any:
        """What teardown finds after a failure is not the failure."""
        self.figures["steps"] += 1
        try:
            return self.runner.run(work)
        except BaseException:
            self.failed = True
            raise

    def _pass_time(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)
        if seconds < 0:
            # A row that had expired is live again, and the feed does not say so.
            self.set_back_s -= seconds
            self.copy = Copy()
            self.era += 1
            self.figures["clock set back"] += 1

    def _call(self, number: int, call: Call, plan: dict[int, Fault], **beside: Any) -> Any:
        if isinstance(call, Delete) and call.expected == 0:
            call = Delete(call.key)
        return self._guarded(self._judged(number, call, plan, **beside))

    async def _judged(
        self,
        number: int,
        call: Call,
        plan: dict[int, Fault],
        *,
        at: int = 0,
        meanwhile: Call | None = None,
        later: float = 0.0,
        other_plan: dict[int, Fault] | None = None,
    ) -> Any:
        client, other = self.clients[number], self.clients[1 - number]
        others: list[tuple[Any, int]] = []
        before = self.rig.clock()
        full_plan: dict[int, Any] = dict(plan)
        if meanwhile is not None:

            async def do_meanwhile() -> None:
                if later:  # in a thread: the clock of a database is a file
                    await asyncio.to_thread(self.rig.clock.advance, later)
                self.figures["calls beside"] += 1
                told = await self._made(other, meanwhile, other_plan or {})
                others.append((told, self.rig.clock()))

            full_plan[at] = do_meanwhile
        answer = await self._made(client, call, full_plan)
        now = self.rig.clock()
        parts = [call.parts(answer, before), call.parts(answer, now)]
        between: list[Explain] = []
        for told, then in others:
            assert meanwhile is not None
            between = meanwhile.parts(told, then)
        orders = [
            [*parts[0][:cut], *between, *parts[1][cut:]]
            for cut in (range(len(parts[0]) + 1) if between else [0])
        ]
        self._now_in(set().union(*(through(self.worlds, *order) for order in orders)), call, answer)
        if len(self.worlds) > MAX_WORLDS:
            await self._read_everything()
        return answer

    async def _made(self, client: Client, call: Call, plan: dict[int, Any]) -> Any:
        trouble = client.trouble
        for part in (call, *getattr(call, "stores", ())):
            part.batch_size = client.batch_size
            if isinstance(part, Store):
                self.known[part.key].add(text(part.value))
        was_down = trouble.down
        client.calls_down = client.calls_down + 1 if was_down else 0
        if client.calls_down > CALLS_DOWN:
            trouble.down = was_down = False
        trouble.prepare(plan)
        answer = await trouble.caught(call.make(client.ltm, self.rig.clock()))
        failure = failure_of(answer)
        if not trouble.met and not was_down:
            healthy = failure is None or isinstance(failure, ConflictError)
            assert healthy, f"{call} failed without a fault: {failure!r}"
        self._count(call, answer, trouble)
        may_come = is_unknown(failure) or (failure is not None and isinstance(call, Cleanup))
        self.late += [(late, call.happened if may_come else None) for late in trouble.late]
        trouble.late.clear()
        self._check_memory(client, call, answer)
        return answer

    def _count(self, call: Call, answer: Any, trouble: Trouble) -> None:
        self.figures[type(call).__name__] += 1
        self.figures.update(trouble.met)
        failure = failure_of(answer)
        if isinstance(failure, ConflictError):
            self.figures["conflicts"] += 1
        elif failure is not None:
            self.figures["outcomes unknown" if is_unknown(failure) else "failed for certain"] += 1

    def _check_memory(self, client: Client, call: Call, answer: Any) -> None:
        """What is recalled while the catalog is down is marked, was once to be stored, and is
        not what this client has deleted or changed since."""
        told = not isinstance(answer, BaseException) and getattr(answer, "found", False)
        if isinstance(call, Retrieve) and told:
            recalled = not answer.success
            assert (answer.source == "fallback", answer.degraded) == (recalled, recalled)
            if recalled:
                self.figures["recalled"] += 1
                assert call.key in client.remembers
                assert text(answer.value) in self.known[call.key]
            self.known[call.key].add(text(answer.value))
        if isinstance(call, Store) or (isinstance(call, Retrieve) and told):
            client.remembers.add(call.key)
        elif isinstance(call, StoreBatch):
            client.remembers -= {store.key for store in call.stores}
        elif isinstance(call, (Delete, DeleteBatch, Touch, Update)):
            client.remembers -= set(getattr(call, "keys", ())) or {getattr(call, "key", "")}

    def _now_in(self, worlds: set[World], call: Any, answer: Any) -> None:
        assert worlds, (
            f"nothing explains {answer!r} of {call!r} at {self.rig.clock()}; "
            f"before it there was one of {self.worlds!r}"
        )
        self.figures["worlds pruned"] += max(0, len(self.worlds) - len(worlds))
        self.worlds = worlds
        self.figures["most worlds"] = max(self.figures["most worlds"], len(worlds))

    async def _read_everything(self) -> None:
        answer = await self.plain.retrieve_batch(KEYS)
        (explain,) = RetrieveBatch(list(KEYS)).parts(answer, self.rig.clock())
        self._now_in(through(self.worlds, explain), "a look at everything", answer)

    async def _follow(self, client: Client, copy: Copy, since: str | None = None) -> bool:
        """Bring *copy* up to date and compare; false when the feed could not be read."""
        if client.trouble.down:
            return False
        client.trouble.prepare({})
        try:
            await copy.follow(client.ltm, since)
        except WatermarkExpiredError:
            copy.entries.clear()
            copy.cursor = None
            await copy.follow(client.ltm)
        now = self.rig.clock()
        found = {
            key: seen(info)
            for key, info in copy.entries.items()
            if info is not None and not 0 < instant(info.expires_at) <= now
        }
        explains = [looking(key, now, found.get(key)) for key in KEYS]
        self._now_in(through(self.worlds, *explains), "a copy fed by the changes", found)
        self.figures["copies compared"] += 1
        return True

    async def _snapshot(self, client: Client) -> Any:
        if not await self._follow(client, self.copy):
            return multiple()
        made = (await client.ltm.create_snapshot("moment")).raise_for_error()
        return made.id, Copy(dict(self.copy.entries)), self.era

    async def _arrive(self, number: int) -> None:
        late, happened = self.late.pop(number)
        await late.arrive()
        self.figures["late arrivals"] += 1
        if happened is not None:
            now = self.rig.clock()
            more = {after for world in self.worlds for after in happened(world, now)}
            self._now_in(self.worlds | more, late.name, None)

    # The end

    def teardown(self) -> None:
        try:
            if not self.failed:
                self.runner.run(self._come_to_rest())
        finally:
            self.runner.run(self._close())
            self.runner.close()
            shutil.rmtree(self.folder)

    async def _come_to_rest(self) -> None:
        """All is up, what was late has arrived: then rows, ledger and objects agree."""
        while self.late:
            await self._arrive(0)
        await self._read_everything()
        self.rig.clock.advance(self.set_back_s + 2 * LEASE_S)
        while (await self.plain.collect_garbage(audit=True, stray_age=timedelta(0))).deleted:
            pass
        verified = await self.plain.verify()
        assert verified.sound, verified.problems
        assert (verified.pending_blobs, verified.dead_blobs, verified.strays) == (0, 0, 0)
        ledger = await self.rig.catalog.list_blobs("", limit=1_000)
        assert await self.rig.objects() == {blob_path("", blob.blob_id) for blob in ledger}
        await self._read_everything()

    async def _close(self) -> None:
        for client in self.clients:
            await client.ltm.aclose()
        await self.plain.aclose()
        await self.rig.aclose()
