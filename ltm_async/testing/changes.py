"""What every catalog must do for the change feed."""

from __future__ import annotations

import base64
import json

import pytest

from ..cursors import DELETIONS_KEPT_US
from ..entry import Expiry
from ..errors import InvalidEntryError, WatermarkExpiredError
from ..protocols import Catalog, Change, SnapshotRow, Write
from .hiding import refuse_hidden
from .writes import SECOND_US, SPACE, new_write_id, small

LONG_S = DELETIONS_KEPT_US / SECOND_US + 1
SNAPSHOT_ID = "00112233445566778899aabbccddeeff"


class ChangesContract:
    """Subclass it beside :class:`CatalogContract`, whose ``catalog`` and ``advance`` it uses."""

    def __init_subclass__(cls) -> None:
        refuse_hidden(cls)
        super().__init_subclass__()

    @pytest.fixture
    def catalog(self) -> Catalog:
        raise NotImplementedError

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        """Let the catalog's clock go on, or its rows grow older by as much."""
        raise NotImplementedError

    async def _track_all(self, catalog: Catalog, *writes: Write) -> None:
        await catalog.track_entries_batch(SPACE, writes, write_id=new_write_id())

    async def _pass(
        self, catalog: Catalog, since: str = "", *, limit: int = 100
    ) -> tuple[dict[str, str], str]:
        """The kind of each change of a pass, by key, and the next watermark."""
        changes, cursor = await self._changes(catalog, since, limit=limit)
        return {change.key: change.kind for change in changes}, cursor

    async def _changes(
        self, catalog: Catalog, since: str = "", *, limit: int = 100
    ) -> tuple[list[Change], str]:
        found: list[Change] = []
        while True:
            page = await catalog.list_changes(SPACE, since, limit)
            assert len(page.changes) <= limit
            found += page.changes
            since = page.cursor
            if not page.more:
                return found, since

    async def _snapshot(self, catalog: Catalog) -> SnapshotRow:
        return await catalog.create_snapshot(SPACE, new_write_id(), "a moment")

    async def test_from_the_beginning_comes_all_that_is_there(self, catalog: Catalog) -> None:
        writes = [small(f"k{n}", f'"{n}"', metadata='{"a":1}') for n in range(5)]
        await self._track_all(catalog, *writes)
        changes, _ = await self._changes(catalog)
        rows = {row.key: row for row in await catalog.list_entries(SPACE, limit=100)}
        assert {change.key: change.row for change in changes} == rows
        assert {change.kind for change in changes} == {"stored"}
        assert {change.key: change.version for change in changes} == {
            row.key: row.version for row in rows.values()
        }

    async def test_an_empty_catalog_has_no_changes(self, catalog: Catalog) -> None:
        page = await catalog.list_changes(SPACE, "", 10)
        assert (list(page.changes), page.more) == ([], False)
        again = await catalog.list_changes(SPACE, page.cursor, 10)
        assert (list(again.changes), again.more) == ([], False)

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    async def test_pages_of_any_size_have_each_key_once(self, catalog: Catalog, limit: int) -> None:
        """Also where a batch, whose entries changed at one time, goes over several pages."""
        snapshot = await self._snapshot(catalog)
        for start in (0, 10, 14):
            await self._track_all(catalog, *(small(f"k{n:02}") for n in range(start, start + 10)))
        await catalog.delete_entries_batch(SPACE, ["k01", "k15"], write_id=new_write_id())
        for since in ("", snapshot.watermark):
            changes, cursor = await self._changes(catalog, since, limit=limit)
            live = [change.key for change in changes if change.kind == "stored"]
            assert sorted(live) == sorted({f"k{n:02}" for n in range(24)} - {"k01", "k15"})
        await self._track_all(catalog, small("k00", "2"))
        found, _ = await self._pass(catalog, cursor, limit=limit)
        assert found["k00"] == "stored"

    async def test_whatever_changes_a_key_is_reported(self, catalog: Catalog) -> None:
        keys = ["replaced", "touched", "deleted", "swept", "left"]
        ends = Expiry(ttl_us=SECOND_US)
        await self._track_all(catalog, *(small(key) for key in keys[:3]))
        await self._track_all(catalog, small("swept", expiry=ends))
        snapshot = await self._snapshot(catalog)
        await self.advance(catalog, 2)
        await self._track_all(catalog, small("replaced", "2"), small("new"))
        await self._track_all(catalog, small("left", expiry=ends))
        await catalog.touch_entry(
            SPACE, "touched", expiry=None, metadata='{"a":2}', write_id=new_write_id()
        )
        await catalog.delete_entry(SPACE, "deleted", write_id=new_write_id())
        await catalog.expire_entries(SPACE, 10, write_id=new_write_id())
        await self.advance(catalog, 2)
        changes, _ = await self._changes(catalog, snapshot.watermark)
        assert {change.key: change.kind for change in changes} == {
            "replaced": "stored",
            "new": "stored",
            "touched": "stored",
            "deleted": "deleted",
            "swept": "expired",
            "left": "expired",  # though no cleanup has removed it
        }
        for change in changes:
            assert (change.row is not None) is (change.kind == "stored")
            if change.row is not None:
                assert change.row.inlined_value is None
        (touched,) = (change.row for change in changes if change.key == "touched")
        assert touched == (await catalog.list_entries(SPACE, prefix="touched", limit=1))[0]

    async def test_a_key_that_came_back_is_not_deleted(self, catalog: Catalog) -> None:
        await self._track_all(catalog, small("k", "1"))
        snapshot = await self._snapshot(catalog)
        await catalog.delete_entry(SPACE, "k", write_id=new_write_id())
        await self._track_all(catalog, small("k", "2"))
        changes, _ = await self._changes(catalog, snapshot.watermark)
        assert [change.kind for change in changes] == ["stored"]
        await catalog.delete_entry(SPACE, "k", write_id=new_write_id())
        found, _ = await self._pass(catalog, snapshot.watermark)
        assert found == {"k": "deleted"}

    async def test_what_changes_during_a_pass_is_in_the_next(self, catalog: Catalog) -> None:
        await self._track_all(catalog, *(small(f"k{n}") for n in range(6)))
        first = await catalog.list_changes(SPACE, "", 2)
        assert first.more
        early, late = first.changes[0].key, "k5"
        await self._track_all(catalog, small(early, "2"), small("new"))
        await catalog.delete_entry(SPACE, late, write_id=new_write_id())
        _, cursor = await self._pass(catalog, first.cursor)
        found, _ = await self._pass(catalog, cursor)
        assert found[early] == found["new"] == "stored"
        assert found[late] == "deleted"

    async def test_namespaces_have_their_own_changes(self, catalog: Catalog) -> None:
        snapshot = await self._snapshot(catalog)
        await catalog.track_entry("other", small("k"), write_id=new_write_id())
        for since in (snapshot.watermark, ""):
            assert (await self._pass(catalog, since))[0] == {}
        assert await catalog.get_snapshot("other", snapshot.id) is None

    async def test_a_snapshot_is_found_again_and_made_once(self, catalog: Catalog) -> None:
        await self._track_all(catalog, small("a", '"1"'), small("b", "null"))
        made = await catalog.create_snapshot(SPACE, SNAPSHOT_ID, "n'ame")
        assert (made.id, made.name) == (SNAPSHOT_ID, "n'ame")
        assert (made.entry_count, made.total_bytes) in [(2, 7), (None, None)]
        await self._track_all(catalog, small("c"))
        assert await catalog.create_snapshot(SPACE, SNAPSHOT_ID, "n'ame") == made
        assert await catalog.get_snapshot(SPACE, SNAPSHOT_ID) == made
        assert await catalog.get_snapshot(SPACE, "absent") is None

    async def test_a_snapshot_is_forgotten_in_its_namespace_alone(self, catalog: Catalog) -> None:
        kept = await self._snapshot(catalog)
        for namespace in (SPACE, "other"):
            await catalog.create_snapshot(namespace, SNAPSHOT_ID, "n")
        assert await catalog.delete_snapshot(SPACE, SNAPSHOT_ID)
        assert not await catalog.delete_snapshot(SPACE, SNAPSHOT_ID)
        assert await catalog.get_snapshot(SPACE, SNAPSHOT_ID) is None
        assert await catalog.get_snapshot("other", SNAPSHOT_ID) is not None
        assert await catalog.get_snapshot(SPACE, kept.id) == kept

    async def test_forgotten_deletions_are_an_error_and_not_an_empty_answer(
        self, catalog: Catalog
    ) -> None:
        await self._track_all(catalog, small("k"), small("kept"))
        snapshot = await self._snapshot(catalog)
        await catalog.delete_entry(SPACE, "k", write_id=new_write_id())
        await self.advance(catalog, LONG_S - 2)
        await catalog.take_due_blobs(SPACE, 10, backoff_us=1)
        assert (await self._pass(catalog, snapshot.watermark))[0]["k"] == "deleted"
        await self.advance(catalog, 2)
        await catalog.take_due_blobs(SPACE, 10, backoff_us=1)
        with pytest.raises(WatermarkExpiredError, match="forgotten"):
            await catalog.list_changes(SPACE, snapshot.watermark, 10)
        found, _ = await self._pass(catalog)
        assert found == {"kept": "stored"}

    async def test_forged_cursors_are_refused(self, catalog: Catalog) -> None:
        """Each field of what the catalog itself gives, and the whole of it."""
        await self._track_all(catalog, *(small(f"k{n}") for n in range(3)))
        begun = await catalog.list_changes(SPACE, "", 1)
        _, watermark = await self._pass(catalog, begun.cursor)
        going_on = await catalog.list_changes(SPACE, watermark, 1)
        for cursor in {begun.cursor, watermark, going_on.cursor}:
            padded = cursor + "=" * (-len(cursor) % 4)
            fields = json.loads(base64.urlsafe_b64decode(padded))
            forged: list[object] = [fields[:-1], [*fields, 1], {}, None, 1, [fields]]
            for place in range(len(fields)):
                others = [True, -1, 2**64, 1.5, "", "k\0", [], {}]
                if not str(fields[place]).startswith("k"):  # what a key may be
                    others += ["'; --", "1:1", "5:4:"]
                before, after = fields[:place], fields[place + 1 :]
                forged += [[*before, other, *after] for other in others]
            texts = [_encoded(json.dumps(each)) for each in forged]
            texts += ["x", "é", "'", cursor + "=", _encoded("[" * 9_000), _encoded('{"a":')]
            for text in texts:
                if text != cursor and _decoded(text) != fields:
                    with pytest.raises(InvalidEntryError, match=r"^cursor is none"):
                        await catalog.list_changes(SPACE, text, 10)


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(text: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
