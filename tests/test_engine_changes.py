"""The engine's table of changes."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from ltm_async import DuckDBQueryEngine, InvalidEntryError, QueryError, WatermarkExpiredError

from .backends import Rig, make_rig

COUNTS = "SELECT kind, count(*) FROM changes GROUP BY kind ORDER BY kind"


@pytest.fixture
async def rig(tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig("sqlite+local", tmp_path)
    yield rig
    await rig.aclose()


@pytest.fixture
async def engine(rig: Rig, tmp_path: pathlib.Path) -> AsyncIterator[DuckDBQueryEngine]:
    engine = DuckDBQueryEngine(rig.ltm, threads=2, temp_directory=tmp_path)
    yield engine
    await engine.aclose()


async def test_changes_are_those_since_a_snapshot_and_the_next_begin_where_they_end(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    await rig.ltm.store_batch({"key": f"k{n:04}", "value": n} for n in range(20))
    before = await rig.ltm.create_snapshot("before")
    await rig.ltm.store_batch({"key": f"n{n:04}", "value": n} for n in range(2_500))
    await rig.ltm.delete_batch(["k0001", "k0002"])
    await rig.ltm.store("k0003", "x" * 3_000, metadata={"a": "ü"}, ttl=60)
    found = await engine.query(COUNTS, since_snapshot_id=before.id)
    assert found.rows == [("deleted", 2), ("stored", 2_501)]
    await rig.ltm.store("k0004", 1)
    later = await engine.query("SELECT key FROM changes", cursor=found.cursor)
    assert (later.rows, later.entries) == ([("k0004",)], 2_518)
    assert (await engine.query(COUNTS, cursor=later.cursor)).rows == []


async def test_a_change_has_what_is_known_of_its_entry(rig: Rig, engine: DuckDBQueryEngine) -> None:
    before = await rig.ltm.create_snapshot("before")
    ends = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    metadata = {"n": 10**20, "text": 'ü "quoted"\n', "none": None}
    await rig.ltm.store("large", ["x" * 3_000], metadata=metadata, expires_at=ends)
    (entry,) = (await rig.ltm.list_entries()).entries
    found = await engine.query(
        "SELECT c.* EXCLUDE (metadata), c.metadata = e.metadata AS same, c.metadata->>'text' "
        "FROM changes AS c JOIN entries AS e USING (key)",
        since_snapshot_id=before.id,
    )
    assert found.rows == [
        (
            "stored", "large", entry.version, entry.content_hash, entry.byte_size, False,
            ends, entry.created_at, entry.updated_at, True, metadata["text"],
        )
    ]  # fmt: skip
    await rig.ltm.delete("large")
    gone = await engine.query("SELECT * FROM changes", cursor=found.cursor)
    assert gone.rows[0][:2] == ("deleted", "large")
    assert set(gone.rows[0][3:]) == {None}


async def test_a_prefix_is_for_the_entries_alone(rig: Rig, engine: DuckDBQueryEngine) -> None:
    before = await rig.ltm.create_snapshot("before")
    await rig.ltm.store_batch([{"key": "a", "value": 1}, {"key": "b", "value": 2}])
    counts = "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM changes)"
    found = await engine.query(counts, prefix="a", since_snapshot_id=before.id)
    assert found.rows == [(1, 2)]
    async with await engine.load(prefix="b", since_snapshot_id=before.id) as loaded:
        assert (await loaded.query(counts)).rows == [(1, 2)]
        assert loaded.cursor == found.cursor


async def test_without_a_beginning_there_is_no_table_of_changes(
    rig: Rig, engine: DuckDBQueryEngine
) -> None:
    await rig.ltm.store("a", 1)
    with pytest.raises(QueryError, match="changes"):
        await engine.query("SELECT * FROM changes")
    assert (await engine.query("SELECT key FROM entries")).cursor is None


async def test_a_beginning_that_is_none_is_refused(rig: Rig, engine: DuckDBQueryEngine) -> None:
    with pytest.raises(InvalidEntryError, match="exclude each other"):
        await engine.query("SELECT 1", since_snapshot_id="a", cursor="b")
    with pytest.raises(InvalidEntryError, match="cursor"):
        await engine.query("SELECT 1", cursor="no cursor'; DROP TABLE changes")
    with pytest.raises(InvalidEntryError, match="there is no such snapshot"):
        await engine.query("SELECT 1", since_snapshot_id="f" * 32)
    ahead = await rig.ltm.get_changed_entries()
    other = make_rig("memory+memory", pathlib.Path())
    async with DuckDBQueryEngine(other.ltm) as elsewhere:
        await rig.ltm.store("a", 1)
        ahead = await rig.ltm.get_changed_entries()
        with pytest.raises(WatermarkExpiredError):
            await elsewhere.query("SELECT 1", cursor=ahead.cursor)
    await other.aclose()
