"""LTMCache: values come back as they were, only known types do, and no failure fails a node."""

from __future__ import annotations

import base64
import dataclasses
import os
import pathlib
import pickle
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from ltm_async import BlockingCallError, InvalidEntryError, LTMBackend, UnavailableError
from ltm_async.integrations.langgraph import LTMCache
from ltm_async.testing.faults import Mode
from tests.backends import Rig, make_rig

NAMESPACE = ("__pregel_ns_writes", "tests.node.ü/%", "node")


@dataclasses.dataclass
class Point:
    x: int
    y: int


@pytest.fixture(params=["sqlite+local", "postgres+local"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    await rig.aclose()


@pytest.fixture
def cache(rig: Rig) -> LTMCache[Any]:
    return LTMCache(rig.ltm)


VALUES = [
    None,
    b"bytes",
    {"n": [1, 2.5, "text", None, True]},
    {"when": datetime(2026, 1, 31, tzinfo=UTC), "id": uuid.UUID(int=7), "price": Decimal("1.10")},
    {1, 2, 3},
    [HumanMessage("hello"), AIMessage("hi", usage_metadata=None, id="7")],
    {"text": "x" * 5_000},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
async def test_a_value_comes_back_as_it_was(cache: LTMCache[Any], value: Any) -> None:
    await cache.aset({(NAMESPACE, "k"): (value, None)})
    assert await cache.aget([(NAMESPACE, "k")]) == {(NAMESPACE, "k"): value}


async def test_many_keys_take_one_round_trip(rig: Rig, cache: LTMCache[Any]) -> None:
    keys = [(NAMESPACE, f"k{n}") for n in range(50)]
    await cache.aset({key: (n, None) for n, key in enumerate(keys)})
    found = await cache.aget([*keys, (NAMESPACE, "none"), *keys])
    assert found == {key: n for n, key in enumerate(keys)}
    assert await cache.aget([]) == {}
    await cache.aset({})
    assert rig.faults.steps == ["catalog.track_entries_batch", "catalog.get_entries_batch"]


async def test_a_ttl_is_in_seconds(rig: Rig, cache: LTMCache[Any]) -> None:
    await cache.aset({(NAMESPACE, "ends"): (1, 10), (NAMESPACE, "stays"): (2, None)})
    rig.clock.advance(9)
    assert len(await cache.aget([(NAMESPACE, "ends"), (NAMESPACE, "stays")])) == 2
    rig.clock.advance(2)
    assert await cache.aget([(NAMESPACE, "ends"), (NAMESPACE, "stays")]) == {
        (NAMESPACE, "stays"): 2
    }


async def test_clearing_takes_the_namespaces_named_and_no_other(
    rig: Rig, cache: LTMCache[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.integrations.clearing.MAX_PAGE", 2)
    keys = [((*place, ""), f"k{n}") for place in [("a",), ("a", "b"), ("ab",)] for n in range(5)]
    await cache.aset(dict.fromkeys(keys, (1, None)))
    await rig.ltm.store("mine", 1)
    await cache.aclear([("a", "")])
    assert {namespace for namespace, _ in await cache.aget(keys)} == {("a", "b", ""), ("ab", "")}
    await cache.aclear()
    assert await cache.aget(keys) == {}
    assert (await rig.ltm.retrieve("mine")).found


async def test_a_type_of_ones_own_is_refused_until_it_is_allowed(
    rig: Rig, cache: LTMCache[Any]
) -> None:
    with pytest.raises(InvalidEntryError, match=r"Point.*allowed_types"):
        await cache.aset({(NAMESPACE, "k"): ([("channel", Point(1, 2))], None)})
    assert rig.faults.steps == []
    knowing: LTMCache[Any] = LTMCache(rig.ltm, allowed_types=[Point])
    await knowing.aset({(NAMESPACE, "k"): (Point(1, 2), None)})
    assert await knowing.aget([(NAMESPACE, "k")]) == {(NAMESPACE, "k"): Point(1, 2)}
    assert await cache.aget([(NAMESPACE, "k")]) == {}


async def test_what_cannot_be_encoded_is_refused(cache: LTMCache[Any]) -> None:
    with pytest.raises(InvalidEntryError, match="cannot be encoded"):
        await cache.aset({(NAMESPACE, "k"): (object(), None)})


class Touched:
    """Leaves a file when it is made from data."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (pathlib.Path("touched"),)


def forged() -> dict[str, Any]:
    run = ormsgpack.packb(("os", "mkdir", "touched"))
    method = ormsgpack.packb(("pathlib", "Path", "touched", "touch"))
    lc2 = b'{"lc":2,"type":"constructor","id":["os","mkdir"],"args":["touched"]}'
    known = b'{"lc":1,"type":"constructor","id":["langchain","schema","messages","AIMessage"]}'
    encoded = {
        "pickle": ("pickle", pickle.dumps(Touched())),
        "a call": ("msgpack", ormsgpack.packb(ormsgpack.Ext(0, run))),
        "a method": ("msgpack", ormsgpack.packb(ormsgpack.Ext(3, method))),
        "json": ("json", lc2),
        "known json": ("json", known),
        "no msgpack": ("msgpack", b"\xc1"),
    }
    kept: dict[str, Any] = {
        name: {"encoding": encoding, "data": base64.b64encode(data).decode()}
        for name, (encoding, data) in encoded.items()
    }
    return kept | {
        "no base64": {"encoding": "bytes", "data": "?"},
        "no text": {"encoding": "bytes", "data": 7},
        "a list": {"encoding": ["bytes"], "data": ""},
        "no object": 7,
    }


@pytest.mark.parametrize("name", forged())
async def test_nothing_is_made_of_a_forged_entry(
    rig: Rig,
    cache: LTMCache[Any],
    name: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    await cache.aset({(NAMESPACE, "k"): (1, None)})
    (entry,) = (await rig.ltm.list_entries("langgraph/cache/")).entries
    await rig.ltm.store(entry.key, forged()[name])
    before = os.listdir(tmp_path)
    assert await cache.aget([(NAMESPACE, "k")]) == {}
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("mode", ["degrade", "raise"])
async def test_a_store_that_fails_is_a_miss(tmp_path: pathlib.Path, mode: str) -> None:
    rig = make_rig("memory+memory", tmp_path, on_unavailable=mode)
    cache: LTMCache[Any] = LTMCache(rig.ltm)
    await cache.aset({(NAMESPACE, "k"): (1, None)})
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    assert await cache.aget([(NAMESPACE, "k")]) == {}
    await cache.aset({(NAMESPACE, "k"): (2, None)})
    with pytest.raises(UnavailableError):
        await cache.aclear()
    await rig.aclose()


def test_the_blocking_methods_do_the_same(tmp_path: pathlib.Path) -> None:
    cache: LTMCache[Any] = LTMCache(LTMBackend(f"sqlite:///{tmp_path}/ltm.db", "memory:"))
    cache.set({(NAMESPACE, "k"): (1, 60)})
    assert cache.get([(NAMESPACE, "k")]) == {(NAMESPACE, "k"): 1}
    cache.clear([NAMESPACE])
    assert cache.get([(NAMESPACE, "k")]) == {}


async def test_a_blocking_call_on_the_loops_own_thread_is_refused(cache: LTMCache[Any]) -> None:
    for call in (lambda: cache.get([(NAMESPACE, "k")]), lambda: cache.set({}), cache.clear):
        with pytest.raises(BlockingCallError, match="await"):
            call()
