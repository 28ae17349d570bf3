"""What a verification counts, and each way in which rows, ledger and objects can disagree."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async import MemoryCatalog, verifying
from ltm_async.entry import namespace_path, new_blob_id
from ltm_async.protocols import Reservation
from ltm_async.testing import Faults

from .backends import Rig, make_rig

LARGE = "x" * 5_000
SIZE = len(f'["{LARGE}"]')


@pytest.fixture
async def rig(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(verifying, "PAGE", 2)
    rig = make_rig("memory+memory", tmp_path, batch_size=2)
    yield rig
    await rig.aclose()


def ledger(rig: Rig) -> dict[str, Any]:
    assert isinstance(rig.catalog, MemoryCatalog)
    return rig.catalog._spaces[""].blobs


async def blob_of(rig: Rig, key: str) -> str:
    row = await rig.catalog.get_entry("", key)
    assert row is not None and row.blob_id is not None
    return row.blob_id


async def test_everything_is_counted_over_all_pages(rig: Rig) -> None:
    await rig.ltm.store_batch({"key": f"{n}", "value": n} for n in range(5))
    await rig.ltm.store_batch({"key": f"large {n}", "value": [LARGE]} for n in range(5))
    for value in ([LARGE, 1], [LARGE, 2], [LARGE, 3], [LARGE]):
        await rig.ltm.store("large 0", value)
    await rig.ltm.store("ended", [LARGE], ttl=1)
    rig.clock.advance(1)
    reserved = [Reservation(new_blob_id("sha256:" + "a" * 64), "k", "", 5) for _ in range(3)]
    await rig.catalog.reserve_blobs("", reserved, lease_us=60_000_000)
    for _ in range(2):  # more are not counted than are in a page
        await rig.blobs.put(namespace_path("") + new_blob_id("sha256:" + "b" * 64), b"stray")
    rig.faults.steps.clear()
    found = await rig.ltm.verify()
    assert (found.sound, found.problems) == (True, {})
    # 10 entries and 13 blobs, the one of the ended entry included.
    assert rig.faults.steps.count("catalog.list_entries") == 6
    assert rig.faults.steps.count("catalog.list_blobs") == 8
    assert (found.entries, found.blobs, found.byte_size) == (10, 5, 5 + 5 * SIZE)
    assert (found.pending_blobs, found.dead_blobs, found.strays) == (3, 4, 2)


async def test_a_row_whose_blob_is_not_live_in_the_ledger_is_named(rig: Rig) -> None:
    for key in ("a", "b", "c"):
        await rig.ltm.store(key, [LARGE])
    ledger(rig)[await blob_of(rig, "b")].state = "dead"
    assert (await rig.ltm.verify()).problems == {"b": "its blob is dead in the ledger"}


async def test_a_row_whose_blob_the_ledger_does_not_know_is_named(rig: Rig) -> None:
    for key in ("a", "b", "c"):
        await rig.ltm.store(key, [LARGE])
    del ledger(rig)[await blob_of(rig, "b")]
    assert (await rig.ltm.verify()).problems == {"b": "its blob is not in the ledger"}


async def test_a_live_blob_that_no_row_names_is_named_by_its_key(rig: Rig) -> None:
    await rig.ltm.store("replaced", [LARGE])
    first = await blob_of(rig, "replaced")
    await rig.ltm.store("replaced", 1)
    ledger(rig)[first].state = "live"
    assert (await rig.ltm.verify()).problems == {
        "replaced": "a blob is live in the ledger, but no row names it"
    }


async def test_what_is_replaced_while_it_is_verified_is_no_problem(rig: Rig) -> None:
    """The row was read with the blob that is gone when the ledger is."""
    for key in ("a", "b", "c"):
        await rig.ltm.store(key, [LARGE])

    class Replaces(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "catalog.list_blobs" and name not in self.steps:
                rig.faults.__class__ = Faults
                await rig.ltm.store("b", [LARGE, 2])
                await rig.ltm.collect_garbage()
            return await Faults.step(self, name, call)

    rig.faults.steps.clear()
    rig.faults.__class__ = Replaces
    found = await rig.ltm.verify()
    assert (found.sound, found.problems) == (True, {})


async def test_what_is_wrong_with_an_entry_is_said(rig: Rig) -> None:
    for key in ("a", "b", "c"):
        await rig.ltm.store(key, [LARGE])
    await rig.blobs.delete([namespace_path("") + await blob_of(rig, "b")])
    assert (await rig.ltm.verify()).problems == {"b": "a blob that a row names is missing"}
