"""Many entries in one call: what is atomic, what is reported, what is sent."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import pathlib
from collections.abc import AsyncIterator, Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from ltm_async import InvalidEntryError, LTMBackend, compute_content_hash
from ltm_async.batching import _row_bytes, cut
from ltm_async.drafting import draft_all, draft_one
from ltm_async.entry import encode, hash_of
from ltm_async.hashing import ON_LOOP_BYTES
from ltm_async.protocols import Catalog
from ltm_async.testing import Faults, Mode

from .backends import PAIRS, Rig, make_rig


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path, batch_size=10)
    yield rig
    await rig.aclose()


def mixed(count: int, seed: str = "") -> list[dict[str, Any]]:
    """Every third entry is large."""
    return [
        {"key": f"k{n:03}", "value": [seed, n, "x" * (3_000 if n % 3 == 0 else 3)]}
        for n in range(count)
    ]


async def test_batches_are_cut_to_size(rig: Rig) -> None:
    done = await rig.ltm.store_batch(mixed(25))
    assert (done.success, done.stored, done.failed, done.errors) == (True, 25, 0, {})
    assert (done.inlined, done.uploaded, done.deduplicated) == (16, 9, 0)
    assert done.byte_size == sum(len(encode("value", entry["value"])) for entry in mixed(25))
    assert list(done.versions) == [f"k{n:03}" for n in range(25)]
    assert len(set(done.versions.values())) == 3
    assert rig.faults.steps.count("catalog.track_entries_batch") == 3
    assert rig.faults.steps.count("catalog.reserve_blobs") == 3
    assert rig.faults.steps.count("blobs.put") == 9
    assert len(rig.faults.steps) == 15


async def test_a_value_as_large_as_the_threshold_counts_as_the_blob_that_it_is(rig: Rig) -> None:
    sizes = (1023, 1024)
    done = await rig.ltm.store_batch({"key": f"k{n}", "value": of_size(n)} for n in sizes)
    assert (done.inlined, done.uploaded) == (1, 1)


async def test_batches_are_read_in_as_few_round_trips(rig: Rig) -> None:
    await rig.ltm.store_batch(mixed(25))
    rig.faults.steps.clear()
    keys = [f"k{n:03}" for n in range(30)]
    got = await rig.ltm.retrieve_batch([*keys, "k000"])
    assert (got.success, got.found, got.missing, got.errors) == (True, 25, keys[25:], {})
    assert {key: hit.value for key, hit in got.results.items()} == {
        entry["key"]: entry["value"] for entry in mixed(25)
    }
    assert rig.faults.steps.count("catalog.get_entries_batch") == 3
    assert rig.faults.steps.count("blobs.get") == 9
    assert len(rig.faults.steps) == 12


async def test_batches_are_deleted_with_their_blobs(rig: Rig) -> None:
    await rig.ltm.store_batch(mixed(25))
    rig.faults.steps.clear()
    done = await rig.ltm.delete_batch([f"k{n:03}" for n in range(27)])
    assert (done.success, done.deleted, done.missing) == (True, 25, ["k025", "k026"])
    assert rig.faults.steps.count("catalog.delete_entries_batch") == 3
    assert await rig.objects() == set()
    assert (await rig.ltm.stats()).entries == 0


async def test_a_second_time_uploads_nothing(rig: Rig) -> None:
    await rig.ltm.store_batch(mixed(25))
    rig.faults.steps.clear()
    again = await rig.ltm.store_batch([*mixed(25), {"key": "new", "value": 1, "ttl": 5}])
    assert (again.stored, again.uploaded, again.deduplicated) == (26, 0, 25)
    assert "blobs.put" not in rig.faults.steps


async def test_metadata_and_ttl_are_each_entrys_own(rig: Rig) -> None:
    await rig.ltm.store_batch(
        [
            {"key": "a", "value": 1, "metadata": {"m": 1}, "ttl": 1},
            {"key": "b", "value": 2, "ttl": 100},
            {"key": "c", "value": 3},
        ]
    )
    rig.clock.advance(1)
    got = await rig.ltm.retrieve_batch("abc"[n] for n in range(3))
    assert (list(got.results), got.missing) == (["b", "c"], ["a"])


async def test_an_empty_batch_does_nothing(rig: Rig) -> None:
    assert (await rig.ltm.store_batch([])).stored == 0
    assert (await rig.ltm.retrieve_batch([])).found == 0
    assert (await rig.ltm.delete_batch([])).deleted == 0
    assert rig.faults.steps == []


async def test_a_failed_upload_leaves_its_batch_undone_and_the_others_done(
    tmp_path: pathlib.Path,
) -> None:
    rig = make_rig("sqlite+local", tmp_path, batch_size=10, max_concurrency=1)
    await rig.ltm.store_batch(mixed(30, "old"))
    rig.faults.steps.clear()
    puts = 0
    at_upload = "blobs.put"

    class SixthUploadFails(Faults):
        async def step(self, name: str, call: Any) -> Any:
            nonlocal puts
            puts += name == at_upload
            if name == at_upload and 6 <= puts <= 9:  # with all its retries
                self.at = len(self.steps)
            return await super().step(name, call)

    rig.faults.__class__ = SixthUploadFails
    done = await rig.ltm.store_batch(mixed(30, "new"))
    assert (done.success, done.stored, done.failed) == (False, 20, 10)
    assert list(done.errors) == [f"k{n:03}" for n in range(10, 20)]
    assert {failure.error_type for failure in done.errors.values()} == {"UnavailableError"}
    assert done.error_type == "UnavailableError"
    got = await rig.ltm.retrieve_batch(entry["key"] for entry in mixed(30))
    seeds = [hit.value[0] for hit in got.results.values()]
    assert seeds == ["new"] * 10 + ["old"] * 10 + ["new"] * 10
    rig.clock.advance(3_600)
    await rig.ltm.collect_garbage()
    assert len(await rig.objects()) == 10
    assert (await rig.ltm.verify()).sound
    await rig.aclose()


async def test_with_the_catalog_down_everything_is_reported_as_failed(
    tmp_path: pathlib.Path,
) -> None:
    down = Faults(at=0, mode=Mode.DOWN)
    rig = make_rig("memory+memory", tmp_path, down, batch_size=10)
    stored = await rig.ltm.store_batch(mixed(25))
    read = await rig.ltm.retrieve_batch(["a", "b"])
    deleted = await rig.ltm.delete_batch(["a", "b"])
    assert (stored.success, stored.stored, stored.failed, stored.degraded) == (False, 0, 25, True)
    assert (read.success, read.found, read.missing, list(read.errors)) == (False, 0, [], ["a", "b"])
    assert (deleted.success, deleted.deleted, list(deleted.errors)) == (False, 0, ["a", "b"])


async def test_as_dicts_the_fields_are_those_documented(rig: Rig) -> None:
    stored = (await rig.ltm.store_batch(mixed(2))).to_dict()
    read = (await rig.ltm.retrieve_batch(["k000", "absent"])).to_dict()
    assert {"success", "stored", "failed", "errors"} <= set(stored)
    assert read["results"]["k000"]["value"] == mixed(1)[0]["value"]
    assert (read["found"], read["missing"], read["success"]) == (1, ["absent"], True)
    one = (await rig.ltm.store("k", 1)).to_dict()
    assert {
        "success", "stored", "key", "content_hash", "inlined", "byte_size", "storage_uri",
        "deduplicated",
    } <= set(one)  # fmt: skip
    hit = (await rig.ltm.retrieve("k")).to_dict()
    assert {"success", "found", "value", "content_hash", "metadata", "inlined"} <= set(hit)
    assert {"success", "deleted", "key"} <= set((await rig.ltm.delete("k")).to_dict())
    assert {"success", "deleted", "errors"} <= set((await rig.ltm.cleanup_expired()).to_dict())


async def test_values_over_the_memory_limit_are_encoded_again(tmp_path: pathlib.Path) -> None:
    rig = make_rig("sqlite+local", tmp_path, max_inflight_bytes=64 * 1024)
    entries = [{"key": f"k{n}", "value": f"{n}" * 5_000} for n in range(40)]
    entries += [{"key": f"s{n}", "value": f"{n}"} for n in range(40)]
    assert (await rig.ltm.store_batch(entries)).stored == 80
    got = await rig.ltm.retrieve_batch(entry["key"] for entry in entries)
    assert all(got.results[entry["key"]].value == entry["value"] for entry in entries)
    await rig.aclose()


def of_size(byte_size: int) -> Any:
    """A value of that many bytes as JSON."""
    return 7 if byte_size == 1 else "x" * (byte_size - 2)


@pytest.mark.parametrize(
    ("sizes", "keep_bytes", "kept"),
    [
        ([3, 4], 7, [True, True]),
        ([3, 5, 1], 7, [True, False, False]),
        ([3, 4, 1], 7, [True, True, False]),
        ([1], 0, [False]),
    ],
)
async def test_the_first_encodings_are_kept_up_to_the_limit(
    sizes: list[int], keep_bytes: int, kept: list[bool]
) -> None:
    entries = [{"key": f"k{n}", "value": of_size(size)} for n, size in enumerate(sizes)]
    drafts = await draft_all(entries, keep_bytes=keep_bytes)
    assert [draft.byte_size for draft in drafts] == sizes
    assert [draft.text is not None for draft in drafts] == kept


@pytest.mark.parametrize(
    ("sizes", "pauses"),
    [
        ([1] * 250, [100, 200]),
        ([256 * 1024, 256 * 1024 - 1, 1, 1], [1, 3]),
        ([256 * 1024 - 1, 1], [2]),
        ([200 * 1024] * 5, [2, 4]),
    ],
)
async def test_others_get_a_turn_while_many_bytes_or_entries_are_encoded(
    sizes: list[int], pauses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = 0
    paused: list[int] = []

    def entries() -> Iterator[dict[str, Any]]:
        nonlocal given
        for given, size in enumerate(sizes, 1):
            yield {"key": f"k{given}", "value": of_size(size)}

    async def sleep(seconds: float) -> None:
        assert seconds == 0
        paused.append(given)

    monkeypatch.setattr("ltm_async.drafting.asyncio.sleep", sleep)
    await draft_all(entries(), keep_bytes=0)
    assert paused == pauses


@pytest.mark.parametrize(("more", "at_once"), [(0, True), (1, False)])
async def test_the_hash_of_a_large_value_is_taken_in_a_thread_and_before_it_is_written(
    more: int, at_once: bool
) -> None:
    value = of_size(ON_LOOP_BYTES + more)
    assert bool(draft_one("k", value, None, None, None, None).content_hash) is at_once
    (draft,) = await draft_all([{"key": "k", "value": value}], keep_bytes=0)
    assert draft.content_hash == compute_content_hash(value)


@pytest.mark.parametrize("made", [dict, MappingProxyType], ids=lambda made: made.__name__)
async def test_an_entry_is_any_mapping_and_may_have_every_field(made: Any) -> None:
    entry = {"key": "k", "value": 1, "metadata": {"m": 1}, "ttl": 5, "expires_at": None}
    (draft,) = await draft_all([made(entry)], keep_bytes=0)
    assert (draft.key, draft.metadata, draft.expiry.ttl_us) == ("k", '{"m":1}', 5_000_000)


def test_a_value_that_can_be_stored_no_more_is_named() -> None:
    value: list[object] = ["y"]
    draft = draft_one("k", value, None, None, None, None)
    draft.text = None
    value.append(math.nan)
    with pytest.raises(InvalidEntryError, match=r"^value has NaN or infinity"):
        draft.encoded()


async def test_a_value_changed_meanwhile_is_noticed(tmp_path: pathlib.Path) -> None:
    """Its hash was taken before; what is stored must be what the hash says."""
    rig = make_rig("memory+memory", tmp_path, max_inflight_bytes=64 * 1024)
    changing = ["y" * 5_000]
    entries: list[dict[str, Any]] = [{"key": f"k{n}", "value": f"{n}" * 5_000} for n in range(20)]

    class ChangesIt(Faults):
        async def step(self, name: str, call: Any) -> Any:
            changing.append("changed")
            return await super().step(name, call)

    rig.faults.__class__ = ChangesIt
    with pytest.raises(ValueError, match="changed while it was being stored"):
        await rig.ltm.store_batch([*entries, {"key": "k", "value": changing}])
    assert (await rig.ltm.stats()).entries == 0


async def test_no_more_than_the_limit_is_on_its_way(tmp_path: pathlib.Path) -> None:
    limits: list[tuple[dict[str, Any], int]] = [
        ({"max_concurrency": 3}, 3),
        ({"max_inflight_bytes": 64 * 1024}, 6),
    ]
    for options, most in limits:
        rig = make_rig("memory+memory", tmp_path, **options)
        under_way = peak = 0

        class Slowly(Faults):
            async def step(self, name: str, call: Any) -> Any:
                nonlocal under_way, peak
                under_way += 1
                peak = max(peak, under_way)
                await asyncio.sleep(0.001)
                under_way -= 1
                return await super().step(name, call)

        rig.faults.__class__ = Slowly
        entries = [{"key": f"k{n}", "value": f"{n:4}" + "x" * 4_990} for n in range(40)]
        await rig.ltm.store_batch(entries)
        got = await rig.ltm.retrieve_batch(entry["key"] for entry in entries)
        assert (got.found, peak) == (40, most)


async def test_a_committed_batch_carries_its_hashes(rig: Rig) -> None:
    await rig.ltm.store_batch([{"key": "k", "value": {"b": 1, "a": 2}}])
    hit = await rig.ltm.retrieve("k")
    assert hit.content_hash == hash_of(b'{"a":2,"b":1}')


@pytest.mark.parametrize(
    ("sizes", "count", "size", "expected"),
    [
        ([], 3, 10, []),
        ([1, 1, 1, 1], 3, None, [[1, 1, 1], [1]]),
        ([1, 1, 1, 1], 3, 10, [[1, 1, 1], [1]]),
        ([4, 6, 1], 3, 10, [[4, 6], [1]]),
        ([5, 6, 4], 3, 10, [[5], [6, 4]]),
        ([11, 1, 12], 3, 10, [[11], [1], [12]]),
    ],
)
def test_batches_are_cut_by_count_and_by_size(
    sizes: list[int], count: int, size: int | None, expected: list[list[int]]
) -> None:
    found = cut(sizes, count=count, size=size, size_of=lambda item: item)
    assert [list(batch) for batch in found] == expected


async def test_a_catalog_that_names_no_limit_on_bytes_has_none(tmp_path: pathlib.Path) -> None:
    """Who does not derive from the protocol need not have the attribute."""
    rig = make_rig("memory+memory", tmp_path)
    named = dict.fromkeys(name for name in dir(Catalog) if not name.startswith("_"))
    del named["batch_bytes"]
    ours = SimpleNamespace(**{name: getattr(rig.catalog, name) for name in named})
    ltm = LTMBackend(ours, rig.blobs)
    assert (await ltm.store_batch(mixed(25))).stored == 25


async def test_a_catalog_with_a_limit_on_bytes_gets_smaller_batches(
    tmp_path: pathlib.Path,
) -> None:
    rig = make_rig("memory+memory", tmp_path)
    rig.catalog.batch_bytes = 100_000
    entries = [{"key": f"k{number}", "value": "x" * 900} for number in range(100)]
    result = await rig.ltm.store_batch(entries)
    assert result.stored == 100
    assert (
        len(set(result.versions.values()))
        == rig.faults.steps.count("catalog.track_entries_batch")
        == 3
    )
    await rig.aclose()


@pytest.mark.parametrize(
    ("byte_size", "options", "expected"),
    [
        (1_023, {"index_text": False}, 1_023),
        (1_024, {"index_text": False}, 0),
        (100, {"index_text": True}, 100 + 16 * 100),
        (30_000, {"index_text": True}, 400_000),
        (1_024, {"index_text": False, "embedder": SimpleNamespace(vector_bytes=32)}, 6 * 32),
    ],
)
async def test_a_row_is_reckoned_with_all_that_is_in_it(
    byte_size: int, options: dict[str, Any], expected: int, tmp_path: pathlib.Path
) -> None:
    rig = make_rig("memory+memory", tmp_path)
    stores = dataclasses.replace(rig.ltm._runner.stores(), **options)
    draft = draft_one("key", of_size(byte_size), {"m": 1}, None, None, None)
    assert _row_bytes(draft, stores) == expected + len('{"m":1}') + 4 * len("key") + 2_000
