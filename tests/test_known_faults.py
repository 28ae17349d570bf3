"""The faults of the synchronous original, by their numbers in the requirements."""

from __future__ import annotations

import asyncio
import os
import pathlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from ltm_async import InvalidEntryError, LTMBackend, StoreError
from ltm_async.testing import Faults, Mode

from .backends import PAIRS, Rig, make_rig

LARGE = "x" * 5_000


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    await rig.aclose()


async def test_1_a_stored_null_is_found(rig: Rig) -> None:
    await rig.ltm.store("k", None)
    hit = await rig.ltm.retrieve("k")
    assert (hit.found, hit.value) == (True, None)
    got = await rig.ltm.retrieve_batch(["k"])
    assert (got.found, got.missing) == (1, [])


@pytest.mark.parametrize("value", [1, LARGE])
async def test_2_storing_again_after_the_end_renews(rig: Rig, value: Any) -> None:
    await rig.ltm.store("k", value, ttl=10)
    rig.clock.advance(11)
    assert not (await rig.ltm.retrieve("k")).found
    await rig.ltm.store("k", value, ttl=10)
    assert (await rig.ltm.retrieve("k")).found
    assert (await rig.ltm.cleanup_expired()).deleted == 0
    assert (await rig.ltm.retrieve("k")).value == value


async def test_2_renewing_survives_a_cleanup_in_between(rig: Rig) -> None:
    """The cleanup deletes the blob after the reservation found it: it is uploaded after all."""
    await rig.ltm.store("k", LARGE, ttl=10)
    rig.clock.advance(11)

    class CleansUpBeforeTheCommit(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "catalog.track_entries_batch" and name not in self.steps:
                self.steps.append(name)
                other = LTMBackend(rig.catalog, rig.blobs, on_unavailable="raise")
                assert (await other.cleanup_expired()).blobs_deleted == 1
            return await super().step(name, call)

    rig.faults.__class__ = CleansUpBeforeTheCommit
    rig.faults.steps.clear()
    stored = await rig.ltm.store("k", LARGE)
    assert not stored.deduplicated
    assert (await rig.ltm.retrieve("k")).value == LARGE
    assert (await rig.ltm.verify()).sound


@pytest.mark.parametrize("new", [1, LARGE + "new"])
async def test_3_a_failed_overwrite_leaves_the_old_value(rig: Rig, new: Any) -> None:
    await rig.ltm.store("k", LARGE)
    step = 0 if new == 1 else 2
    rig.faults.at, rig.faults.mode = len(rig.faults.steps) + step, Mode.DOWN
    with pytest.raises(StoreError):
        await rig.ltm.store("k", new)
    rig.faults.at = None
    rig.clock.advance(3_600)
    await rig.ltm.collect_garbage()
    assert (await rig.ltm.retrieve("k")).value == LARGE
    assert len(await rig.objects()) == 1


async def test_4_no_blob_is_left_behind(rig: Rig) -> None:
    await rig.ltm.store("replaced", LARGE)
    await rig.ltm.store("replaced", 1)
    await rig.ltm.store("expired", LARGE, ttl=1)
    await rig.ltm.store("deleted", LARGE)
    rig.clock.advance(1)
    await rig.ltm.delete("deleted")
    await rig.ltm.cleanup_expired()
    assert await rig.objects() == set()


async def test_5_a_ttl_reaches_the_column_that_cleanup_reads(tmp_path: pathlib.Path) -> None:
    async with LTMBackend(f"sqlite:///{tmp_path}/ltm.db", "memory:") as ltm:
        await ltm.store("k", 1, ttl=3_600)

    def read() -> int:
        with closing(sqlite3.connect(tmp_path / "ltm.db")) as db:
            (ends,) = db.execute("SELECT expires_at FROM ltm_entries").fetchone()
            return int(ends)

    left = await asyncio.to_thread(read) / 1e6 - datetime.now(UTC).timestamp()
    assert 3_500 < left <= 3_600


async def test_6_what_is_not_committed_is_not_reported_as_stored(tmp_path: pathlib.Path) -> None:
    rig = make_rig(
        "memory+memory", tmp_path, Faults(at=0, mode=Mode.DOWN), on_unavailable="degrade"
    )
    stored = await rig.ltm.store("k", 1)
    assert (stored.stored, stored.durable, stored.success) == (False, False, False)
    batch = await rig.ltm.store_batch([{"key": "k", "value": 1}])
    assert (batch.stored, batch.versions) == (0, {})


async def test_7_a_download_that_fails_is_not_a_miss(rig: Rig) -> None:
    await rig.ltm.store("large", LARGE)
    await rig.ltm.store("small", 1)
    rig.faults.at, rig.faults.mode = len(rig.faults.steps) + 1, Mode.DOWN
    got = await rig.ltm.retrieve_batch(["large", "small"])
    assert (list(got.results), got.missing, list(got.errors)) == (["small"], [], ["large"])
    rig.faults.at = len(rig.faults.steps) + 1
    with pytest.raises(StoreError):
        await rig.ltm.retrieve("large")


@pytest.mark.parametrize("value", [{1, 2}, datetime(2026, 1, 1, tzinfo=UTC), b"bytes", (1, 2)])
async def test_10_what_json_would_change_is_refused(rig: Rig, value: object) -> None:
    with pytest.raises(InvalidEntryError, match="value has a "):
        await rig.ltm.store("k", {"deep": [value]})
    assert rig.faults.steps == []


def test_11_the_constructor_does_nothing(tmp_path: pathlib.Path) -> None:
    code = f"""
import sys
io = ("socket.", "sqlite3.", "os.mkdir")
sys.addaudithook(lambda event, args: event.startswith(io) and exit(3))
from ltm_async import LTMBackend
LTMBackend("sqlite:///{tmp_path}/new.db", "{tmp_path}/blobs")
assert "sqlite3" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert os.listdir(tmp_path) == []


def test_13_a_second_event_loop_finds_everything_working(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", on_unavailable="raise")
    asyncio.run(_store(ltm, "a"))
    asyncio.run(_store(ltm, "b"))
    assert asyncio.run(_found(ltm)) == 2
    asyncio.run(ltm.aclose())


async def _store(ltm: LTMBackend, key: str) -> None:
    await ltm.store(key, LARGE)


async def _found(ltm: LTMBackend) -> int:
    return (await ltm.retrieve_batch(["a", "b"])).found
