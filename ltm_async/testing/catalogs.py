"""What every catalog must do."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence

import pytest

from ..entry import NEVER, Expiry, hash_of, new_blob_id
from ..errors import ClosedError, ConflictError, FencedError
from ..filters import parse_filter
from ..protocols import Catalog, Outcome, Reservation, Row, Write

SPACE = "contract"
SECOND_US = 1_000_000
LEASE_US = 60 * SECOND_US
LARGE = hash_of(b"large")
OTHER = hash_of(b"other")

_numbers = itertools.count()


def new_write_id() -> str:
    return f"{next(_numbers):032x}"


def small(
    key: str,
    text: str = '"v"',
    *,
    metadata: str = "{}",
    expiry: Expiry = NEVER,
    if_version: int | None = None,
) -> Write:
    content_hash = hash_of(text.encode())
    return Write(key, content_hash, len(text), text, None, metadata, expiry, if_version)


def large(
    key: str, blob_id: str | None, *, content_hash: str = LARGE, expiry: Expiry = NEVER
) -> Write:
    """A value kept as a blob; without *blob_id* it renews the one the row has."""
    return Write(key, content_hash, 5, None, blob_id, "{}", expiry)


def reservation(key: str, content_hash: str = LARGE) -> Reservation:
    return Reservation(new_blob_id(content_hash), key, content_hash, 5)


class CatalogContract:
    """Subclass it, give it ``catalog``, ``advance``, ``raw_rows`` and ``raw_ledger``.

    ``raw_rows`` and ``raw_ledger`` look at the store without the adapter, so that a mistake
    made when writing and again when reading is seen. Tests cannot be hidden.
    """

    def __init_subclass__(cls) -> None:
        tests = {name for name in vars(cls) if name.startswith("test_")}
        if hidden := tests & set(vars(CatalogContract)):
            raise TypeError(f"{cls.__name__} hides contract tests: {sorted(hidden)}")
        super().__init_subclass__()

    @pytest.fixture
    def catalog(self) -> Catalog:
        raise NotImplementedError

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        """Let the catalog's clock go on, or its rows grow older by as much."""
        raise NotImplementedError

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        """``{key: inlined_value}`` of all rows, expired ones included."""
        raise NotImplementedError

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        """``{blob_id: state}``."""
        raise NotImplementedError

    async def _track(self, catalog: Catalog, *writes: Write) -> int:
        written = await catalog.track_entries_batch(SPACE, writes, write_id=new_write_id())
        assert written.version is not None
        return written.version

    async def _store_large(
        self,
        catalog: Catalog,
        key: str,
        *,
        content_hash: str = LARGE,
        expiry: Expiry = NEVER,
    ) -> str:
        blob = reservation(key, content_hash)
        assert await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US) == {}
        write = large(key, blob.blob_id, content_hash=content_hash, expiry=expiry)
        await self._track(catalog, write)
        return blob.blob_id

    async def _row(self, catalog: Catalog, key: str) -> Row:
        row = await catalog.get_entry(SPACE, key)
        assert row is not None
        return row

    # Rows

    async def test_written_rows_reach_the_store(self, catalog: Catalog) -> None:
        await self._track(catalog, small("a", '"1"'), small("b", "null"))
        assert await self.raw_rows(catalog, SPACE) == {"a": '"1"', "b": "null"}

    async def test_a_row_comes_back_as_it_was_written(self, catalog: Catalog) -> None:
        write = small("k", '{"t":"\\ud800 \\u0000 \\u00fc"}', metadata='{"a":{"b":[1,null]}}')
        written = await catalog.track_entry(SPACE, write, write_id=new_write_id())
        row = await self._row(catalog, "k")
        assert row.inlined_value == write.inlined_value
        assert row.metadata.replace(" ", "") == write.metadata
        assert row[1:4] == (written.version, write.content_hash, write.byte_size)
        assert (row.blob_id, row.expires_at) == (None, None)
        assert row.created_at == row.updated_at

    async def test_replacing_keeps_when_it_was_created(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", "1"))
        before = await self._row(catalog, "k")
        await self.advance(catalog, 5)
        aged = await self._row(catalog, "k")
        await self._track(catalog, small("k", "2"))
        after = await self._row(catalog, "k")
        assert (after.inlined_value, after.created_at) == ("2", aged.created_at)
        assert after.updated_at - after.created_at >= 5 * SECOND_US
        assert after.version > before.version

    async def test_only_what_was_asked_for_comes_back(self, catalog: Catalog) -> None:
        await self._track(catalog, *(small(f"k{n}") for n in range(5)))
        rows = await catalog.get_entries_batch(SPACE, ["k1", "absent", "k3"])
        assert sorted(row.key for row in rows) == ["k1", "k3"]
        assert await catalog.get_entries_batch(SPACE, []) == []
        assert await catalog.get_entry(SPACE, "absent") is None

    async def test_namespaces_do_not_meet(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", "1"))
        await catalog.track_entry("other", small("k", "2"), write_id=new_write_id())
        assert (await self._row(catalog, "k")).inlined_value == "1"
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
                await self._track(catalog, write)
        # Content that is there is there in the other only, and what replaces it does so in one.
        assert await self._store_large(catalog, "large") not in ids
        await self._track(catalog, small("large", "2"), small("small", "2"))
        assert await self.raw_rows(catalog, "other") == rows
        assert await self.raw_ledger(catalog, "other") == ledger

    @pytest.mark.parametrize(
        "key",
        ["a'b", 'a"b', "a\\b", "a%b", "a_b", ",().:*", "eq.1", "\n", "\U0001f600", "k" * 1024],
    )
    async def test_any_text_is_a_key(self, catalog: Catalog, key: str) -> None:
        await self._track(catalog, small(key, "1"), small("other", "2"))
        assert (await self._row(catalog, key)).inlined_value == "1"
        removed = await catalog.delete_entry(SPACE, key, write_id=new_write_id())
        assert removed is not None and removed.was_live
        assert await self.raw_rows(catalog, SPACE) == {"other": "2"}

    async def test_a_batch_says_what_was_there_already(self, catalog: Catalog) -> None:
        await self._track(catalog, small("same", "1"), small("changed", "1"))
        writes = [small("same", "1"), small("changed", "2"), small("new", "1")]
        written = await catalog.track_entries_batch(SPACE, writes, write_id=new_write_id())
        assert list(written.unchanged) == ["same"]

    async def test_a_large_batch(self, catalog: Catalog) -> None:
        writes = [small(f"key-{n:05}", f'"{n}"') for n in range(2_000)]
        await self._track(catalog, *writes)
        rows = await catalog.get_entries_batch(SPACE, [write.key for write in writes])
        assert {row.key: row.inlined_value for row in rows} == {
            write.key: write.inlined_value for write in writes
        }

    # Compare-and-swap

    async def test_a_write_that_expects_nothing_finds_nothing(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", "1", if_version=0))
        with pytest.raises(ConflictError) as caught:
            await self._track(catalog, small("k", "2", if_version=0))
        assert caught.value.key == "k"
        assert caught.value.version == (await self._row(catalog, "k")).version
        assert await self.raw_rows(catalog, SPACE) == {"k": "1"}

    async def test_a_write_replaces_only_the_version_it_expects(self, catalog: Catalog) -> None:
        first = await self._track(catalog, small("k", "1"))
        second = await self._track(catalog, small("k", "2", if_version=first))
        with pytest.raises(ConflictError):
            await self._track(catalog, small("k", "3", if_version=first))
        assert (await self._row(catalog, "k")).version == second

    async def test_a_conflict_refuses_the_whole_batch(self, catalog: Catalog) -> None:
        await self._track(catalog, small("b", "1"))
        with pytest.raises(ConflictError):
            await self._track(catalog, small("a", "2"), small("b", "2", if_version=0))
        assert await self.raw_rows(catalog, SPACE) == {"b": "1"}

    async def test_a_version_is_never_used_again(self, catalog: Catalog) -> None:
        first = await self._track(catalog, small("k", "1"))
        await catalog.delete_entry(SPACE, "k", write_id=new_write_id())
        with pytest.raises(ConflictError) as caught:
            await self._track(catalog, small("k", "2", if_version=first))
        assert caught.value.version is None
        again = await self._track(catalog, small("k", "1"))
        assert again > first
        with pytest.raises(ConflictError):
            await self._track(catalog, small("k", "2", if_version=first))

    async def test_of_many_that_expect_the_same_version_one_wins(self, catalog: Catalog) -> None:
        version = await self._track(catalog, small("k", "0"))
        outcomes = await asyncio.gather(
            *(self._track(catalog, small("k", str(n), if_version=version)) for n in range(10)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 9

    # Time

    async def test_an_entry_is_gone_from_its_end_on(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", expiry=Expiry(ttl_us=10 * SECOND_US)))
        await self.advance(catalog, 5)
        assert await catalog.get_entry(SPACE, "k") is not None
        await self.advance(catalog, 5)
        assert await catalog.get_entry(SPACE, "k") is None
        assert await catalog.list_entries(SPACE, limit=10) == []
        assert list(await self.raw_rows(catalog, SPACE)) == ["k"]

    async def test_an_instant_ends_an_entry_too(self, catalog: Catalog) -> None:
        await self._track(catalog, small("now"))
        now = (await self._row(catalog, "now")).created_at
        ends = Expiry(at_us=now + 10 * SECOND_US)
        write = small("k", expiry=ends)
        written = await catalog.track_entry(SPACE, write, write_id=new_write_id())
        assert written.expires_at == {"k": now + 10 * SECOND_US}
        assert (await self._row(catalog, "k")).expires_at == now + 10 * SECOND_US

    async def test_an_expired_entry_counts_as_none(self, catalog: Catalog) -> None:
        version = await self._track(catalog, small("k", "1", expiry=Expiry(ttl_us=SECOND_US)))
        await self.advance(catalog, 2)
        with pytest.raises(ConflictError):
            await self._track(catalog, small("k", "2", if_version=version))
        write = small("k", "1", if_version=0)
        written = await catalog.track_entry(SPACE, write, write_id=new_write_id())
        assert list(written.unchanged) == []
        row = await self._row(catalog, "k")
        assert (row.expires_at, row.created_at) == (None, row.updated_at)

    async def test_touching_changes_the_end_or_the_metadata(self, catalog: Catalog) -> None:
        version = await self._track(catalog, small("k", "1", metadata='{"a":1}'))
        row = await catalog.touch_entry(
            SPACE, "k", expiry=Expiry(ttl_us=10 * SECOND_US), metadata=None, write_id=new_write_id()
        )
        assert row is not None and row.expires_at is not None and row.version > version
        assert row == await self._row(catalog, "k")
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
        await self._track(catalog, small("k", expiry=Expiry(ttl_us=SECOND_US)))
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
            await self._track(catalog, small(f"k{seconds}", expiry=expiry))
        await self._track(catalog, small("for ever"))
        await self.advance(catalog, 3)
        removed = await catalog.expire_entries(SPACE, 2, write_id=new_write_id())
        found = sorted((entry.key, entry.was_live) for entry in removed)
        assert found == [("k1", False), ("k2", False)]
        removed = await catalog.expire_entries(SPACE, 2, write_id=new_write_id())
        assert [entry.key for entry in removed] == ["k3"]
        assert sorted(await self.raw_rows(catalog, SPACE)) == ["for ever", "k100"]

    async def test_a_renewed_entry_is_not_expired(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", "1", expiry=Expiry(ttl_us=SECOND_US)))
        await self.advance(catalog, 2)
        await self._track(catalog, small("k", "1"))
        assert await catalog.expire_entries(SPACE, 10, write_id=new_write_id()) == []
        assert await catalog.get_entry(SPACE, "k") is not None

    # Listing

    @pytest.mark.parametrize("prefix", ["", "a", "a%", "a_", "a\\", "ü", "A", "\U0010ffff", "z"])
    async def test_a_prefix_is_text_not_a_pattern(self, catalog: Catalog, prefix: str) -> None:
        keys = ["A", "a", "a%", "a%b", "a\\x", "a_", "aXb", "a\U0010ffffb", "ü", "üb"]
        keys += ["\U0010ffff", "\U0010ffffx"]
        await self._track(catalog, *(small(key) for key in keys))
        found = [row.key for row in await catalog.list_entries(SPACE, prefix=prefix, limit=100)]
        assert found == sorted(key for key in keys if key.startswith(prefix))

    async def test_pages_follow_each_other(self, catalog: Catalog) -> None:
        keys = sorted(f"p{n}" for n in range(25))
        await self._track(catalog, small("o"), small("q"), *(small(key) for key in keys))
        found: list[str] = []
        while page := await catalog.list_entries(
            SPACE, prefix="p", after=found[-1] if found else "", limit=7
        ):
            found += [row.key for row in page]
        assert found == keys

    async def test_a_listing_carries_no_values(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", '"v"', metadata='{"a":1}'))
        (row,) = await catalog.list_entries(SPACE, limit=1)
        assert (row.inlined_value, row.byte_size) == (None, 3)
        assert row.metadata.replace(" ", "") == '{"a":1}'

    @pytest.mark.parametrize("limit", [1, 4, 100])
    @pytest.mark.parametrize(
        "given",
        [
            {"n": {"$gte": 20}},
            {"$or": [{"kind": "task"}, {"n": 0}]},
            {"n": 2**60},  # which a store may not be able to compare
            {"$path": ["kind", "'; --"], "$exists": True},
        ],
    )
    async def test_a_filter_leaves_out_nothing_that_it_wants(
        self, catalog: Catalog, given: dict[str, object], limit: int
    ) -> None:
        metadata = {
            f"k{n:02}": {"n": n, "kind": "task" if n % 7 == 0 else "note"} for n in range(24)
        }
        metadata["k24"] = {"n": 2**60}
        writes = [small(key, metadata=json.dumps(kept)) for key, kept in metadata.items()]
        await self._track(catalog, small("j"), small("l", metadata='{"n":21}'), *writes)
        wanted, after = parse_filter(given), ""
        found: dict[str, Row] = {}
        while True:
            page = await catalog.filter_entries(
                SPACE, wanted, prefix="k", after=after, limit=limit, most=10
            )
            assert len(page.rows) <= min(limit, page.examined)
            assert page.examined <= 10
            for row in page.rows:
                assert row.key > max(found, default="")
                found[row.key] = row
            if page.after is None:
                break
            assert page.after > after
            after = page.after
        listed = {row.key: row for row in await catalog.list_entries(SPACE, prefix="k", limit=100)}
        assert found == {key: listed[key] for key in found}
        assert {key for key, kept in metadata.items() if wanted.matches(kept)} <= set(found)

    async def test_a_filter_finds_no_expired_row(self, catalog: Catalog) -> None:
        soon = Expiry(ttl_us=SECOND_US)
        await self._track(catalog, *(small(f"a{n}", expiry=soon) for n in range(5)), small("b"))
        await self.advance(catalog, 2)
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await catalog.filter_entries(
                SPACE, parse_filter({}), after=after, limit=3, most=3
            )
            assert page.examined <= 3
            found += [row.key for row in page.rows]
            after = page.after
        assert found == ["b"]

    # Blobs

    async def test_a_blob_goes_from_pending_to_live(self, catalog: Catalog) -> None:
        blob = reservation("k")
        assert await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US) == {}
        assert await catalog.get_entry(SPACE, "k") is None
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "pending"}
        await self._track(catalog, large("k", blob.blob_id))
        assert (await self._row(catalog, "k")).blob_id == blob.blob_id
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "live"}

    async def test_a_reservation_delivered_twice_is_entered_once(self, catalog: Catalog) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await self._track(catalog, large("k", blob.blob_id))
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "live"}

    async def test_content_that_is_there_is_not_reserved_again(self, catalog: Catalog) -> None:
        held = await self._store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        again, other = reservation("k"), reservation("other")
        for seconds in (0, 2):  # live, and expired but still there
            await self.advance(catalog, seconds)
            found = await catalog.reserve_blobs(SPACE, [again, other], lease_us=LEASE_US)
            assert found == {"k": held}
        assert set(await self.raw_ledger(catalog, SPACE)) == {held, other.blob_id}

    async def test_renewing_keeps_the_blob(self, catalog: Catalog) -> None:
        held = await self._store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        await self.advance(catalog, 2)
        await self._track(catalog, large("k", None))
        row = await self._row(catalog, "k")
        assert (row.blob_id, row.expires_at) == (held, None)
        assert await self.raw_ledger(catalog, SPACE) == {held: "live"}

    async def test_what_has_changed_cannot_be_renewed(self, catalog: Catalog) -> None:
        await self._store_large(catalog, "changed")
        await self._track(catalog, small("changed", "1"))
        for key in ("changed", "absent"):
            with pytest.raises(FencedError):
                await self._track(catalog, small("beside", "1"), large(key, None))
        assert await self.raw_rows(catalog, SPACE) == {"changed": "1"}

    async def test_a_blob_of_other_content_cannot_be_renewed(self, catalog: Catalog) -> None:
        blob_id = await self._store_large(catalog, "k", content_hash="sha256:" + "0" * 64)
        with pytest.raises(FencedError):
            await self._track(catalog, large("k", None))
        assert (await self._row(catalog, "k")).blob_id == blob_id

    async def test_a_replaced_blob_dies_with_the_commit(self, catalog: Catalog) -> None:
        first = await self._store_large(catalog, "k")
        beside = await self._store_large(catalog, "beside")
        await self._track(catalog, small("k", "1"))
        assert await self.raw_ledger(catalog, SPACE) == {first: "dead", beside: "live"}

    async def test_two_first_writers_leave_one_live_blob(self, catalog: Catalog) -> None:
        one, two = reservation("k"), reservation("k")
        await catalog.reserve_blobs(SPACE, [one], lease_us=LEASE_US)
        await catalog.reserve_blobs(SPACE, [two], lease_us=LEASE_US)
        await asyncio.gather(
            self._track(catalog, large("k", one.blob_id)),
            self._track(catalog, large("k", two.blob_id)),
        )
        row = await self._row(catalog, "k")
        ledger = await self.raw_ledger(catalog, SPACE)
        assert sorted(ledger.values()) == ["dead", "live"]
        assert row.blob_id is not None and ledger[row.blob_id] == "live"

    async def test_a_commit_without_its_reservation_is_refused_whole(
        self, catalog: Catalog
    ) -> None:
        kept, lost = reservation("a"), reservation("b")
        await catalog.reserve_blobs(SPACE, [kept], lease_us=LEASE_US)
        with pytest.raises(FencedError):
            await self._track(catalog, large("a", kept.blob_id), large("b", lost.blob_id))
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
            await self._track(catalog, large("k", blob.blob_id))
        assert await self.raw_rows(catalog, SPACE) == {}

    async def test_a_lease_is_by_the_catalogs_clock(self, catalog: Catalog) -> None:
        """Which may be ahead of the writer's."""
        await self.advance(catalog, 3_600)
        await catalog.reserve_blobs(SPACE, [reservation("k")], lease_us=LEASE_US)
        assert await catalog.take_due_blobs(SPACE, 10, backoff_us=SECOND_US) == []

    async def test_an_abandoned_blob_is_due_after_its_grace(self, catalog: Catalog) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        held = await self._store_large(catalog, "live")
        await catalog.abandon_blobs(SPACE, [blob.blob_id, held], grace_us=5 * SECOND_US)
        assert await self.raw_ledger(catalog, SPACE) == {blob.blob_id: "dead", held: "live"}
        assert await catalog.due_blobs(SPACE, 10) == []
        await self.advance(catalog, 5)
        assert [due.blob_id for due in await catalog.due_blobs(SPACE, 10)] == [blob.blob_id]

    async def test_what_a_collector_took_others_leave_for_a_while(self, catalog: Catalog) -> None:
        blob_id = await self._store_large(catalog, "k")
        await self._track(catalog, small("k", "1"))
        assert len(await catalog.take_due_blobs(SPACE, 10, backoff_us=5 * SECOND_US)) == 1
        assert await catalog.take_due_blobs(SPACE, 10, backoff_us=5 * SECOND_US) == []
        await self.advance(catalog, 5)
        assert [due.blob_id for due in await catalog.due_blobs(SPACE, 10)] == [blob_id]

    async def test_due_blobs_come_in_pages(self, catalog: Catalog) -> None:
        for number in range(5):
            await self._store_large(catalog, f"k{number}")
        await self._track(catalog, *(small(f"k{number}", "1") for number in range(5)))
        counts = [
            len(await catalog.take_due_blobs(SPACE, 2, backoff_us=LEASE_US)) for _ in range(4)
        ]
        assert counts == [2, 2, 1, 0]

    async def test_only_dead_blobs_are_forgotten(self, catalog: Catalog) -> None:
        dead = await self._store_large(catalog, "k")
        live = await self._store_large(catalog, "k", content_hash=OTHER)
        blob = reservation("p")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        ids = [dead, live, blob.blob_id, new_blob_id(LARGE)]
        assert set(await catalog.known_blobs(SPACE, ids)) == {dead, live, blob.blob_id}
        assert set(await catalog.known_blobs("other", ids)) == set()
        await catalog.forget_blobs(SPACE, ids)
        assert await self.raw_ledger(catalog, SPACE) == {live: "live", blob.blob_id: "pending"}

    async def test_the_ledger_says_what_is_named(self, catalog: Catalog) -> None:
        held = await self._store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
        replaced = await self._store_large(catalog, "r")
        await self._track(catalog, small("r", "1"))
        await self.advance(catalog, 2)
        blobs = await catalog.list_blobs(SPACE, limit=10)
        assert [blob.blob_id for blob in blobs] == sorted([held, replaced])
        found = {blob.blob_id: (blob.key, blob.state, bool(blob.named)) for blob in blobs}
        assert found == {held: ("k", "live", True), replaced: ("r", "dead", False)}
        (second,) = await catalog.list_blobs(SPACE, after=min(found), limit=10)
        assert second.blob_id == max(found)

    async def test_deleting_kills_the_blob(self, catalog: Catalog) -> None:
        held = await self._store_large(catalog, "large")
        await self._track(catalog, small("small"))
        keys = ["large", "small", "absent"]
        removed = await catalog.delete_entries_batch(SPACE, keys, write_id=new_write_id())
        assert sorted(removed) == [("large", True, held), ("small", True, None)]
        assert await self.raw_rows(catalog, SPACE) == {}
        assert await self.raw_ledger(catalog, SPACE) == {held: "dead"}
        assert await catalog.delete_entry(SPACE, "large", write_id=new_write_id()) is None

    async def test_deleting_one_version_only(self, catalog: Catalog) -> None:
        version = await self._track(catalog, small("k", "1"))
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
        held = await self._store_large(catalog, "k", expiry=Expiry(ttl_us=SECOND_US))
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
        await self._track(catalog, small("l", "1"))
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
        await self._track(catalog, small("s", "2"))
        assert await self._resolve(catalog, write_id, ["s"], []) == (Outcome.UNKNOWN, None)

    async def test_forgotten_blobs_settle_nothing(self, catalog: Catalog) -> None:
        found = await self._resolve(catalog, new_write_id(), ["l"], [new_blob_id(LARGE)])
        assert found == (Outcome.UNKNOWN, None)

    async def test_a_touch_is_found(self, catalog: Catalog) -> None:
        await self._track(catalog, small("k", "1"))
        write_id = new_write_id()
        row = await catalog.touch_entry(SPACE, "k", expiry=NEVER, metadata=None, write_id=write_id)
        assert row is not None
        found = await self._resolve(catalog, write_id, ["k"], [])
        assert found == (Outcome.STORED, row.version)

    async def test_a_removal_is_found(self, catalog: Catalog) -> None:
        await self._track(catalog, small("a"), small("b"))
        mine, others = new_write_id(), new_write_id()
        await catalog.delete_entry(SPACE, "a", write_id=mine)
        await catalog.delete_entry(SPACE, "b", write_id=others)
        assert list(await catalog.resolve_removal(SPACE, mine, ["a", "b"])) == ["a"]
        assert list(await catalog.resolve_removal(SPACE, new_write_id(), ["a", "b"])) == []

    # Concurrency and life

    async def test_a_failed_batch_takes_no_other_with_it(self, catalog: Catalog) -> None:
        good = [small(f"good{n}") for n in range(20)]
        broken = [small("broken"), large("broken too", new_blob_id(LARGE))]
        results = await asyncio.gather(
            *(self._track(catalog, write) for write in good[:10]),
            self._track(catalog, *broken),
            *(self._track(catalog, write) for write in good[10:]),
            return_exceptions=True,
        )
        failed = [type(result) for result in results if not isinstance(result, int)]
        assert failed == [FencedError]
        assert set(await self.raw_rows(catalog, SPACE)) == {write.key for write in good}

    async def test_cancelled_writes_are_whole_or_absent(self, catalog: Catalog) -> None:
        for turns in range(8):
            keys = [f"{turns}a", f"{turns}b"]
            task = asyncio.create_task(self._track(catalog, *(small(key) for key in keys)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._track(catalog, small("behind"))  # the cancelled one has ended
            assert len(set(keys) & set(await self.raw_rows(catalog, SPACE))) in (0, 2)
        assert (await self._row(catalog, "behind")).inlined_value == '"v"'

    async def test_stats_count_one_namespace(self, catalog: Catalog) -> None:
        await self._track(catalog, small("a", "1"), small("b", "22"))
        await self._track(catalog, small("gone", expiry=Expiry(ttl_us=SECOND_US)))
        await self._store_large(catalog, "l")
        await self._store_large(catalog, "l", content_hash=OTHER)
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
            await self._track(catalog, small("k"))
