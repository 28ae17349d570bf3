"""An agent graph that remembers its users, with a tool that is run once for all who ask."""

import asyncio
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore

from ltm_async import Cache, LTMBackend
from ltm_async.integrations.langgraph import LTMStore

ltm = LTMBackend("sqlite:///memory.db", "./blobs")
memory = LTMStore(ltm)


class State(TypedDict):
    user: str
    city: str


@Cache(ltm).cached(ttl=3600)
async def weather(city: str) -> str:
    print("asking a slow service about", city)
    return "sunny" if city == "Rome" else "snowing"


async def answer(state: State, *, store: BaseStore) -> None:
    places, now = ("users", state["user"], "places"), await weather(state["city"])
    print(state, now, "asked before:", sorted(item.key for item in await store.asearch(places)))
    await store.aput(places, state["city"], {"weather": now}, ttl=0.5)  # half a minute


async def main() -> None:
    agent = StateGraph(State).add_node(answer).add_edge(START, "answer").compile(store=memory)
    for user, city in (("ann", "Rome"), ("bob", "Rome"), ("ann", "Oslo")):
        await agent.ainvoke({"user": user, "city": city})
    print("sunny:", len(await memory.asearch(("users",), filter={"weather": "sunny"})))


asyncio.run(main())
