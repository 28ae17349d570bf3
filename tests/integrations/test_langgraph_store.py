"""LTMStore beside LangGraph's own store: the same answers, few round trips, TTLs that end."""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from ltm_async import (
    BlockingCallError,
    ConfigError,
    CorruptError,
    InvalidEntryError,
    LTMBackend,
    UnavailableError,
)
from ltm_async.integrations.langgraph import LTMStore
from ltm_async.integrations.langgraph.names import STORE_ROOT, Name, entry_key, name_of
from ltm_async.integrations.langgraph.paging import First
from ltm_async.testing import Faults
from ltm_async.testing.faults import Mode
from tests.backends import Rig, make_rig

T = TypeVar("T")

PACKAGE = "ltm_async.integrations.langgraph"
LARGE = {"text": "x" * 5_000}
AWKWARD = ["a", "b", "a/b", "%", "%2F", "/", "//", " ", "ü", "-", "0", "a%", "\U0001f600"]


@pytest.fixture(params=["sqlite+local", "memory+memory", "postgres+local"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    await rig.aclose()


@pytest.fixture
def store(rig: Rig) -> LTMStore:
    return LTMStore(rig.ltm)


def calls(rig: Rig) -> list[str]:
    steps, rig.faults.steps[:] = rig.faults.steps.copy(), []
    return [step.removeprefix("catalog.") for step in steps if step.startswith("catalog.")]


def plain(result: Any) -> Any:
    """Items without their times, to be compared with those of another store."""
    if isinstance(result, list):
        return [plain(part) for part in result]
    if hasattr(result, "value"):
        return result.namespace, result.key, result.value
    return result


# Items


async def test_an_item_comes_back_as_it_was_put(store: LTMStore) -> None:
    await store.aput(("users", "7"), "likes", {"tea": [1, 2.5, None]})
    item = await store.aget(("users", "7"), "likes")
    assert item is not None
    assert plain(item) == (("users", "7"), "likes", {"tea": [1, 2.5, None]})
    assert item.created_at == item.updated_at
    assert item.created_at.utcoffset() == timedelta(0)
    assert await store.aget(("users",), "likes") is None
    assert await store.aget(("users", "7"), "like") is None


async def test_a_large_item_is_a_blob(rig: Rig, store: LTMStore) -> None:
    await store.aput(("docs",), "large", LARGE)
    assert len(await rig.objects()) == 1
    item = await store.aget(("docs",), "large")
    assert item is not None and item.value == LARGE
    await store.adelete(("docs",), "large")
    assert await store.aget(("docs",), "large") is None
    assert await rig.objects() == set()


async def test_putting_again_keeps_when_an_item_was_created(rig: Rig, store: LTMStore) -> None:
    await store.aput(("n",), "k", {"n": 1})
    rig.clock.advance(5)
    await store.aput(("n",), "k", {"n": 2})
    item = await store.aget(("n",), "k")
    assert item is not None and item.value == {"n": 2}
    assert item.updated_at - item.created_at == timedelta(seconds=5)


@pytest.mark.parametrize("label", AWKWARD)
def test_every_name_has_a_key_that_leads_back_to_it(label: str) -> None:
    for namespace in [(), (label,), (label, label), ("a", label), ("", label)]:
        for key in ["", label, "//", "a//b"]:
            name = Name(namespace, key)
            assert name_of(STORE_ROOT, entry_key(STORE_ROOT, name)) == name


def test_no_two_names_have_one_key() -> None:
    names = {Name((a, b), c) for a in AWKWARD for b in AWKWARD for c in AWKWARD}
    names |= {Name((a,), c) for a in AWKWARD for c in AWKWARD}
    assert len({entry_key(STORE_ROOT, name) for name in names}) == len(names)


async def test_a_name_that_is_too_long_is_refused_before_anything_is_sent(
    rig: Rig, store: LTMStore
) -> None:
    longest = 1024 - len(entry_key(STORE_ROOT, Name(("n",), "")))
    await store.aput(("n",), "k" * longest, {})
    calls(rig)
    with pytest.raises(InvalidEntryError, match=r"namespace and key.* 1025 bytes.* 1024"):
        await store.aput(("n",), "k" * (longest + 1), {})
    with pytest.raises(InvalidEntryError, match=r"namespace_prefix.* 1024"):
        await store.asearch(("n" * 2_000,))
    with pytest.raises(InvalidEntryError, match=r"prefix.* 1024"):
        await store.alist_namespaces(prefix=("n" * 2_000,))
    assert calls(rig) == []


@pytest.mark.parametrize("namespace", [("a.b",), ("",), ("a", "\0"), ()])
async def test_langgraphs_rules_for_namespaces_hold(
    rig: Rig, store: LTMStore, namespace: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidNamespaceError):
        await store.aput(namespace, "k", {})
    if namespace:
        with pytest.raises(InvalidNamespaceError):
            await store.abatch([GetOp(namespace, "k")])
    assert calls(rig) == []


async def test_a_value_that_json_would_change_is_refused(rig: Rig, store: LTMStore) -> None:
    with pytest.raises(InvalidEntryError, match="tuple"):
        await store.aput(("n",), "k", {"pair": (1, 2)})
    with pytest.raises(InvalidEntryError, match="value must be a dict"):
        await store.aput(("n",), "k", [1])  # type: ignore[arg-type]
    assert calls(rig) == []


# TTL


async def test_a_ttl_is_a_fraction_of_a_minute(rig: Rig, store: LTMStore) -> None:
    await store.aput(("n",), "k", {}, ttl=0.4)
    rig.clock.advance(23.9)
    assert await store.aget(("n",), "k", refresh_ttl=False) is not None
    rig.clock.advance(0.2)
    assert await store.aget(("n",), "k") is None
    assert await store.asearch(("n",)) == []
    assert await store.alist_namespaces() == []
    assert (await rig.ltm.cleanup_expired()).deleted == 1


@pytest.mark.parametrize("value", [{"n": 1}, LARGE], ids=["small", "large"])
async def test_reading_renews_the_ttl_and_nothing_else(
    rig: Rig, store: LTMStore, value: dict[str, Any]
) -> None:
    await store.aput(("n",), "k", value, ttl=1)
    put = await store.aget(("n",), "k", refresh_ttl=False)
    assert put is not None
    for _ in range(3):
        rig.clock.advance(40)
        assert await store.aget(("n",), "k") == put
    rig.clock.advance(40)
    (found,) = await store.asearch(("n",))
    assert found.dict() == {**put.dict(), "score": None}
    rig.clock.advance(59)
    assert await store.aget(("n",), "k", refresh_ttl=False) == put
    rig.clock.advance(2)
    assert await store.aget(("n",), "k") is None


async def test_a_default_ttl_and_no_renewal_can_be_configured(rig: Rig) -> None:
    store = LTMStore(rig.ltm, ttl={"default_ttl": 1, "refresh_on_read": False})
    await store.aput(("n",), "ends", {})
    await store.aput(("n",), "stays", {}, ttl=None)
    rig.clock.advance(59)
    assert len(await store.asearch(("n",))) == 2
    rig.clock.advance(2)
    assert [item.key for item in await store.asearch(("n",))] == ["stays"]


class Meanwhile(Faults):
    """Does something of another's, once, right before a step."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: dict[str, Callable[[], Awaitable[None]]] = {}

    async def step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        if name in self.actions:
            await self.actions.pop(name)()
        return await super().step(name, call)


async def test_a_renewal_never_ends_what_was_put_for_ever_meanwhile(
    tmp_path: pathlib.Path,
) -> None:
    meanwhile = Meanwhile()
    rig = make_rig("sqlite+local", tmp_path, meanwhile)
    store = LTMStore(rig.ltm)
    await store.aput(("n",), "k", {"n": 1}, ttl=1)
    meanwhile.actions["catalog.track_entries_batch"] = lambda: store.aput(("n",), "k", {"n": 1})
    assert await store.aget(("n",), "k") is not None
    assert not meanwhile.actions
    rig.clock.advance(1_000)
    assert await store.aget(("n",), "k") is not None
    await rig.aclose()


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="sweep_interval_minutes"):
        LTMStore(LTMBackend("memory:", "memory:"), ttl={"sweep_interval_minutes": 5})


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), "1", True, 1e9])
async def test_a_ttl_that_cannot_be_is_refused(rig: Rig, store: LTMStore, ttl: Any) -> None:
    with pytest.raises(InvalidEntryError, match="ttl"):
        await store.aput(("n",), "k", {}, ttl=ttl)
    assert calls(rig) == []


# Batches


async def test_a_batch_takes_one_round_trip_for_each_kind(rig: Rig, store: LTMStore) -> None:
    await store.abatch([PutOp(("n",), f"k{n}", {"n": n}) for n in range(100)])
    assert calls(rig) == ["track_entries_batch"]
    await store.abatch([GetOp(("n",), f"k{n % 50}") for n in range(100)])
    assert calls(rig) == ["get_entries_batch"]
    await store.abatch([PutOp(("n",), f"k{n}", None) for n in range(50)])
    assert calls(rig) == ["delete_entries_batch"]
    await store.asearch(("n",), limit=100)
    assert calls(rig) == ["list_entries", "get_entries_batch"]
    await store.alist_namespaces()
    assert calls(rig) == ["list_entries"]


async def test_a_batch_answers_as_langgraphs_own_store_does(store: LTMStore) -> None:
    theirs = InMemoryStore()
    before: list[Op] = [PutOp(("n",), "old", {"n": 1}), PutOp(("m", "x"), "gone", {"n": 2})]
    batch: list[Op] = [
        GetOp(("n",), "old"),
        PutOp(("n",), "old", {"n": 3}),
        PutOp(("n",), "new", {"n": 4}),
        PutOp(("n",), "new", {"n": 5}),
        PutOp(("m", "x"), "gone", None),
        GetOp(("n",), "new"),
        SearchOp(("m",)),
        ListNamespacesOp(),
        GetOp(("n",), "old"),
    ]
    after: list[Op] = [
        GetOp(("n",), "old"),
        GetOp(("n",), "new"),
        GetOp(("m", "x"), "gone"),
        SearchOp(("n",), {"n": 5}),
    ]
    for ops in (before, batch, after):
        assert plain(await store.abatch(ops)) == plain(await theirs.abatch(ops))


async def test_puts_that_cannot_be_stored_leave_the_batch_undone(store: LTMStore) -> None:
    with pytest.raises(InvalidEntryError):
        await store.abatch([PutOp(("n",), "good", {}), PutOp(("n",), "bad", {"s": {1}})])
    assert await store.aget(("n",), "good") is None


@pytest.mark.parametrize("mode", ["degrade", "raise"])
async def test_a_store_that_fails_is_never_an_empty_answer(
    tmp_path: pathlib.Path, mode: str
) -> None:
    rig = make_rig("memory+memory", tmp_path, on_unavailable=mode)
    store = LTMStore(rig.ltm)
    await store.aput(("n",), "k", {})
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    for call in (
        store.aget(("n",), "k"),
        store.asearch(("n",)),
        store.aput(("n",), "k", {"n": 1}),
        store.adelete(("n",), "k"),
        store.alist_namespaces(),
    ):
        with pytest.raises(UnavailableError):
            await call
    await rig.aclose()


# Search


async def fill(store: LTMStore, rig: Rig, count: int) -> None:
    for n in range(count):
        kind = "even" if n % 2 == 0 else "odd"
        await store.aput(("docs", f"u{n % 3}"), f"k{n}", {"n": n, "kind": kind})
        rig.clock.advance(1)


async def test_what_was_put_last_is_found_first(rig: Rig, store: LTMStore) -> None:
    await fill(store, rig, 12)
    await store.aput(("docsx",), "other", {"n": 99})
    await store.aput(("docs", "u0"), "k0", {"n": 100})
    found = await store.asearch(("docs",), limit=4)
    assert [item.value["n"] for item in found] == [100, 11, 10, 9]
    found = await store.asearch(("docs",), limit=4, offset=10)
    assert [item.value["n"] for item in found] == [2, 1]
    assert [item.value["n"] for item in await store.asearch(("docs", "u1"))] == [10, 7, 4, 1]
    assert len(await store.asearch((), limit=50)) == 13
    assert await store.asearch(("docs",), limit=0) == []


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"kind": "even"}, [10, 8, 6, 4, 2, 0]),
        ({"kind": {"$ne": "even"}}, [11, 9, 7, 5, 3, 1]),
        ({"n": {"$gte": 3, "$lt": 6}}, [5, 4, 3]),
        ({"n": {"$gt": 9}, "kind": "odd"}, [11]),
        ({"n": {"$lte": 1}}, [1, 0]),
        ({"n": {"$eq": 7}}, [7]),
        ({"none": {"$gt": 1}}, []),
        ({"none": None}, []),
    ],
    ids=str,
)
async def test_a_filter_is_asked_of_the_value(
    rig: Rig, store: LTMStore, filter: dict[str, Any], expected: list[int]
) -> None:
    await fill(store, rig, 12)
    found = await store.asearch(("docs",), filter=filter, limit=50)
    assert [item.value["n"] for item in found] == expected
    found = await store.asearch(("docs",), filter=filter, limit=2, offset=1)
    assert [item.value["n"] for item in found] == expected[1:3]


@pytest.mark.parametrize("page", [1, 3, 7])
async def test_a_search_reads_on_to_the_last_page(
    rig: Rig, store: LTMStore, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{PACKAGE}.paging.MAX_PAGE", page)
    monkeypatch.setattr(f"{PACKAGE}.searching.VALUES_AT_ONCE", 2)
    await fill(store, rig, 20)
    found = await store.asearch(("docs",), filter={"n": {"$gte": 5}}, limit=4, offset=3)
    assert [item.value["n"] for item in found] == [16, 15, 14, 13]
    found = await store.asearch(("docs",), limit=100)
    assert [item.value["n"] for item in found] == list(range(19, -1, -1))


@pytest.mark.parametrize("count", [0, 1, 3, 10, 60])
def test_the_first_of_many_are_kept_in_bounded_memory(count: int) -> None:
    draw = random.Random(7)
    items = [draw.randrange(1_000) for _ in range(100)]
    first: First[int] = First(count, rank=lambda item: item)
    for item in items:
        first.add(item)
        assert len(first._kept) <= 2 * count
    assert first.ranked() == sorted(items)[:count]


async def test_a_search_holds_no_more_values_than_it_may(
    store: LTMStore, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{PACKAGE}.searching.VALUE_BYTES_AT_ONCE", 11_000)
    await store.abatch([PutOp(("n",), f"k{n}", {**LARGE, "n": n}) for n in range(7)])
    calls(rig)
    assert len(await store.asearch(("n",), filter={"n": {"$gte": 0}})) == 7
    assert calls(rig).count("get_entries_batch") == 4


async def test_a_damaged_entry_fails_the_search_instead_of_missing_from_it(
    rig: Rig, store: LTMStore
) -> None:
    await store.aput(("n",), "k", LARGE)
    await rig.blobs.delete(list(await rig.objects()))
    with pytest.raises(CorruptError):
        await store.asearch(("n",))


@pytest.mark.parametrize(
    "options",
    [{"limit": -1}, {"offset": -1}, {"filter": {"n": {"$regex": "x"}}}, {"filter": {"$n": 1}}],
    ids=str,
)
async def test_a_search_that_makes_no_sense_is_refused(
    rig: Rig, store: LTMStore, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidEntryError):
        await store.asearch(("n",), **options)
    assert calls(rig) == []


async def test_a_query_finds_what_fits_best_below_the_namespace(
    pair_with_text: str, tmp_path: pathlib.Path
) -> None:
    rig = make_rig(pair_with_text, tmp_path, index_text=True)
    store = LTMStore(rig.ltm)
    texts = {"a": "green tea and more green tea", "b": "green grass", "c": "a blue sky"}
    for user in ("ann", "ann/x", "bob"):
        await store.abatch(
            PutOp(("users", user), key, {"text": text, "n": n})
            for n, (key, text) in enumerate(texts.items())
        )
    await rig.ltm.store("note", {"text": "green tea"})
    found = await store.asearch(("users", "ann"), query="who likes green tea?")
    assert [(item.namespace, item.key) for item in found] == [
        (("users", "ann"), "a"),
        (("users", "ann"), "b"),
    ]
    assert found[0].score is not None and found[1].score is not None
    assert found[0].score > found[1].score > 0
    assert found[0].value == {"text": texts["a"], "n": 0}
    assert len(await store.asearch((), query="tea")) == 3
    filtered = await store.asearch(("users",), query="green", filter={"n": 1}, limit=2, offset=1)
    assert [item.key for item in filtered] == ["b", "b"]
    forged = {"namespace": {"0": "users", "1": "ann"}}
    await rig.ltm.store("langgraph/store/users/bob//d", {"text": "green"}, metadata=forged)
    assert len(await store.asearch(("users", "ann"), query="green")) == 2
    await store.aput(("users", "ann"), "a", {"text": "coffee"})
    assert await store.asearch(("users", "ann"), query='"green tea"') == []
    with pytest.raises(InvalidEntryError, match="query"):
        await store.asearch(("users",), query="?!")
    await rig.aclose()


@pytest.fixture(params=["sqlite+local", "memory+memory", "postgres+local"])
def pair_with_text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_query_finds_what_is_nearest_where_the_backend_has_vectors(
    pair_with_text: str, tmp_path: pathlib.Path
) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0 + text.count("tea"), 1.0 + text.count("sky")] for text in texts]

    rig = make_rig(pair_with_text, tmp_path, embed=embed)
    store = LTMStore(rig.ltm)
    texts = {"a": "a blue sky", "b": "tea, more tea", "c": "neither"}
    for user in ("ann", "bob"):
        await store.abatch(
            PutOp(("users", user), key, {"text": text}) for key, text in texts.items()
        )
    found = await store.asearch(("users", "ann"), query="tea?")
    assert [(item.namespace[1], item.key) for item in found] == [
        ("ann", "b"),
        ("ann", "c"),
        ("ann", "a"),
    ]
    assert [item.key for item in await store.asearch(("users",), query="?!", limit=2)] == ["c", "c"]
    await rig.aclose()


async def test_a_query_needs_a_backend_that_indexes_texts(store: LTMStore) -> None:
    with pytest.raises(ConfigError, match="index_text=True"):
        await store.asearch(("n",), query="tea")


async def test_keys_of_others_are_not_items(rig: Rig, store: LTMStore) -> None:
    await rig.ltm.store("users/7", {"n": 1})
    await rig.ltm.store("langgraph/store/users/7", {"n": 1})
    assert await store.asearch(()) == []
    assert await store.alist_namespaces() == []


# Namespaces


async def test_namespaces_are_listed_as_langgraphs_own_store_does(store: LTMStore) -> None:
    theirs = InMemoryStore()
    draw = random.Random(7)
    namespaces = {
        tuple(draw.choice(["a", "b", "a/b", "-", "0", "%"]) for _ in range(draw.randint(1, 4)))
        for _ in range(60)
    }
    ops = [PutOp(namespace, f"k{n}", {}) for namespace in namespaces for n in range(3)]
    await store.abatch(ops)
    await theirs.abatch(ops)
    asked: list[Op] = []
    for depth in (None, 1, 2, 3):
        for limit, offset in ((1_000, 0), (5, 3)):
            for path in [("a",), ("a", "b"), ("*", "b"), ("a", "*", "0"), ("a/b",)]:
                prefix, suffix = MatchCondition("prefix", path), MatchCondition("suffix", path)
                asked.append(ListNamespacesOp((prefix,), depth, limit, offset))
                asked.append(ListNamespacesOp((suffix,), depth, limit, offset))
                other = MatchCondition("suffix", ("b",))
                asked.append(ListNamespacesOp((prefix, other), depth, limit, offset))
            asked.append(ListNamespacesOp(None, depth, limit, offset))
    assert await store.abatch(asked) == await theirs.abatch(asked)


async def test_a_namespace_with_many_items_is_passed_over(
    rig: Rig, store: LTMStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{PACKAGE}.paging.MAX_PAGE", 5)
    await store.abatch([PutOp(("a", f"n{n % 3}"), f"k{n}", {}) for n in range(300)])
    calls(rig)
    assert await store.alist_namespaces() == [("a", "n0"), ("a", "n1"), ("a", "n2")]
    assert len(calls(rig)) == 4
    assert await store.alist_namespaces(max_depth=1) == [("a",)]
    assert len(calls(rig)) == 2


# Blocking calls


def test_the_blocking_methods_do_the_same(tmp_path: pathlib.Path) -> None:
    store = LTMStore(LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs"))
    store.put(("n",), "k", {"n": 1}, ttl=0.5)
    item = store.get(("n",), "k")
    assert item is not None and item.value == {"n": 1}
    assert [found.key for found in store.search(("n",), filter={"n": 1})] == ["k"]
    assert store.list_namespaces(prefix=("n",)) == [("n",)]
    store.delete(("n",), "k")
    assert store.get(("n",), "k") is None


async def test_a_blocking_call_works_in_a_thread_beside_a_loop(tmp_path: pathlib.Path) -> None:
    async with LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs") as ltm:
        store = LTMStore(ltm)
        await store.aput(("n",), "k", {"n": 1})
        items = await asyncio.gather(
            *(asyncio.to_thread(store.get, ("n",), "k") for _ in range(20)),
            *(store.aget(("n",), "k") for _ in range(20)),
        )
        assert [item and item.value["n"] for item in items] == [1] * 40


async def test_a_blocking_call_on_the_loops_own_thread_is_refused(store: LTMStore) -> None:
    with pytest.raises(BlockingCallError, match="await"):
        store.get(("n",), "k")
