"""What a collection counts, page by page, up to its limit."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from ltm_async import CorruptError, StoreError, UnavailableError, collecting
from ltm_async.entry import namespace_path, new_blob_id
from ltm_async.testing import Faults, Mode

from .backends import Rig, make_rig

LARGE = "x" * 5_000
STRAY = b"landed late"
NOW = timedelta(0)


@pytest.fixture(params=["memory+memory", "sqlite memory+memory"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    assert (await rig.ltm.verify()).sound
    await rig.aclose()


@pytest.fixture(autouse=True)
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PAGE", 2)


async def leave_dead(rig: Rig, count: int) -> None:
    for number in range(count + 1):
        await rig.ltm.store("k", [number, LARGE])


async def leave_strays(rig: Rig, count: int) -> list[str]:
    names = sorted(new_blob_id("sha256:" + "a" * 64) for _ in range(count))
    paths = [namespace_path("") + name for name in names]
    for path in paths:
        await rig.blobs.put(path, STRAY)
    return paths


SIZE = len('[0,""]') + len(LARGE)


@pytest.mark.parametrize(
    ("limit", "deleted", "byte_size"),
    [
        (2, 2, 2 * SIZE),
        (3, 3, 3 * SIZE),
        (5, 5, 3 * SIZE + 2 * len(STRAY)),
        (6, 6, 3 * SIZE + 3 * len(STRAY)),
        (7, 6, 3 * SIZE + 3 * len(STRAY)),
    ],
)
async def test_due_blobs_and_then_strays_are_collected_up_to_the_limit(
    rig: Rig, limit: int, deleted: int, byte_size: int
) -> None:
    await leave_dead(rig, 3)
    await leave_strays(rig, 3)
    for dry_run in (True, False):
        rig.faults.steps.clear()
        done = await rig.ltm.collect_garbage(
            limit=limit, audit=True, stray_age=NOW, dry_run=dry_run
        )
        assert (done.success, done.deleted, done.byte_size) == (True, deleted, byte_size)
        # Where nothing is left of the limit, nobody has to read the whole storage.
        assert ("blobs.scan" in rig.faults.steps) is (limit > 3)
    assert len(await rig.objects()) == 1 + 6 - deleted


async def test_a_collection_takes_page_after_page_until_one_is_not_full(rig: Rig) -> None:
    await leave_dead(rig, 5)
    rig.faults.steps.clear()
    assert (await rig.ltm.collect_garbage(limit=100)).deleted == 5
    assert rig.faults.steps.count("catalog.take_due_blobs") == 3
    assert rig.faults.steps.count("catalog.forget_blobs") == 3


async def test_a_cleanup_takes_page_after_page_until_one_is_not_full(rig: Rig) -> None:
    await rig.ltm.store_batch({"key": f"k{n}", "value": [n, LARGE], "ttl": 1} for n in range(5))
    rig.clock.advance(2)
    rig.faults.steps.clear()
    done = await rig.ltm.cleanup_expired(limit=100)
    assert (done.deleted, done.blobs_deleted) == (5, 5)
    assert rig.faults.steps.count("catalog.expire_entries") == 3
    assert await rig.objects() == set()


async def test_a_cleanup_stops_at_its_limit(rig: Rig) -> None:
    await rig.ltm.store_batch({"key": f"k{n}", "value": n, "ttl": 1 + n} for n in range(5))
    rig.clock.advance(10)
    assert (await rig.ltm.cleanup_expired(limit=3)).deleted == 3
    assert (await rig.ltm.stats()).expired == 2


async def test_an_audit_asks_page_after_page_until_it_has_enough(rig: Rig) -> None:
    await leave_strays(rig, 7)
    for limit, pages in ((3, 2), (4, 2), (5, 3), (100, 4)):
        rig.faults.steps.clear()
        done = await rig.ltm.collect_garbage(limit=limit, audit=True, stray_age=NOW, dry_run=True)
        asked = rig.faults.steps.count("catalog.known_blobs")
        assert (done.deleted, asked) == (min(limit, 7), pages)


async def test_what_could_not_be_collected_is_reported_by_what_it_was(rig: Rig) -> None:
    """A name that leads nowhere, and a catalog that does not answer."""
    await leave_dead(rig, 1)
    (dead,) = await rig.catalog.due_blobs("", 10)
    done = collecting.Collected()
    rig.faults.at, rig.faults.mode = 1, Mode.DOWN
    rig.faults.steps.clear()
    await collecting.discard(rig.ltm._runner.stores(), ["../forged", dead.blob_id], done)
    rig.faults.at = None
    assert [type(exc) for exc in done.errors] == [CorruptError, UnavailableError]
    assert done.deleted == 0
    assert await rig.catalog.due_blobs("", 10) == [dead]


async def test_strays_that_cannot_be_deleted_are_reported_and_not_counted(rig: Rig) -> None:
    """Of each page one."""
    refused = (await leave_strays(rig, 5))[::2]

    class RefusesSome(Faults):
        async def step(self, name: str, call: Any) -> Any:
            result = await super().step(name, call)
            if name == "blobs.delete":
                for path in refused:
                    if await rig.blobs.get(path, limit=1) is None:
                        await rig.blobs.put(path, STRAY)
                        return {path: StoreError("refused in a test")}
            return result

    rig.faults.__class__ = RefusesSome
    done = await rig.ltm.collect_garbage(audit=True, stray_age=NOW)
    rig.faults.__class__ = Faults
    assert (done.deleted, len(done.errors)) == (2, 3)
    assert done.byte_size == 2 * len(STRAY)
    assert sorted(await rig.objects()) == refused


async def test_what_a_delete_could_not_discard_is_no_error_of_the_delete(rig: Rig) -> None:
    await rig.ltm.store("k", LARGE)

    class Refuses(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "blobs.delete":
                raise StoreError("refused in a test")
            return await super().step(name, call)

    rig.faults.__class__ = Refuses
    deleted = await rig.ltm.delete("k")
    rig.faults.__class__ = Faults
    assert (deleted.success, deleted.deleted, len(await rig.objects())) == (True, True, 1)
    assert (await rig.ltm.collect_garbage()).deleted == 1


async def test_an_audit_leaves_what_is_younger_than_its_age(rig: Rig) -> None:
    await leave_strays(rig, 3)
    rig.clock.advance(60)
    young = await leave_strays(rig, 1)
    done = await rig.ltm.collect_garbage(audit=True, stray_age=timedelta(seconds=60))
    assert (done.deleted, await rig.objects()) == (3, set(young))
