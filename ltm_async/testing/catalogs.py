"""What every catalog must do."""

from __future__ import annotations

import asyncio

import pytest

from ..entry import NEVER, Expiry, new_blob_id
from ..errors import ClosedError, ConflictError, FencedError
from ..protocols import Catalog, Outcome
from .ledgers import LedgerTests
from .listings import ListingTests
from .writes import (
    LARGE,
    LEASE_US,
    OTHER,
    SECOND_US,
    SPACE,
    large,
    new_write_id,
    reservation,
    small,
)


class CatalogContract(ListingTests, LedgerTests):
    """Subclass it, give it ``catalog``, ``advance``, ``raw_rows`` and ``raw_ledger``.

    ``raw_rows`` and ``raw_ledger`` look at the store without the adapter, so that a mistake
    made when writing and again when reading is seen. Tests cannot be hidden.
    """

    # Rows

    async def test_written_rows_reach_the_store(self, catalog: Catalog) -> None:
        await self.track(catalog, small("a", '"1"'), small("b", "null"))
        assert await self.raw_rows(catalog, SPACE) == {"a": '"1"', "b": "null"}

    async def test_a_row_comes_back_as_it_was_written(self, catalog: Catalog) -> None:
        write = small("k", '{"t":"\\ud800 \\u0000 \\u00fc"}', metadata='{"a":{"b":[1,null]}}')
        written = await catalog.track_entry(SPACE, write, write_id=new_write_id())
        row = await self.row(catalog, "k")
        assert row.inlined_value == write.inlined_value
        assert row.metadata.replace(" ", "") == write.metadata
        assert row[1:4] == (written.version, write.content_hash, write.byte_size)
        assert (row.blob_id, row.expires_at) == (None, None)
        assert row.created_at == row.updated_at

    async def test_replacing_keeps_when_it_was_created(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", "1"))
        before = await self.row(catalog, "k")
        await self.advance(catalog, 5)
        aged = await self.row(catalog, "k")
        await self.track(catalog, small("k", "2"))
        after = await self.row(catalog, "k")
        assert (after.inlined_value, after.created_at) == ("2", aged.created_at)
        assert after.updated_at - after.created_at >= 5 * SECOND_US
        assert after.version > before.version

    async def test_only_what_was_asked_for_comes_back(self, catalog: Catalog) -> None:
        await self.track(catalog, *(small(f"k{n}") for n in range(5)))
        rows = await catalog.get_entries_batch(SPACE, ["k1", "absent", "k3"])
        assert sorted(row.key for row in rows) == ["k1", "k3"]
        assert await catalog.get_entries_batch(SPACE, []) == []
        assert await catalog.get_entry(SPACE, "absent") is None

    async def test_namespaces_do_not_meet(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", "1"))
        await catalog.track_entry("other", small("k", "2"), write_id=new_write_id())
        assert (await self.row(catalog, "k")).inlined_value == "1"
        await catalog.delete_entry("other", "k", write_id=new_write_id())
        assert await self.raw_rows(catalog, SPACE) == {"k": "1"}
        assert await self.raw_rows(catalog, "other") == {}

    async def test_no_operation_reads_or_touches_another_namespace(self, catalog: Catalog) -> None:
        """Not even where it asks for the very keys, blobs and writes of the other."""
        blobs = [reservation(key) for key in ("large", "pending", "dead")]
        ids = [blob.blob_id for blob in blobs]
        keys = ["small", "ended", "large", "deleted"]
        wrote, deleted = new_write_id(), new_write_id()
        assert await catalog.reserve_blobs("other", blobs, lease_us=LEASE_US) == {}
        writes = [
            small("small", "1"),
            small("ended", "1", expiry=Expiry(ttl_us=SECOND_US)),
            large("large", ids[0]),
            small("deleted", "1"),
        ]
        await catalog.track_entries_batch("other", writes, write_id=wrote)
        await catalog.delete_entry("other", "deleted", write_id=deleted)
        await catalog.abandon_blobs("other", [ids[2]], grace_us=0)
        await self.advance(catalog, 5)
        rows = await self.raw_rows(catalog, "other")
        ledger = await self.raw_ledger(catalog, "other")
        assert (len(rows), sorted(ledger.values())) == (3, ["dead", "live", "pending"])

        assert await catalog.get_entries_batch(SPACE, keys) == []
        assert await catalog.list_entries(SPACE, limit=10) == []
        assert await catalog.list_blobs(SPACE, limit=10) == []
        assert await catalog.due_blobs(SPACE, 10) == []
        assert await catalog.take_due_blobs(SPACE, 10, backoff_us=SECOND_US) == []
        assert set(await catalog.known_blobs(SPACE, ids)) == set()
        assert set(await catalog.stats(SPACE)) == {0}
        assert await catalog.resolve_removal(SPACE, deleted, keys) == []
        never = new_write_id()
        touched = await catalog.touch_entry(
            SPACE, "small", expiry=NEVER, metadata=None, write_id=never
        )
        assert touched is None
        assert await catalog.expire_entries(SPACE, 10, write_id=never) == []
        assert await catalog.delete_entries_batch(SPACE, keys, write_id=never) == []
        await catalog.abandon_blobs(SPACE, ids, grace_us=0)
        await catalog.forget_blobs(SPACE, ids)
        resolved = await catalog.resolve_write(
            SPACE, wrote, keys=keys, blob_ids=ids, grace_us=SECOND_US
        )
        assert resolved.outcome is Outcome.UNKNOWN
        for write in (large("pending", ids[1]), large("large", None)):
            with pytest.raises(FencedError):
                await self.track(catalog, write)
        # Content that is there is there in the other only, and what replaces it does so in one.
        assert await self.store_large(catalog, "large") not in ids
        await self.track(catalog, small("large", "2"), small("small", "2"))
        assert await self.raw_rows(catalog, "other") == rows
        assert await self.raw_ledger(catalog, "other") == ledger

    @pytest.mark.parametrize(
        "key",
        ["a'b", 'a"b', "a\\b", "a%b", "a_b", ",().:*", "eq.1", "\n", "\U0001f600", "k" * 1024],
    )
    async def test_any_text_is_a_key(self, catalog: Catalog, key: str) -> None:
        await self.track(catalog, small(key, "1"), small("other", "2"))
        assert (await self.row(catalog, key)).inlined_value == "1"
        removed = await catalog.delete_entry(SPACE, key, write_id=new_write_id())
        assert removed is not None and removed.was_live
        assert await self.raw_rows(catalog, SPACE) == {"other": "2"}

    async def test_a_batch_says_what_was_there_already(self, catalog: Catalog) -> None:
        await self.track(catalog, small("same", "1"), small("changed", "1"))
        writes = [small("same", "1"), small("changed", "2"), small("new", "1")]
        written = await catalog.track_entries_batch(SPACE, writes, write_id=new_write_id())
        assert list(written.unchanged) == ["same"]

    async def test_a_large_batch(self, catalog: Catalog) -> None:
        writes = [small(f"key-{n:05}", f'"{n}"') for n in range(2_000)]
        await self.track(catalog, *writes)
        rows = await catalog.get_entries_batch(SPACE, [write.key for write in writes])
        assert {row.key: row.inlined_value for row in rows} == {
            write.key: write.inlined_value for write in writes
        }

    # Compare-and-swap

    async def test_a_write_that_expects_nothing_finds_nothing(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", "1", if_version=0))
        with pytest.raises(ConflictError) as caught:
            await self.track(catalog, small("k", "2", if_version=0))
        assert caught.value.key == "k"
        assert caught.value.version == (await self.row(catalog, "k")).version
        assert await self.raw_rows(catalog, SPACE) == {"k": "1"}

    async def test_a_write_replaces_only_the_version_it_expects(self, catalog: Catalog) -> None:
        first = await self.track(catalog, small("k", "1"))
        second = await self.track(catalog, small("k", "2", if_version=first))
        with pytest.raises(ConflictError):
            await self.track(catalog, small("k", "3", if_version=first))
        assert (await self.row(catalog, "k")).version == second

    async def test_a_conflict_refuses_the_whole_batch(self, catalog: Catalog) -> None:
        await self.track(catalog, small("b", "1"))
        with pytest.raises(ConflictError):
            await self.track(catalog, small("a", "2"), small("b", "2", if_version=0))
        assert await self.raw_rows(catalog, SPACE) == {"b": "1"}

    async def test_a_version_is_never_used_again(self, catalog: Catalog) -> None:
        first = await self.track(catalog, small("k", "1"))
        await catalog.delete_entry(SPACE, "k", write_id=new_write_id())
        with pytest.raises(ConflictError) as caught:
            await self.track(catalog, small("k", "2", if_version=first))
        assert caught.value.version is None
        again = await self.track(catalog, small("k", "1"))
        assert again > first
        with pytest.raises(ConflictError):
            await self.track(catalog, small("k", "2", if_version=first))

    async def test_of_many_that_expect_the_same_version_one_wins(self, catalog: Catalog) -> None:
        version = await self.track(catalog, small("k", "0"))
        outcomes = await asyncio.gather(
            *(self.track(catalog, small("k", str(n), if_version=version)) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 9

    # Time

    async def test_an_entry_is_gone_from_its_end_on(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", expiry=Expiry(ttl_us=10 * SECOND_US)))
        await self.advance(catalog, 5)
        assert await catalog.get_entry(SPACE, "k") is not None
        await self.advance(catalog, 5)
        assert await catalog.get_entry(SPACE, "k") is None
        assert await catalog.list_entries(SPACE, limit=10) == []
        assert list(await self.raw_rows(catalog, SPACE)) == ["k"]

    async def test_an_instant_ends_an_entry_too(self, catalog: Catalog) -> None:
        await self.track(catalog, small("now"))
        now = (await self.row(catalog, "now")).created_at
        ends = Expiry(at_us=now + 10 * SECOND_US)
        write = small("k", expiry=ends)
        written = await catalog.track_entry(SPACE, write, write_id=new_write_id())
        assert written.expires_at == {"k": now + 10 * SECOND_US}
        assert (await self.row(catalog, "k")).expires_at == now + 10 * SECOND_US

    async def test_an_expired_entry_counts_as_none(self, catalog: Catalog) -> None:
        version = await self.track(catalog, small("k", "1", expiry=Expiry(ttl_us=SECOND_US)))
        await self.advance(catalog, 2)
        with pytest.raises(ConflictError):
            await self.track(catalog, small("k", "2", if_version=version))
        write = small("k", "1", if_version=0)
        written = await catalog.track_entry(SPACE, write, write_id=new_write_id())
        assert list(written.unchanged) == []
        row = await self.row(catalog, "k")
        assert (row.expires_at, row.created_at) == (None, row.updated_at)

    async def test_touching_changes_the_end_or_the_metadata(self, catalog: Catalog) -> None:
        version = await self.track(catalog, small("k", "1", metadata='{"a":1}'))
        row = await catalog.touch_entry(
            SPACE, "k", expiry=Expiry(ttl_us=10 * SECOND_US), metadata=None, write_id=new_write_id()
        )
        assert row is not None and row.expires_at is not None and row.version > version
        assert row == await self.row(catalog, "k")
        assert (row.inlined_value, row.metadata.replace(" ", "")) == ("1", '{"a":1}')
        again = await catalog.touch_entry(
            SPACE, "k", expiry=None, metadata='{"b":2}', write_id=new_write_id()
        )
        assert again is not None and again.expires_at == row.expires_at
        assert again.metadata.replace(" ", "") == '{"b":2}'
        for_ever = await catalog.touch_entry(
            SPACE, "k", expiry=NEVER, metadata=None, write_id=new_write_id()
        )
        assert for_ever is not None and for_ever.expires_at is None

    async def test_what_is_not_live_cannot_be_touched(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", expiry=Expiry(ttl_us=SECOND_US)))
        await self.advance(catalog, 1)
        for key in ("k", "absent"):
            touched = await catalog.touch_entry(
                SPACE, key, expiry=NEVER, metadata=None, write_id=new_write_id()
            )
            assert touched is None
        assert await catalog.get_entry(SPACE, "k") is None

    async def test_expiring_removes_the_longest_expired_first(self, catalog: Catalog) -> None:
        for seconds in (3, 1, 2, 100):
            expiry = Expiry(ttl_us=seconds * SECOND_US)
            await self.track(catalog, small(f"k{seconds}", expiry=expiry))
        await self.track(catalog, small("for ever"))
        await self.advance(catalog, 3)
        removed = await catalog.expire_entries(SPACE, 2, write_id=new_write_id())
        found = sorted((entry.key, entry.was_live) for entry in removed)
        assert found == [("k1", False), ("k2", False)]
        removed = await catalog.expire_entries(SPACE, 2, write_id=new_write_id())
        assert [entry.key for entry in removed] == ["k3"]
        assert sorted(await self.raw_rows(catalog, SPACE)) == ["for ever", "k100"]

    async def test_a_renewed_entry_is_not_expired(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", "1", expiry=Expiry(ttl_us=SECOND_US)))
        await self.advance(catalog, 2)
        await self.track(catalog, small("k", "1"))
        assert await catalog.expire_entries(SPACE, 10, write_id=new_write_id()) == []
        assert await catalog.get_entry(SPACE, "k") is not None

    # Concurrency and life

    async def test_a_failed_batch_takes_no_other_with_it(self, catalog: Catalog) -> None:
        good = [small(f"good{n}") for n in range(20)]
        broken = [small("broken"), large("broken too", new_blob_id(LARGE))]
        results = await asyncio.gather(
            *(self.track(catalog, write) for write in good[:10]),
            self.track(catalog, *broken),
            *(self.track(catalog, write) for write in good[10:]),
            return_exceptions=True,
        )
        failed = [type(result) for result in results if not isinstance(result, int)]
        assert failed == [FencedError]
        assert set(await self.raw_rows(catalog, SPACE)) == {write.key for write in good}

    async def test_cancelled_writes_are_whole_or_absent(self, catalog: Catalog) -> None:
        for turns in range(8):
            keys = [f"{turns}a", f"{turns}b"]
            task = asyncio.create_task(self.track(catalog, *(small(key) for key in keys)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.track(catalog, small("behind"))  # the cancelled one has ended
            assert len(set(keys) & set(await self.raw_rows(catalog, SPACE))) in (0, 2)
        assert (await self.row(catalog, "behind")).inlined_value == '"v"'

    async def test_stats_count_one_namespace(self, catalog: Catalog) -> None:
        await self.track(catalog, small("a", "1"), small("b", "22"))
        await self.track(catalog, small("gone", expiry=Expiry(ttl_us=SECOND_US)))
        await self.store_large(catalog, "l")
        await self.store_large(catalog, "l", content_hash=OTHER)
        await catalog.reserve_blobs(SPACE, [reservation("p")], lease_us=LEASE_US)
        await catalog.track_entry("other", small("x"), write_id=new_write_id())
        await self.advance(catalog, 2)
        assert await catalog.stats(SPACE) == (3, 1, 2, 3, 1, 5, 1, 1)
        assert await catalog.stats("empty") == (0,) * 8

    async def test_closing_twice_and_using_after_close(self, catalog: Catalog) -> None:
        await catalog.open()
        await catalog.open()
        await catalog.aclose()
        await catalog.aclose()
        with pytest.raises(ClosedError):
            await catalog.get_entries_batch(SPACE, ["k"])
        with pytest.raises(ClosedError):
            await self.track(catalog, small("k"))
