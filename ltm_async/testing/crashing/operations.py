"""The operations that are stopped at each of their steps, and what they make of the state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from ... import LTMBackend
from ...cache import Cache
from ...results import CollectResult, StoreResult
from .state import BEFORE, EXPIRED, FOUND, Entry, State, large, small

DAY_S = 86_400


class Operation(NamedTuple):
    """A call of the public API on the prepared state."""

    name: str
    run: Callable[[LTMBackend], Awaitable[Any]]
    """Gives a result, or raises what its ``raise_for_error`` would."""
    stores: Mapping[str, Entry] = {}
    removes: frozenset[str] = frozenset()
    keeps_house: bool = False
    """No blob is due any more when it is done without errors; when it fails, a part is done."""
    never_fails: bool = False
    """It does what it is for without the memory, too, so that done does not mean stored."""

    @property
    def done(self) -> State:
        """What it makes of ``FOUND``."""
        entries = {**BEFORE, **self.stores}
        return State(
            {key: entry for key, entry in entries.items() if key not in self.removes},
            (FOUND.keys | self.stores.keys()) - self.removes,
        )


_BATCH = {
    "large": Entry(large("batch, over large"), {"batch": 1}),
    "small": Entry(large("batch, over small")),
    "ended small": Entry(small("batch, over expired")),
    "new large": Entry(large("batch, new"), {}, DAY_S),
    "new small": Entry(small("batch, new"), {"batch": 5}, DAY_S),
}


def _store(name: str, key: str, entry: Entry, **options: Any) -> Operation:
    def run(ltm: LTMBackend) -> Awaitable[Any]:
        return ltm.store(key, entry.value, metadata=entry.metadata, ttl=entry.ttl_s, **options)

    return Operation(name, run, {key: entry})


def _store_batch(ltm: LTMBackend) -> Awaitable[Any]:
    return ltm.store_batch(
        {"key": key, "value": value, "metadata": metadata, "ttl": ttl_s}
        for key, (value, metadata, ttl_s) in _BATCH.items()
    )


_SWAPPED = Entry(large("swapped"), {"n": 8})


async def _swap(ltm: LTMBackend) -> StoreResult:
    now = await ltm.retrieve("large")
    return await ltm.store(
        "large", _SWAPPED.value, metadata=_SWAPPED.metadata, if_version=now.version
    )


_REMEMBERED = Entry(large("remembered"), None, DAY_S)


async def _wrap(ltm: LTMBackend) -> dict[str, Any]:
    async def act() -> Any:
        return _REMEMBERED.value

    return await Cache(ltm, lease=None, cleanup_probability=0).wrap(
        act, key="new large", ttl_seconds=DAY_S
    )


async def _read_the_feed(ltm: LTMBackend) -> None:
    kinds: dict[str, str] = {}
    cursor, more = None, True
    while more:
        page = (await ltm.get_changed_entries(cursor=cursor, limit=5)).raise_for_error()
        kinds.update((change.key, change.kind) for change in page.changes)
        cursor, more = page.cursor, page.more
    live = [key for key, kind in kinds.items() if kind == "stored"]
    assert sorted(live) == sorted(BEFORE), f"the feed has {sorted(live)} as live"


def _audit(ltm: LTMBackend) -> Awaitable[CollectResult]:
    return ltm.collect_garbage(audit=True, stray_age=timedelta(0))


OPERATIONS = (
    _store("store small", "new small", Entry(small("new"), {"n": 1}, DAY_S)),
    _store("store large", "new large", Entry(large("new"), {"n": 2}, DAY_S)),
    _store("large over large", "large", Entry(large("newer"), {"n": 3})),
    _store("small over large", "large", Entry(small("newer"))),
    _store("large over small", "small", Entry(large("newer"), {"n": 4})),
    _store("same large again", "large", Entry(BEFORE["large"].value, {"n": 5}, DAY_S)),
    _store("same large over expired", "ended large", Entry(large("ended"), {"n": 6})),
    _store("small if absent", "ended large", Entry(small("newer")), if_absent=True),
    Operation("large if version", _swap, {"large": _SWAPPED}),
    Operation(
        "update large",
        lambda ltm: ltm.update("list", lambda value: [*value, "second"]),
        {"list": Entry([large("first"), "second"])},
    ),
    Operation("delete large", lambda ltm: ltm.delete("large"), removes=frozenset({"large"})),
    Operation(
        "delete batch",
        lambda ltm: ltm.delete_batch(["large", "small", "ended large"]),
        removes=frozenset({"large", "small", "ended large"}),
    ),
    Operation(
        "touch",
        lambda ltm: ltm.touch("large", ttl=DAY_S, metadata={"n": 7}),
        {"large": Entry(BEFORE["large"].value, {"n": 7}, DAY_S)},
    ),
    Operation("batch of five", _store_batch, _BATCH),
    Operation("cache", _wrap, {"new large": _REMEMBERED}, never_fails=True),
    Operation("cleanup", lambda ltm: ltm.cleanup_expired(), removes=EXPIRED, keeps_house=True),
    Operation("collect", lambda ltm: ltm.collect_garbage(), keeps_house=True),
    Operation("collect with audit", _audit, keeps_house=True),
    Operation("snapshot", lambda ltm: ltm.create_snapshot("a moment")),
    Operation("read the feed", _read_the_feed),
)
