"""LangChain's public suites on LTMByteStore and LTMModelCache, and what they do not ask."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    SyncCacheTestSuite,
)

from ltm_async import (
    BlockingCallError,
    CorruptError,
    InvalidEntryError,
    LTMBackend,
    UnavailableError,
)
from ltm_async.integrations.langchain import LTMByteStore, LTMModelCache
from ltm_async.integrations.langchain.model_cache import ROOT
from ltm_async.testing.faults import Mode
from tests.backends import Rig, make_rig
from tests.databases import Database

BLOB = b"\0\xff" * 2_000


@pytest.fixture(params=["sqlite", "postgres"])
def ltm(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[LTMBackend]:
    if request.param == "sqlite":
        catalog = f"sqlite:///{tmp_path}/ltm.db"
    else:
        database: Database = request.getfixturevalue("database")
        catalog = f"{database.dsn}?schema={database.schema}"
    yield LTMBackend(catalog, tmp_path / "blobs", on_unavailable="raise")


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Rig:
    return make_rig("sqlite memory+memory", tmp_path)


class TestByteStore(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, ltm: LTMBackend) -> LTMByteStore:
        return LTMByteStore(ltm)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"", BLOB


class TestAsyncByteStore(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, ltm: LTMBackend) -> LTMByteStore:
        return LTMByteStore(ltm)

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"", BLOB


class TestModelCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, ltm: LTMBackend) -> LTMModelCache:
        return LTMModelCache(ltm)


class TestAsyncModelCache(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, ltm: LTMBackend) -> LTMModelCache:
        return LTMModelCache(ltm)


# The store


async def test_a_call_is_one_round_trip(rig: Rig) -> None:
    store = LTMByteStore(rig.ltm)
    keys = [f"k{n}" for n in range(200)]
    await store.amset([(key, key.encode()) for key in keys])
    assert await store.amget(keys) == [key.encode() for key in keys]
    assert [key async for key in store.ayield_keys()] == sorted(keys)
    await store.amdelete(keys)
    assert rig.faults.steps == [
        "catalog.track_entries_batch",
        "catalog.get_entries_batch",
        "catalog.list_entries",
        "catalog.delete_entries_batch",
    ]


async def test_keys_are_read_page_by_page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm_async.integrations.langchain.byte_store.MAX_PAGE", 3)
    store = LTMByteStore(rig.ltm)
    await store.amset([(f"k{n}", b"") for n in range(10)])
    assert [key async for key in store.ayield_keys(prefix="k")] == [f"k{n}" for n in range(10)]
    assert await asyncio.to_thread(lambda: list(store.yield_keys())) == [f"k{n}" for n in range(10)]


async def test_collections_are_apart(rig: Rig) -> None:
    ones, others = LTMByteStore(rig.ltm, collection="a"), LTMByteStore(rig.ltm, collection="ab")
    await ones.amset([("k", b"1")])
    await others.amset([("k", b"2"), ("k", b"3")])
    assert await ones.amget(["k"]) == [b"1"]
    assert await others.amget(["k"]) == [b"3"]
    assert [key async for key in ones.ayield_keys()] == ["k"]
    with pytest.raises(InvalidEntryError, match="collection"):
        LTMByteStore(rig.ltm, collection="a/b")


async def test_values_end_with_their_ttl(rig: Rig) -> None:
    store = LTMByteStore(rig.ltm, ttl=10)
    await store.amset([("k", b"1")])
    rig.clock.advance(11)
    assert await store.amget(["k"]) == [None]
    assert [key async for key in store.ayield_keys()] == []


async def test_only_bytes_are_stored_and_only_bytes_come_back(rig: Rig) -> None:
    store = LTMByteStore(rig.ltm)
    with pytest.raises(InvalidEntryError, match="bytes, not str"):
        await store.amset([("k", "text")])  # type: ignore[list-item]
    for forged in (7, "?", ["AA=="], None, "AA==\n"):
        await rig.ltm.store("langchain/bytes/default/k", forged)
        with pytest.raises(CorruptError):
            await store.amget(["k"])


async def test_a_store_that_fails_is_no_missing_value(rig: Rig) -> None:
    store = LTMByteStore(rig.ltm)
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    for call in (store.amget(["k"]), store.amset([("k", b"")]), store.amdelete(["k"])):
        with pytest.raises(UnavailableError):
            await call
    with pytest.raises(UnavailableError):
        await anext(aiter(store.ayield_keys()))


# The cache


async def test_a_chat_models_answer_comes_back_with_all_it_had(rig: Rig) -> None:
    cache = LTMModelCache(rig.ltm)
    message = AIMessage(
        [{"type": "text", "text": "hi"}],
        tool_calls=[{"name": "look", "args": {"n": [1]}, "id": "7"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        response_metadata={"model": "m"},
    )
    answer = [ChatGeneration(message=message, generation_info={"logprobs": [0.5]})]
    await cache.aupdate("prompt", "model", answer)
    assert await cache.alookup("prompt", "model") == answer
    assert await cache.alookup("prompt", "other") is None
    assert await cache.alookup("other", "model") is None


async def test_a_model_is_asked_once(rig: Rig) -> None:
    """A model that has one answer only, asked twice, in async and in blocking code."""
    cache = LTMModelCache(rig.ltm)
    model = GenericFakeChatModel(messages=iter([AIMessage("hello", id="7")]), cache=cache)
    first = await model.ainvoke([HumanMessage("hi")])
    again = await model.ainvoke([HumanMessage("hi")])
    third = await asyncio.to_thread(model.invoke, [HumanMessage("hi")])
    assert {answer.content for answer in (first, again, third)} == {"hello"}


async def test_an_answer_ends_with_its_ttl(rig: Rig) -> None:
    cache = LTMModelCache(rig.ltm, ttl=10)
    await cache.aupdate("prompt", "model", [Generation(text="hi")])
    rig.clock.advance(11)
    assert await cache.alookup("prompt", "model") is None


class OwnMessage(AIMessage):
    """One that would come back as AIMessage."""


@pytest.mark.parametrize(
    "answer",
    [
        Generation(text="hi", generation_info={"pair": (1, 2)}),
        Generation(text="hi", generation_info={"object": object()}),
        ChatGeneration(message=OwnMessage(content="hi")),
    ],
    ids=["a tuple", "an object", "an own message"],
)
async def test_what_would_come_back_changed_is_not_cached(
    rig: Rig, answer: Generation, caplog: pytest.LogCaptureFixture
) -> None:
    cache = LTMModelCache(rig.ltm)
    await cache.aupdate("prompt", "model", [answer])
    assert await cache.alookup("prompt", "model") is None
    assert "an answer is not cached" in caplog.text


@pytest.mark.parametrize(
    "forged",
    [
        7,
        [7],
        [{"kind": "Path", "text": "/"}],
        [{"kind": "Generation", "text": 7}],
        [{"kind": "ChatGeneration", "message": {"type": "os.mkdir", "data": {}}}],
        [{"lc": 1, "type": "constructor", "id": ["langchain", "schema"], "kwargs": {}}],
    ],
    ids=str,
)
async def test_nothing_is_made_of_a_forged_answer(rig: Rig, forged: Any) -> None:
    cache = LTMModelCache(rig.ltm)
    await cache.aupdate("prompt", "model", [Generation(text="hi")])
    (entry,) = (await rig.ltm.list_entries(ROOT)).entries
    await rig.ltm.store(entry.key, forged)
    assert await cache.alookup("prompt", "model") is None


@pytest.mark.parametrize("mode", ["degrade", "raise"])
async def test_a_cache_that_fails_is_a_miss(tmp_path: pathlib.Path, mode: str) -> None:
    rig = make_rig("memory+memory", tmp_path, on_unavailable=mode, fallback_size=0)
    cache = LTMModelCache(rig.ltm)
    await cache.aupdate("prompt", "model", [Generation(text="hi")])
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    await cache.aupdate("prompt", "model", [Generation(text="hello")])
    assert await cache.alookup("prompt", "model") is None
    with pytest.raises(UnavailableError):
        await cache.aclear()


async def test_a_process_still_has_its_answers_while_the_catalog_is_down(
    tmp_path: pathlib.Path,
) -> None:
    rig = make_rig("memory+memory", tmp_path, on_unavailable="degrade")
    cache = LTMModelCache(rig.ltm)
    await cache.aupdate("prompt", "model", [Generation(text="hi")])
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    assert await cache.alookup("prompt", "model") == [Generation(text="hi")]
    await rig.aclose()


async def test_a_blocking_call_on_the_loops_own_thread_is_refused(rig: Rig) -> None:
    store, cache = LTMByteStore(rig.ltm), LTMModelCache(rig.ltm)
    calls = (
        lambda: store.mget(["k"]),
        lambda: store.mset([]),
        lambda: store.mdelete(["k"]),
        lambda: next(store.yield_keys()),
        lambda: cache.lookup("prompt", "model"),
        lambda: cache.update("prompt", "model", []),
        cache.clear,
    )
    for call in calls:
        with pytest.raises(BlockingCallError, match="await"):
            call()
