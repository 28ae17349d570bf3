"""A graph with a store and a node cache, as LangGraph runs it: async and blocking, in parallel."""

from __future__ import annotations

import asyncio
import collections
import operator
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy, Send

from ltm_async import BlockingCallError, LTMBackend
from ltm_async.integrations.langgraph import LTMMemory
from tests.databases import Database

BRANCHES = 50


class State(TypedDict, total=False):
    topics: list[str]
    seen: Annotated[list[str], operator.add]


class Branch(TypedDict):
    topic: str


@pytest.fixture(params=["sqlite", "postgres"])
def ltm(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[LTMBackend]:
    if request.param == "sqlite":
        catalog = f"sqlite:///{tmp_path}/ltm.db"
    else:
        database: Database = request.getfixturevalue("database")
        catalog = f"{database.dsn}?schema={database.schema}"
    yield LTMBackend(catalog, tmp_path / "blobs", on_unavailable="raise")


class Graph:
    """Fans out to a branch for each topic; each remembers it and recalls what all remembered."""

    def __init__(self, ltm: LTMBackend, *, blocking: bool) -> None:
        self.ran: collections.Counter[str] = collections.Counter()
        self.memory = LTMMemory(ltm)
        builder = StateGraph(State)
        branch: Any = self.branch_blocking if blocking else self.branch
        builder.add_node("branch", branch, cache_policy=CachePolicy(ttl=60))
        builder.add_conditional_edges(START, self.fan_out, ["branch"])
        builder.add_edge("branch", END)
        self.compiled: Any = builder.compile(store=self.memory.store, cache=self.memory.cache)

    @staticmethod
    def fan_out(state: State) -> list[Send]:
        return [Send("branch", {"topic": topic}) for topic in state["topics"]]

    async def branch(self, state: Branch, runtime: Runtime[None]) -> State:
        assert runtime.store is not None
        topic = state["topic"]
        self.ran[topic] += 1
        await runtime.store.aput(("topics", topic), "note", {"text": topic * 300}, ttl=0.5)
        item = await runtime.store.aget(("topics", topic), "note")
        assert item is not None
        assert len(await runtime.store.asearch(("topics", topic))) == 1
        return {"seen": [item.value["text"][: len(topic)]]}

    def branch_blocking(self, state: Branch, runtime: Runtime[None]) -> State:
        assert runtime.store is not None
        topic = state["topic"]
        self.ran[topic] += 1
        runtime.store.put(("topics", topic), "note", {"text": topic * 300}, ttl=0.5)
        item = runtime.store.get(("topics", topic), "note")
        assert item is not None
        assert len(runtime.store.search(("topics", topic))) == 1
        return {"seen": [item.value["text"][: len(topic)]]}


TOPICS = [f"topic-{n:02d}" for n in range(BRANCHES)]


async def test_fifty_branches_share_a_store_and_a_cache(ltm: LTMBackend) -> None:
    async with ltm:
        graph = Graph(ltm, blocking=False)
        for _ in range(2):
            done = await graph.compiled.ainvoke({"topics": TOPICS})
            assert sorted(done["seen"]) == TOPICS
        assert graph.ran == dict.fromkeys(TOPICS, 1)
        listed = await graph.memory.store.alist_namespaces(limit=100)
        assert listed == [("topics", topic) for topic in TOPICS]
        await graph.compiled.aclear_cache()
        await graph.compiled.ainvoke({"topics": TOPICS[:3]})
        assert sum(graph.ran.values()) == BRANCHES + 3


def test_fifty_branches_share_them_in_blocking_code(ltm: LTMBackend) -> None:
    graph = Graph(ltm, blocking=True)
    for _ in range(2):
        done = graph.compiled.invoke({"topics": TOPICS})
        assert sorted(done["seen"]) == TOPICS
    assert graph.ran == dict.fromkeys(TOPICS, 1)
    graph.compiled.clear_cache()
    graph.compiled.invoke({"topics": TOPICS[:3]})
    assert sum(graph.ran.values()) == BRANCHES + 3
    assert len(graph.memory.store.list_namespaces(limit=100)) == BRANCHES


async def test_blocking_nodes_run_in_an_async_graph(ltm: LTMBackend) -> None:
    """LangGraph runs them in threads, beside the loop that reads and writes the cache."""
    async with ltm:
        graph = Graph(ltm, blocking=True)
        for _ in range(2):
            async with asyncio.timeout(30):
                done = await graph.compiled.ainvoke({"topics": TOPICS})
            assert sorted(done["seen"]) == TOPICS
        assert graph.ran == dict.fromkeys(TOPICS, 1)


async def test_a_blocking_graph_on_the_loops_own_thread_is_refused_and_does_not_hang(
    ltm: LTMBackend,
) -> None:
    graph = Graph(ltm, blocking=True)
    with pytest.raises(BlockingCallError, match="await"):
        graph.compiled.invoke({"topics": TOPICS[:3]})


def test_a_graph_made_once_serves_one_event_loop_after_another(ltm: LTMBackend) -> None:
    graph = Graph(ltm, blocking=False)
    for _ in range(3):
        done = asyncio.run(graph.compiled.ainvoke({"topics": TOPICS[:5]}))
        assert sorted(done["seen"]) == TOPICS[:5]
    assert sum(graph.ran.values()) == 5
