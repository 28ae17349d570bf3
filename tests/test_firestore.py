"""FirestoreCatalog on Google's emulator: its contract, its requests and its errors."""

from __future__ import annotations

import asyncio
import inspect
import json
import pathlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from google.cloud.firestore_v1 import AsyncClient

from ltm_async import ConfigError, FirestoreCatalog, LTMBackend, create_catalog_backend
from ltm_async.catalogs.firestore import catalog as catalog_module
from ltm_async.catalogs.firestore import feed, ledger, texts
from ltm_async.catalogs.firestore.indexes import LOOKED_UP, indexes
from ltm_async.catalogs.firestore.layout import changed_field, entry_name
from ltm_async.protocols import Catalog
from ltm_async.testing import (
    CatalogContract,
    ChangesContract,
    ManualClock,
    SearchContract,
    VectorContract,
)

from .servers.firestore import Firestore, new_project


class TestFirestoreCatalog(CatalogContract, ChangesContract, SearchContract, VectorContract):
    @pytest.fixture
    async def catalog(self, firestore_server: Firestore, transport: str) -> AsyncIterator[Catalog]:
        self.server, self.project, self.clock = firestore_server, new_project(), ManualClock()
        catalog = FirestoreCatalog(self.project, transport=transport, clock=lambda _: self.clock())
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return {
            entry["key"]: entry["inlined_value"]
            for entry in self._documents("ltm_entries")
            if entry["namespace"] == namespace
        }

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return {
            blob["blob_id"]: blob["state"]
            for blob in self._documents("ltm_blobs")
            if blob["namespace"] == namespace
        }

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        return {
            entry["key"]
            for entry in self._documents("ltm_entries")
            if entry["namespace"] == namespace and entry.get("vector") is not None
        }

    def _documents(self, collection: str) -> list[dict[str, Any]]:
        return self.server.documents(self.project, collection)


@pytest.fixture
async def ltm(firestore_server: Firestore, transport: str) -> AsyncIterator[LTMBackend]:
    """A backend on a world of its own."""
    catalog = FirestoreCatalog(new_project(), transport=transport)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    yield ltm
    await catalog_of(ltm).aclose()


def catalog_of(ltm: LTMBackend) -> FirestoreCatalog:
    catalog = ltm._runner.stores().catalog
    assert isinstance(catalog, FirestoreCatalog)
    return catalog


async def project_of(catalog: FirestoreCatalog) -> str:
    return (await catalog._share.get()).database.split("/")[1]


# What is asked of Firestore, and billed

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

SMALL = [{"key": f"s{number:03}", "value": number} for number in range(100)]
LARGE = [{"key": f"l{number:03}", "value": "x" * 2_000} for number in range(100)]


def keys(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["key"] for entry in entries]


BILLS: dict[str, tuple[Callable[[LTMBackend], Awaitable[Any]], tuple[int, int, int, int]]] = {
    # requests, reads, writes, deletes
    "store one small": (lambda ltm: ltm.store("k", 1), (2, 1, 1, 0)),
    "store one large": (lambda ltm: ltm.store("l", "x" * 2_000), (4, 3, 3, 0)),
    "store it again": (lambda ltm: ltm.store("l", "x" * 2_000), (3, 2, 1, 0)),
    "retrieve one": (lambda ltm: ltm.retrieve("k"), (1, 1, 0, 0)),
    "touch": (lambda ltm: ltm.touch("k", ttl=60), (2, 1, 1, 0)),
    "delete one small": (lambda ltm: ltm.delete("k"), (2, 1, 1, 1)),
    "delete one large": (lambda ltm: ltm.delete("l"), (5, 3, 2, 2)),
    "store 100 small": (lambda ltm: ltm.store_batch(SMALL), (2, 100, 100, 0)),
    "store 100 large": (lambda ltm: ltm.store_batch(LARGE), (4, 300, 300, 0)),
    "retrieve 100": (lambda ltm: ltm.retrieve_batch(keys(SMALL)), (1, 100, 0, 0)),
    "delete 100 small": (lambda ltm: ltm.delete_batch(keys(SMALL)), (2, 100, 100, 100)),
    "list 100 by a filter": (
        lambda ltm: ltm.list_entries(metadata_filter={"n": 1}),
        (2, 101, 0, 0),
    ),
    "clean up nothing": (lambda ltm: ltm.cleanup_expired(), (3, 3, 0, 0)),
}


async def test_each_operation_asks_for_what_its_bill_says(ltm: LTMBackend) -> None:
    usage = catalog_of(ltm).usage
    await ltm.open()
    found: dict[str, tuple[int, int, int, int]] = {}
    for name, (call, _) in BILLS.items():
        before = usage.requests, usage.reads, usage.writes, usage.deletes
        result = await call(ltm)
        assert result.success, name
        after = usage.requests, usage.reads, usage.writes, usage.deletes
        found[name] = tuple(new - old for new, old in zip(after, before, strict=True))  # type: ignore[assignment]
    assert found == {name: bill for name, (_, bill) in BILLS.items()}
    for name, bill in found.items():
        assert f"| {name} | {' | '.join(map(str, bill))} |\n" in README


async def test_a_cleanup_of_a_hundred_takes_a_few_requests(
    firestore_server: Firestore,
    transport: str,
) -> None:
    clock = ManualClock()
    catalog = FirestoreCatalog(new_project(), clock=lambda _: clock(), transport=transport)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    entries = [{**entry, "ttl": 60} for entry in SMALL[:50] + LARGE[:50]]
    await ltm.store_batch(entries)
    clock.advance(61)
    before = catalog.usage.requests
    cleaned = await ltm.cleanup_expired(limit=100)
    assert (cleaned.deleted, cleaned.errors) == (100, [])
    assert catalog.usage.requests - before <= 10
    assert (await ltm.verify()).entries == 0
    await catalog.aclose()


# Contention


async def test_ten_tasks_that_update_one_key_lose_nothing(ltm: LTMBackend) -> None:
    results = await asyncio.gather(
        *(ltm.update("sum", lambda value: value + 1, default=0) for _ in range(10))
    )
    assert all(result.stored for result in results)
    assert (await ltm.retrieve("sum")).value == 10


async def test_blind_writers_of_one_key_all_come_through_and_blobs_agree(ltm: LTMBackend) -> None:
    values = [[number, "x" * 2_000 * (number % 2)] for number in range(8)]
    results = await asyncio.gather(*(ltm.store("k", value) for value in values))
    assert all(result.stored for result in results)
    last = max(range(8), key=lambda number: results[number].version or 0)
    assert (await ltm.retrieve("k")).value == values[last]
    assert (await ltm.verify()).sound


# Limits


async def test_a_value_near_the_limit_of_a_document_is_kept_in_its_row(
    firestore_server: Firestore,
    transport: str,
) -> None:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise", inline_threshold=512 * 1024)
    value = "x" * (512 * 1024 - 3)
    stored = await ltm.store("k", value, metadata={"m": "y" * 16_000})
    assert stored.inlined
    found = await ltm.retrieve("k")
    assert found.value == value
    assert found.metadata == {"m": "y" * 16_000}
    await catalog.aclose()


async def test_a_batch_over_the_limit_of_a_request_is_cut(
    firestore_server: Firestore, transport: str
) -> None:
    """The emulator takes 4 MiB, so less is asked for here."""
    catalog = FirestoreCatalog(new_project(), batch_bytes=3_500_000, transport=transport)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise", inline_threshold=512 * 1024)
    entries = [{"key": f"k{number:02}", "value": "x" * 400_000} for number in range(28)]
    result = await ltm.store_batch(entries)
    assert (result.stored, result.failed) == (28, 0)
    assert len(set(result.versions.values())) == 4
    assert len((await ltm.retrieve_batch(keys(entries))).results) == 28
    await catalog.aclose()


async def test_a_batch_of_501_is_one_commit_where_that_is_asked_for(
    firestore_server: Firestore,
    transport: str,
) -> None:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise", batch_size=600)
    entries = [{"key": f"k{number:03}", "value": number} for number in range(501)]
    result = await ltm.store_batch(entries)
    assert result.stored == 501
    assert len(set(result.versions.values())) == 1
    await catalog.aclose()


@pytest.mark.parametrize("key", ["a/b", ".", "..", "__x__", "a.b`c", "*[]~", "\u00e9" * 512])
async def test_keys_that_no_document_may_be_named(ltm: LTMBackend, key: str) -> None:
    metadata = {"__name__": 1, "a.b": {"`": [[1, [2]], {"/": None}]}, "*": "~"}
    await ltm.store(key, [[1], [[2]]], metadata=metadata)
    found = await ltm.retrieve(key)
    assert (found.value, found.metadata) == ([[1], [[2]]], metadata)
    assert [entry.key for entry in (await ltm.list_entries()).entries] == [key]
    assert (await ltm.delete(key)).deleted


async def test_collections_of_another_prefix_are_another_catalog(
    firestore_server: Firestore,
    transport: str,
) -> None:
    project = new_project()
    catalogs = [
        FirestoreCatalog(project, collection_prefix=prefix, transport=transport)
        for prefix in ("", "a_")
    ]
    first, second = (LTMBackend(catalog, "memory:") for catalog in catalogs)
    await first.store("k", 1)
    assert not (await second.retrieve("k")).found
    await second.store("k", 2)
    assert len(firestore_server.documents(project, "a_ltm_entries")) == 1
    for catalog in catalogs:
        await catalog.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {"project": "Upper"},
        {"project": ""},
        {"database": "a/b"},
        {"database": "x"},
        {"collection_prefix": "a/b"},
        {"collection_prefix": "__a"},
        {"batch_bytes": 1},
        {"batch_bytes": 10_000_000},
        {"batch_bytes": True},
        {"transport": "heavy"},
        {"transport": None},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        FirestoreCatalog(**options)


def test_firestore_urls() -> None:
    catalog = create_catalog_backend("firestore://my-project/my-database?collection_prefix=a_")
    assert isinstance(catalog, FirestoreCatalog)
    assert repr(catalog) == "FirestoreCatalog('my-project/my-database')"
    assert catalog._prefix == "a_"
    for url in (
        "firestore://UP",
        "firestore://p/x/y",
        "firestore://p?project=q",
        "firestore://p?x=1",
        "firestore://p?transport=heavy",
    ):
        with pytest.raises(ConfigError):
            LTMBackend(url, "memory:")


async def test_hand_made_documents_are_corrupt_and_hide_no_other(
    firestore_server: Firestore, ltm: LTMBackend
) -> None:
    catalog = catalog_of(ltm)
    await ltm.store_batch([{"key": key, "value": 1} for key in "abc"])
    client = AsyncClient(project=await project_of(catalog))
    home = client.collection("ltm_entries")
    await home.document(entry_name("", "a")).update({"byte_size": "many"})
    await home.document(entry_name("", "b")).update({"metadata": {"a": 1}, "blob_id": "../x"})
    await client._firestore_api.transport.close()
    await ltm.store("d", 1)
    read = await ltm.retrieve_batch(list("abcd"))
    assert set(read.results) == {"c", "d"}
    assert {error.error_type for error in read.errors.values()} == {"CorruptError"}
    await ltm.store("a", 2)
    assert (await ltm.retrieve("a")).value == 2
    assert (await ltm.delete_batch(["a", "b"])).deleted == 2


async def test_the_indexes_that_are_switched_off_are_those_of_no_query(
    firestore_server: Firestore, ltm: LTMBackend
) -> None:
    """And every field is either looked up or switched off."""
    catalog = catalog_of(ltm)
    async with LTMBackend(
        catalog, "memory:", index_text=True, embed=lambda texts: [[1.0]] * len(texts)
    ) as searching:
        await searching.store("k", "x" * 2_000)
    await ltm.store("gone", 1, ttl=60)
    await ltm.delete("gone")
    project = await project_of(catalog)
    off = {
        (override["collectionGroup"], override["fieldPath"])
        for override in json.loads(indexes())["fieldOverrides"]
    }
    for collection, looked_up in LOOKED_UP.items():
        (document, *_) = firestore_server.documents(project, collection)
        fields = document.keys() - {"version"}
        assert {(collection, field) for field in fields - set(looked_up)} == {
            pair for pair in off if pair[0] == collection
        }
    source = "".join(map(inspect.getsource, (catalog_module, feed, ledger, texts)))
    of_field = r'Range\(\s*"(\w+)"|up_to_now\(documents, "(\w+)"|_any\(\s*ENTRIES, "(\w+)"'
    asked = {name for names in re.findall(of_field, source) for name in names if name}
    asked.add(changed_field("").split(".")[0])
    assert asked == {field for fields in LOOKED_UP.values() for field in fields}


async def test_a_search_asks_twice_and_reads_those_that_have_one_of_the_words(
    firestore_server: Firestore, transport: str
) -> None:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    ltm = LTMBackend(catalog, "memory:", index_text=True, on_unavailable="raise")
    await ltm.store_batch({"key": f"t{n}", "value": "green tea"} for n in range(7))
    await ltm.store_batch({"key": f"c{n}", "value": "coffee"} for n in range(20))
    before = catalog.usage.requests, catalog.usage.reads
    assert (await ltm.search("tea leaf")).total == 7
    assert (catalog.usage.requests - before[0], catalog.usage.reads - before[1]) == (2, 8)
    await catalog.aclose()


def test_the_index_for_vectors_is_the_one_that_the_query_needs() -> None:
    """The emulator needs none, so that it is written down here."""
    assert json.loads(indexes("a_"))["indexes"] == []
    (made,) = json.loads(indexes("a_", dimensions=384))["indexes"]
    assert made == {
        "collectionGroup": "a_ltm_entries",
        "queryScope": "COLLECTION",
        "fields": [
            {"fieldPath": "namespace", "order": "ASCENDING"},
            {"fieldPath": "vector", "vectorConfig": {"dimension": 384, "flat": {}}},
        ],
    }


async def test_a_search_by_vectors_asks_once_and_reads_those_that_it_ranks(
    firestore_server: Firestore, transport: str
) -> None:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    ltm = LTMBackend(
        catalog, "memory:", on_unavailable="raise", embed=lambda texts: [[1.0]] * len(texts)
    )
    await ltm.store_batch({"key": f"t{n:03}", "value": "green tea"} for n in range(230))
    before = catalog.usage.requests, catalog.usage.reads
    assert (await ltm.search("tea leaf")).total == 200
    assert (catalog.usage.requests - before[0], catalog.usage.reads - before[1]) == (1, 200)
    await catalog.aclose()


async def test_expired_ones_do_not_take_the_places_of_others(
    firestore_server: Firestore, transport: str
) -> None:
    clock = ManualClock()
    catalog = FirestoreCatalog(new_project(), transport=transport, clock=lambda _: clock())
    ltm = LTMBackend(
        catalog,
        "memory:",
        on_unavailable="raise",
        embed=lambda texts: [[1.0, t] for t in map(len, texts)],
    )
    await ltm.store_batch({"key": f"e{n:03}", "value": "tea", "ttl": 60} for n in range(205))
    await ltm.store("live", "another")
    clock.advance(61)
    assert [hit.key for hit in (await ltm.search("tea")).results] == ["live"]
    await catalog.aclose()


async def test_who_has_no_vectors_has_no_field_for_them(
    firestore_server: Firestore, ltm: LTMBackend
) -> None:
    await ltm.store("k", 1)
    await ltm.store("k", 2)
    (document,) = firestore_server.documents(await project_of(catalog_of(ltm)), "ltm_entries")
    assert "vector" not in document


async def test_long_texts_are_kept_within_what_a_document_holds(
    firestore_server: Firestore, transport: str
) -> None:
    catalog = FirestoreCatalog(new_project(), transport=transport)
    ltm = LTMBackend(
        catalog, "memory:", index_text=True, on_unavailable="raise", inline_threshold=512 * 1024
    )
    words = [f"{n:04}" + "\U00010400" * 60 for n in range(1_999)]  # of four bytes each
    pages = [
        {"key": f"k{n}", "value": " ".join(words), "metadata": {"m": "x" * 16_000}} for n in (1, 2)
    ]
    done = await ltm.store_batch(pages)
    assert done.stored == 2
    assert (await ltm.search(words[400])).total == 2
    assert (await ltm.search(words[-1])).total == 0
    await catalog.aclose()
