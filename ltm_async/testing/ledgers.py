"""What every catalog must know of blobs, and of writes whose reply was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ..entry import NEVER, Expiry, new_blob_id
from ..errors import ConflictError, FencedError
from ..protocols import Catalog, Outcome
from .writes import (
    LARGE,
    LEASE_US,
    OTHER,
    SECOND_US,
    SPACE,
    CatalogTests,
    large,
    new_write_id,
    reservation,
    small,
)


class LedgerTests(CatalogTests):
    async def test_a_blob_goes_from_pending_to_live(self, catalog: Catalog) -> None:
        blob = reservation("k")
        assert await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US) == {}
        assert await catalog.get_entry(SPACE, "k") is None
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "pending"}
        await self.track(catalog, large("k", blob.blob_id))
        assert (await self.row(catalog, "k")).blob_id == blob.blob_id
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "live"}

    async def test_a_reservation_delivered_twice_is_entered_once(self, catalog: Catalog) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await self.track(catalog, large("k", blob.blob_id))
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "live"}

    async def test_content_that_is_there_is_not_reserved_again(self, catalog: Catalog) -> None:
        held = await self.store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        again, other = reservation("k"), reservation("other")
        for seconds in (0, 2):  # live, and expired but still there
            await self.advance(catalog, seconds)
            found = await catalog.reserve_blobs(SPACE, [again, other], lease_us=LEASE_US)
            assert found == {"k": held}
        assert set(await self.raw_ledger(catalog, SPACE)) == {held, other.blob_id}

    async def test_renewing_keeps_the_blob(self, catalog: Catalog) -> None:
        held = await self.store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        await self.advance(catalog, 2)
        await self.track(catalog, large("k", None))
        row = await self.row(catalog, "k")
        assert (row.blob_id, row.expires_at) == (held, None)
        assert await self.raw_ledger(catalog, SPACE) == {held: "live"}

    async def test_what_has_changed_cannot_be_renewed(self, catalog: Catalog) -> None:
        await self.store_large(catalog, "changed")
        await self.track(catalog, small("changed", "1"))
        for key in ("changed", "absent"):
            with pytest.raises(FencedError):
                await self.track(catalog, small("beside", "1"), large(key, None))
        assert await self.raw_rows(catalog, SPACE) == {"changed": "1"}

    async def test_a_blob_of_other_content_cannot_be_renewed(self, catalog: Catalog) -> None:
        blob_id = await self.store_large(catalog, "k", content_hash="sha256:" + "0" * 64)
        with pytest.raises(FencedError):
            await self.track(catalog, large("k", None))
        assert (await self.row(catalog, "k")).blob_id == blob_id

    async def test_a_replaced_blob_dies_with_the_commit(self, catalog: Catalog) -> None:
        first = await self.store_large(catalog, "k")
        beside = await self.store_large(catalog, "beside")
        await self.track(catalog, small("k", "1"))
        assert await self.raw_ledger(catalog, SPACE) == {first: "dead", beside: "live"}

    async def test_two_first_writers_leave_one_live_blob(self, catalog: Catalog) -> None:
        one, two = reservation("k"), reservation("k")
        await catalog.reserve_blobs(SPACE, [one], lease_us=LEASE_US)
        await catalog.reserve_blobs(SPACE, [two], lease_us=LEASE_US)
        await asyncio.gather(
            self.track(catalog, large("k", one.blob_id)),
            self.track(catalog, large("k", two.blob_id)),
        )
        row = await self.row(catalog, "k")
        ledger = await self.raw_ledger(catalog, SPACE)
        assert sorted(ledger.values()) == ["dead", "live"]
        assert row.blob_id is not None and ledger[row.blob_id] == "live"

    async def test_a_commit_without_its_reservation_is_refused_whole(
        self, catalog: Catalog
    ) -> None:
        kept, lost = reservation("a"), reservation("b")
        await catalog.reserve_blobs(SPACE, [kept], lease_us=LEASE_US)
        with pytest.raises(FencedError):
            await self.track(catalog, large("a", kept.blob_id), large("b", lost.blob_id))
        assert await self.raw_rows(catalog, SPACE) == {}
        assert await self.raw_ledger(catalog, SPACE) == {kept.blob_id: "pending"}

    async def test_a_writer_that_outlived_its_lease_is_fenced(self, catalog: Catalog) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        assert await catalog.take_due_blobs(SPACE, 10, backoff_us=SECOND_US) == []
        await self.advance(catalog, 61)
        (due,) = await catalog.take_due_blobs(SPACE, 10, backoff_us=SECOND_US)
        assert due == (blob.blob_id, 5)
        with pytest.raises(FencedError):
            await self.track(catalog, large("k", blob.blob_id))
        assert await self.raw_rows(catalog, SPACE) == {}

    async def test_a_lease_is_by_the_catalogs_clock(self, catalog: Catalog) -> None:
        """Which may be ahead of the writer's."""
        await self.advance(catalog, 3_600)
        await catalog.reserve_blobs(SPACE, [reservation("k")], lease_us=LEASE_US)
        assert await catalog.take_due_blobs(SPACE, 10, backoff_us=SECOND_US) == []

    async def test_an_abandoned_blob_is_due_after_its_grace(self, catalog: Catalog) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        held = await self.store_large(catalog, "live")
        await catalog.abandon_blobs(SPACE, [blob.blob_id, held], grace_us=5 * SECOND_US)
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "dead", held: "live"}
        assert await catalog.due_blobs(SPACE, 10) == []
        await self.advance(catalog, 5)
        assert [due.blob_id for due in await catalog.due_blobs(SPACE, 10)] == [blob.blob_id]

    async def test_what_a_collector_took_others_leave_for_a_while(self, catalog: Catalog) -> None:
        blob_id = await self.store_large(catalog, "k")
        await self.track(catalog, small("k", "1"))
        assert len(await catalog.take_due_blobs(SPACE, 10, backoff_us=5 * SECOND_US)) == 1
        assert await catalog.take_due_blobs(SPACE, 10, backoff_us=5 * SECOND_US) == []
        await self.advance(catalog, 5)
        assert [due.blob_id for due in await catalog.due_blobs(SPACE, 10)] == [blob_id]

    async def test_due_blobs_come_in_pages(self, catalog: Catalog) -> None:
        for number in range(5):
            await self.store_large(catalog, f"k{number}")
        await self.track(catalog, *(small(f"k{number}", "1") for number in range(5)))
        counts = [
            len(await catalog.take_due_blobs(SPACE, 2, backoff_us=LEASE_US)) for _ in range(4)
        ]
        assert counts == [2, 2, 1, 0]

    async def test_only_dead_blobs_are_forgotten(self, catalog: Catalog) -> None:
        dead = await self.store_large(catalog, "k")
        live = await self.store_large(catalog, "k", content_hash=OTHER)
        blob = reservation("p")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        ids = [dead, live, blob.blob_id, new_blob_id(LARGE)]
        assert set(await catalog.known_blobs(SPACE, ids)) == {dead, live, blob.blob_id}
        assert set(await catalog.known_blobs("other", ids)) == set()
        await catalog.forget_blobs(SPACE, ids)
        assert await self.raw_ledger(catalog, SPACE) == {live: "live", blob.blob_id: "pending"}

    async def test_the_ledger_says_what_is_named(self, catalog: Catalog) -> None:
        held = await self.store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        replaced = await self.store_large(catalog, "r")
        await self.track(catalog, small("r", "1"))
        await self.advance(catalog, 2)
        blobs = await catalog.list_blobs(SPACE, limit=10)
        assert [blob.blob_id for blob in blobs] == sorted([held, replaced])
        found = {blob.blob_id: (blob.key, blob.state, bool(blob.named)) for blob in blobs}
        assert found == {held: ("k", "live", True), replaced: ("r", "dead", False)}
        (second,) = await catalog.list_blobs(SPACE, after=min(found), limit=10)
        assert second.blob_id == max(found)

    async def test_deleting_kills_the_blob(self, catalog: Catalog) -> None:
        held = await self.store_large(catalog, "large")
        await self.track(catalog, small("small"))
        keys = ["large", "small", "absent"]
        removed = await catalog.delete_entries_batch(SPACE, keys, write_id=new_write_id())
        assert sorted(removed) == [("large", True, held), ("small", True, None)]
        assert await self.raw_rows(catalog, SPACE) == {}
        assert await self.raw_ledger(catalog, SPACE) == {held: "dead"}
        assert await catalog.delete_entry(SPACE, "large", write_id=new_write_id()) is None

    async def test_deleting_one_version_only(self, catalog: Catalog) -> None:
        version = await self.track(catalog, small("k", "1"))
        for expected, keys in ((version + 1, ["k"]), (version, ["absent"])):
            with pytest.raises(ConflictError):
                await catalog.delete_entries_batch(
                    SPACE, keys, write_id=new_write_id(), if_version=expected
                )
        await catalog.delete_entries_batch(
            SPACE, ["k"], write_id=new_write_id(), if_version=version
        )
        assert await self.raw_rows(catalog, SPACE) == {}

    async def test_an_expired_row_is_deleted_but_was_not_live(self, catalog: Catalog) -> None:
        held = await self.store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        await self.advance(catalog, 2)
        removed = await catalog.delete_entry(SPACE, "k", write_id=new_write_id())
        assert removed == ("k", False, held)
        assert await self.raw_rows(catalog, SPACE) == {}

    # Lost replies

    async def _resolve(
        self, catalog: Catalog, write_id: str, keys: Sequence[str], blob_ids: Sequence[str]
    ) -> tuple[Outcome, int | None]:
        return await catalog.resolve_write(
            SPACE, write_id, keys=keys, blob_ids=blob_ids, grace_us=LEASE_US
        )

    async def test_a_commit_that_happened_is_found(self, catalog: Catalog) -> None:
        blob, write_id = reservation("l"), new_write_id()
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        writes = [large("l", blob.blob_id), small("s", "1")]
        written = await catalog.track_entries_batch(SPACE, writes, write_id=write_id)
        stored = (Outcome.STORED, written.version)
        assert await self._resolve(catalog, write_id, ["l", "s"], [blob.blob_id]) == stored
        assert await self._resolve(catalog, write_id, ["s"], []) == stored
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "live"}

    async def test_a_commit_that_happened_is_found_after_it_was_replaced(
        self, catalog: Catalog
    ) -> None:
        blob, write_id = reservation("l"), new_write_id()
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await catalog.track_entries_batch(SPACE, [large("l", blob.blob_id)], write_id=write_id)
        await self.track(catalog, small("l", "1"))
        found = await self._resolve(catalog, write_id, ["l"], [blob.blob_id])
        assert found == (Outcome.STORED, None)

    async def test_a_commit_that_did_not_happen_is_refused_for_good(self, catalog: Catalog) -> None:
        blob, write_id = reservation("l"), new_write_id()
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        found = await self._resolve(catalog, write_id, ["l", "s"], [blob.blob_id])
        assert found == (Outcome.FAILED, None)
        with pytest.raises(FencedError):  # it arrives late
            await catalog.track_entries_batch(
                SPACE, [large("l", blob.blob_id), small("s", "1")], write_id=write_id
            )
        assert await self.raw_rows(catalog, SPACE) == {}

    async def test_a_small_write_that_is_not_there_is_unknown(self, catalog: Catalog) -> None:
        write_id = new_write_id()
        assert await self._resolve(catalog, write_id, ["s"], []) == (Outcome.UNKNOWN, None)
        await catalog.track_entry(SPACE, small("s", "1"), write_id=write_id)
        await self.track(catalog, small("s", "2"))
        assert await self._resolve(catalog, write_id, ["s"], []) == (Outcome.UNKNOWN, None)

    async def test_forgotten_blobs_settle_nothing(self, catalog: Catalog) -> None:
        found = await self._resolve(catalog, new_write_id(), ["l"], [new_blob_id(LARGE)])
        assert found == (Outcome.UNKNOWN, None)

    async def test_a_touch_is_found(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", "1"))
        write_id = new_write_id()
        row = await catalog.touch_entry(SPACE, "k", expiry=NEVER, metadata=None, write_id=write_id)
        assert row is not None
        found = await self._resolve(catalog, write_id, ["k"], [])
        assert found == (Outcome.STORED, row.version)

    async def test_a_removal_is_found(self, catalog: Catalog) -> None:
        await self.track(catalog, small("a"), small("b"))
        mine, others = new_write_id(), new_write_id()
        await catalog.delete_entry(SPACE, "a", write_id=mine)
        await catalog.delete_entry(SPACE, "b", write_id=others)
        assert list(await catalog.resolve_removal(SPACE, mine, ["a", "b"])) == ["a"]
        assert list(await catalog.resolve_removal(SPACE, new_write_id(), ["a", "b"])) == []

    async def test_a_removal_of_what_had_expired_removed_nothing(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", expiry=Expiry(ttl_us=SECOND_US)))
        await self.advance(catalog, 2)
        write_id = new_write_id()
        await catalog.delete_entry(SPACE, "k", write_id=write_id)
        assert list(await catalog.resolve_removal(SPACE, write_id, ["k"])) == []
