"""Calls that cross, on every catalog: what one asked has changed when it goes on, nothing is lost.

A call stops before each of its requests in turn, to either store, and of Firestore's before each to
its server. Another is made meanwhile, whole, or so much time passes that reservations end. Then an
order has to explain what both were told, and rows, blobs, texts and vectors have to agree.

By default a slice, see :mod:`tests.crossings`.
"""

from __future__ import annotations

import asyncio
import itertools
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest

from ltm_async import FirestoreCatalog
from ltm_async.entry import blob_path
from ltm_async.protocols import Catalog, DueBlob
from ltm_async.testing import Faults, Recorder, faulty_blob_store, faulty_catalog

from .backends import Rig, make_rig
from .crossings import ALL, CALLS, THERE, bring_about, call, client_of, judge, noting

T = TypeVar("T")

EVERY = {
    "memory+memory": 7,
    "sqlite+memory": 11,
    "postgres+memory": 17,
    "supabase+memory": 37,
    "firestore+memory": 101,
}
"""One of so many crossings is tried by default; prime to how many of each kind there are."""
KEYS = ["a", "b"]
TIME_PASSES = "time passes"
"""So much that reservations end, and a collection is made."""
TAKEN = "a collector takes what is due"
"""After as much time; and goes on to delete it at the very end."""
HOUR_S = 3_600.0


class Pause(Faults):
    """Has something else done before one step."""

    def __init__(self, at: int, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._pause_at = at
        self._meanwhile = meanwhile
        self.came = False

    async def step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        if len(self.steps) == self._pause_at and not self.came:
            self.came = True
            await self._meanwhile()
        return await super().step(name, call)


def through(catalog: Catalog, pause: Pause, patched: pytest.MonkeyPatch) -> Catalog:
    """*catalog*, with a step for each of its requests."""
    if not isinstance(catalog, FirestoreCatalog):
        return faulty_catalog(catalog, pause)
    documents = catalog._documents

    async def stepping() -> Any:
        return faulty_catalog(cast("Any", await documents()), pause)

    patched.setattr(catalog, "_documents", stepping)
    return catalog


@pytest.fixture(params=EVERY)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    await rig.aclose()


async def cross(
    rig: Rig, namespace: str, at: int, there: dict[str, str], first: str, second: str
) -> bool:
    """Call *second* before step *at* of *first*; say whether that has so many."""
    recorder = Recorder()
    taken: list[DueBlob] = []

    async def meanwhile() -> None:
        if second in (TIME_PASSES, TAKEN):
            await asyncio.to_thread(rig.clock.advance, HOUR_S)
        if second == TAKEN:
            taken.extend(await rig.catalog.take_due_blobs(namespace, 100, backoff_us=1))
        else:
            await call(client, "sweep" if second == TIME_PASSES else second, KEYS)

    client = client_of(recorder, "second", rig.catalog, rig.blobs, namespace)
    for key, what in there.items():
        await bring_about(client, what, key, rig.clock)
    pause = Pause(at, meanwhile)
    with pytest.MonkeyPatch.context() as patched:
        catalog = through(rig.catalog, pause, patched)
        blobs = faulty_blob_store(rig.blobs, pause)
        crossed = client_of(recorder, "first", catalog, blobs, namespace)
        await call(crossed, first, KEYS)
    blob_ids = [blob.blob_id for blob in taken]
    await rig.blobs.delete([blob_path(namespace, blob_id) for blob_id in blob_ids])
    await rig.catalog.forget_blobs(namespace, blob_ids)
    await judge(recorder, rig.catalog, rig.blobs, namespace, KEYS)
    return pause.came


@pytest.mark.timeout(900 if ALL else 120)
@pytest.mark.parametrize("first", CALLS)
async def test_calls_that_cross_lose_nothing(
    rig: Rig,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    first: str,
) -> None:
    every = 1 if ALL else EVERY[request.node.callspec.params["rig"]]
    most_steps = 24 if isinstance(rig.catalog, FirestoreCatalog) else 8
    crossings = itertools.product(["nothing", "large"], THERE, [*CALLS, TIME_PASSES, TAKEN])
    tried = 0
    for number, (one, other, second) in enumerate(crossings):
        there = dict(zip(KEYS, (other, one), strict=True))
        for at in range(most_steps):
            if (CALLS.index(first) + number * most_steps + at) % every:
                continue
            with noting(f"{second!r} before step {at} of {first!r}, where there was {there}"):
                came = await cross(rig, f"mine/{number}/{at}", at, there, first, second)
            if not came:
                break
            tried += 1
        else:
            assert not ALL, "there are more steps than are looked for"
    assert tried
    record_property("crossings", tried)
