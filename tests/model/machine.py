"""The state machine: two clients, faults, a clock that is set, and the worlds that may be."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Coroutine, Iterable
from typing import Any, ClassVar, TypeAlias, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, multiple, rule

from . import draws
from .call import Call
from .client import open_clients
from .feed import Feed, Snapshot
from .judge import Beside, Judge
from .reading import List, Retrieve, RetrieveBatch
from .removing import Cleanup, Collect, Delete, DeleteBatch
from .storing import Store, StoreBatch, Touch, Update
from .trouble import Plan

T = TypeVar("T")
Version: TypeAlias = tuple[str, int]
Versions: TypeAlias = Version | MultipleResults[Version]


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
        self.set_back_s = 0.0
        self.failed = False
        rig, self.clients = self.runner.run(open_clients(self.pair, self.folder, self.figures))
        self.clock = rig.clock
        self.judge = Judge(rig, self.clients, self.figures)
        self.feed = Feed(self.judge)

    # Calls

    @rule(target=versions, client=draws.clients, store=draws.stores, plan=draws.plans)
    def store(self, client: int, store: Store, plan: Plan) -> Versions:
        return self._version(store.key, self._call(client, store, plan))

    @rule(
        target=versions,
        client=draws.clients,
        store=draws.stores,
        version=versions,
        plan=draws.plans,
    )
    def compare_and_swap(self, client: int, store: Store, version: Version, plan: Plan) -> Versions:
        swap = dataclasses.replace(store, key=version[0], expected=version[1])
        return self._version(swap.key, self._call(client, swap, plan))

    @rule(client=draws.clients, batch=draws.store_batches, plan=draws.plans)
    def store_batch(self, client: int, batch: StoreBatch, plan: Plan) -> None:
        self._call(client, batch, plan)

    @rule(target=versions, client=draws.clients, key=draws.keys, plan=draws.plans)
    def retrieve(self, client: int, key: str, plan: Plan) -> Versions:
        return self._version(key, self._call(client, Retrieve(key), plan))

    @rule(client=draws.clients, keys=draws.some_keys, plan=draws.plans)
    def retrieve_batch(self, client: int, keys: list[str], plan: Plan) -> None:
        self._call(client, RetrieveBatch(keys), plan)

    @rule(client=draws.clients, key=draws.keys, plan=draws.plans)
    def delete(self, client: int, key: str, plan: Plan) -> None:
        self._call(client, Delete(key), plan)

    @rule(client=draws.clients, version=versions, plan=draws.plans)
    def compare_and_delete(self, client: int, version: Version, plan: Plan) -> None:
        key, expected = version
        self._call(client, Delete(key, expected or None), plan)

    @rule(client=draws.clients, keys=draws.some_keys, plan=draws.plans)
    def delete_batch(self, client: int, keys: list[str], plan: Plan) -> None:
        self._call(client, DeleteBatch(keys), plan)

    @rule(
        client=draws.clients,
        key=draws.keys,
        ttl=draws.ttls,
        metadata=draws.metadata,
        plan=draws.plans,
    )
    def touch(
        self, client: int, key: str, ttl: float | None, metadata: dict[str, Any] | None, plan: Plan
    ) -> None:
        self._call(client, Touch(key, ttl, metadata), plan)

    @rule(client=draws.clients, key=draws.keys, mark=draws.marks, ttl=draws.ttls, plan=draws.plans)
    def update(self, client: int, key: str, mark: int, ttl: float | None, plan: Plan) -> None:
        self._call(client, Update(key, mark, ttl), plan)

    @rule(client=draws.clients, limit=draws.limits, plan=draws.plans)
    def cleanup_expired(self, client: int, limit: int, plan: Plan) -> None:
        self._call(client, Cleanup(limit), plan)

    @rule(client=draws.clients, plan=draws.plans)
    def collect_garbage(self, client: int, plan: Plan) -> None:
        self._call(client, Collect(), plan)

    @rule(client=draws.clients, prefix=draws.prefixes, wanted=draws.metadata)
    def list_entries(self, client: int, prefix: str, wanted: dict[str, Any] | None) -> None:
        self._call(client, List(prefix, wanted))

    @rule(client=draws.clients, call=draws.looks_at_all)
    def stats_and_verify(self, client: int, call: Call) -> None:
        self._call(client, call)

    @rule(
        client=draws.clients,
        call=draws.calls,
        at=draws.steps,
        meanwhile=draws.calls,
        other_plan=draws.plans,
    )
    def beside_another(
        self, client: int, call: Call, at: int, meanwhile: Call, other_plan: Plan
    ) -> None:
        """While a call of one client waits before its step *at*, one of the other is made."""
        self._call(client, call, beside=Beside(meanwhile, at, other_plan))

    @rule(
        client=draws.clients,
        call=draws.calls,
        plan=draws.plans,
        at=draws.steps,
        meanwhile=draws.calls_or_collect,
    )
    def in_trouble_beside_another(
        self, client: int, call: Call, plan: Plan, at: int, meanwhile: Call
    ) -> None:
        self._call(client, call, plan, Beside(meanwhile, at))

    @rule(
        client=draws.clients,
        call=draws.calls,
        at=draws.steps,
        meanwhile=draws.housekeeping_or_store,
        later=draws.longer_spans,
    )
    def for_longer_than_expected(
        self, client: int, call: Call, at: int, meanwhile: Call, later: float
    ) -> None:
        """The same, and time passes."""
        self._call(client, call, beside=Beside(meanwhile, at, after_s=later))

    @rule(client=draws.clients, keys=draws.some_keys, change=draws.calls)
    def outage(self, client: int, keys: list[str], change: Call) -> None:
        """What is read before and after a change in an outage, and when it is over."""
        trouble = self.clients[client].trouble
        looks = [Retrieve(key) for key in keys]
        self._call_each(client, looks)
        trouble.down = True
        self._call_each(client, [*looks, change, *looks])
        trouble.down = False
        self._call_each(client, looks)

    # The change feed

    @rule(client=draws.clients)
    def follow_the_changes(self, client: int) -> None:
        self._guarded(self.feed.follow(self.clients[client]))

    @rule(target=snapshots, client=draws.clients)
    def create_snapshot(self, client: int) -> Snapshot | MultipleResults[Snapshot]:
        snapshot = self._guarded(self.feed.create_snapshot(self.clients[client]))
        return multiple() if snapshot is None else snapshot

    @rule(client=draws.clients, snapshot=snapshots)
    def follow_since_a_snapshot(self, client: int, snapshot: Snapshot) -> None:
        if snapshot.era == self.feed.era:
            self._guarded(self.feed.follow_since(self.clients[client], snapshot))

    # The world around

    @rule(seconds=draws.spans)
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if seconds < 0:
            # A row that had expired is live again, and the feed does not say so.
            self.set_back_s -= seconds
            self.feed.begin_anew()
            self.figures["clock set back"] += 1

    @rule()
    def stores_are_up_again(self) -> None:
        for client in self.clients:
            client.trouble.down = False

    @rule(number=st.integers(0, 5))
    def a_late_request_arrives(self, number: int) -> None:
        if number < len(self.judge.late):
            self._guarded(self.judge.arrive(number))

    # How

    def _call(
        self, number: int, call: Call, plan: Plan | None = None, beside: Beside | None = None
    ) -> Any:
        return self._guarded(self.judge.call(number, call, plan or {}, beside))

    def _call_each(self, number: int, calls: Iterable[Call]) -> None:
        for call in calls:
            self._call(number, call)

    def _version(self, key: str, answer: Any) -> Versions:
        version = getattr(answer, "version", None)
        return multiple() if version is None else (key, version)

    def _guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """What teardown finds after a failure is not the failure."""
        self.figures["steps"] += 1
        try:
            return self.runner.run(work)
        except BaseException:
            self.failed = True
            raise

    def teardown(self) -> None:
        try:
            if not self.failed:
                after_s = self.set_back_s + 2 * draws.LEASE_S
                self.runner.run(self.judge.come_to_rest(after_s))
        finally:
            self.runner.run(self.judge.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)
