"""The crash points find what they are for: each break of the protocol here is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ltm_async import MemoryCatalog, collecting, writing
from ltm_async.collecting import Collected
from ltm_async.errors import StoreError
from ltm_async.protocols import Outcome, Resolved, Write, Written
from ltm_async.stores import Stores
from ltm_async.testing import Mode
from ltm_async.testing.crashing import (
    IN_PROCESS,
    MemoryBlobPlace,
    MemoryCatalogPlace,
    Pair,
    PreparedEachTime,
    stop_at_each,
)

from .crash.matrix import Cell, Row
from .crash.operations import BY_NAME
from .crash.report import loaded, saved, whole


class Unfenced(MemoryCatalog):
    """Commits blobs whose reservations have ended."""

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        blobs = self._space(namespace).blobs
        for write in writes:
            if write.blob_id in blobs:
                blobs[write.blob_id].state = "pending"
        return await super().track_entries_batch(namespace, writes, write_id=write_id)


class OnlyLooking(MemoryCatalog):
    """Settles a lost commit without refusing it from then on."""

    async def resolve_write(
        self,
        namespace: str,
        write_id: str,
        *,
        keys: Sequence[str],
        blob_ids: Sequence[str],
        grace_us: int,
    ) -> Resolved:
        carrying = self._space(namespace).write_ids
        if any(carrying.get(key) == write_id for key in keys):
            return Resolved(Outcome.STORED, self._space(namespace).rows[keys[0]].version)
        return Resolved(Outcome.FAILED)


class Forgetful(MemoryCatalog):
    """Replaces a row, and leaves its blob live."""

    async def track_entries_batch(
        self, namespace: str, writes: Sequence[Write], *, write_id: str
    ) -> Written:
        blobs = self._space(namespace).blobs
        live = [blob for blob in blobs.values() if blob.state == "live"]
        written = await super().track_entries_batch(namespace, writes, write_id=write_id)
        for blob in live:
            blob.state = "live"
        return written


def broken_on(
    name: str,
    modes: Sequence[Mode] = IN_PROCESS,
    catalog: Callable[..., MemoryCatalog] | None = None,
) -> Mapping[str, str]:
    """What does not hold any more, by crash point."""
    make = catalog or MemoryCatalog
    scene = PreparedEachTime(lambda: Pair(MemoryCatalogPlace(make), MemoryBlobPlace()))
    return dict(asyncio.run(stop_at_each(scene, BY_NAME[name], modes)))


def test_a_catalog_without_the_fence_is_found() -> None:
    broken = broken_on("large over large", catalog=Unfenced)
    assert broken["late request at 2 catalog.track_entries_batch"].startswith("I")


def test_settling_that_only_looks_is_found() -> None:
    broken = broken_on("store small", [Mode.LATE], OnlyLooking)
    assert broken["late request at 0 catalog.track_entries_batch"].startswith("I6")


def test_a_replaced_blob_that_stays_live_is_found() -> None:
    with pytest.raises(AssertionError, match=r"^I2: "):
        broken_on("small over large", catalog=Forgetful)


def test_an_answer_before_the_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = writing._commit

    async def answer(stores: Stores, writes: Sequence[Write], write_id: str) -> Written:
        try:
            return await commit(stores, writes, write_id)
        except StoreError:
            return Written(None, (), {})

    monkeypatch.setattr(writing, "_commit", answer)
    broken = broken_on("store small")
    assert broken["error before at 0 catalog.track_entries_batch"].startswith(
        "I3, I4, I5: told done"
    )


def test_an_object_that_is_deleted_before_its_row_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remove = writing.remove

    async def delete_and_remove(stores: Stores, keys: Sequence[str], if_version: Any) -> Any:
        rows = await stores.catalog.get_entries_batch(stores.namespace, keys)
        await collecting.discard(stores, [row.blob_id for row in rows if row.blob_id], Collected())
        return await remove(stores, keys, if_version)

    monkeypatch.setattr(writing, "remove", delete_and_remove)
    broken = broken_on("delete large")
    (why,) = {why[:2] for point, why in broken.items() if "delete_entries_batch" in point}
    assert why == "I1"


def test_a_step_that_is_not_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an operation takes another way each time."""
    settled = iter([True])  # by the run that counts the steps
    commit = writing._commit

    async def once(stores: Stores, writes: Sequence[Write], write_id: str) -> Written:
        if writes[0].key == "new small" and next(settled, False):
            await stores.catalog.stats(stores.namespace)
        return await commit(stores, writes, write_id)

    monkeypatch.setattr(writing, "_commit", once)
    broken = broken_on("store small", [Mode.LOST_REPLY])
    assert broken == {"lost reply at 1 catalog.track_entries_batch": "the step was not reached"}


def test_the_report_counts_crash_points_and_names_each_violation() -> None:
    cells = [Cell("", "0 blobs.put", "lost reply"), Cell("", "0 blobs.put", "kill after", "I1: no")]
    row = Row("store large", "sqlite+s3", "one fault", cells, 1.5)
    assert loaded(saved([row])) == [row]
    text = whole([row, row._replace(pair="sqlite+gcs", cells=cells[:1])])
    assert "store large on sqlite+s3, one fault: kill after at 0 blobs.put: I1: no" in text
    assert "3 crash points reached on 2 pairs of stores, 1 violations, 3 s" in text
    line = [line for line in text.splitlines() if line.startswith("sqlite+s3, one fault  ")][-1]
    assert line.split()[3:] == ["0", "0", "0", "1", "0", "0", "0", "1", "!1", "0", "1.5"]
