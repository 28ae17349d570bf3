"""The actions in a registry, as an agent that is written as YAML calls them."""

from __future__ import annotations

import hashlib
import inspect
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from ltm_async import LTMBackend, SyncLTMBackend, register_actions
from ltm_async.errors import ConfigError, InvalidEntryError

NAMES = {
    "cache.wrap",
    "cache.get",
    "cache.invalidate",
    "storage.hash",
    "ltm.store",
    "ltm.retrieve",
    "ltm.delete",
    "ltm.search",
}
STATE = {"user": "anna"}
Registry = dict[str, Callable[..., Any]]


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """The same guard as elsewhere; the wait of a blocking call is what is wanted here."""
    with blockbuster_ctx("ltm_async", excluded_modules=["ltm_async.testing"]) as guard:
        guard.functions["os.path.abspath"].can_block_in("ltm_async/blobs/local.py", {"__init__"})
        guard.functions["threading.Lock.acquire"].can_block_in("ltm_async/portal.py", {"run"})
        yield


@pytest.fixture
def ltm(tmp_path: pathlib.Path) -> LTMBackend:
    return LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", index_text=True)


@pytest.fixture
def registry(ltm: LTMBackend) -> Registry:
    registry: Registry = {}
    register_actions(registry, ltm)
    return registry


def test_every_action_is_there_under_both_its_names(registry: Registry) -> None:
    twins = {"actions." + name.replace(".", "_") for name in NAMES}
    assert registry.keys() == NAMES | twins
    for name in NAMES:
        action = registry[name]
        assert action is registry["actions." + name.replace(".", "_")]
        assert inspect.iscoroutinefunction(action)
        assert next(iter(inspect.signature(action).parameters)) == "state"


async def test_a_wrapped_action_is_a_name_in_the_registry(registry: Registry) -> None:
    runs: list[Any] = []

    def summarize(state: dict[str, Any], text: str) -> dict[str, Any]:
        runs.append((state, text))
        return {"success": True, "summary": text[:3]}

    registry["llm.summarize"] = summarize  # after the others, as an engine may
    for hit in (False, True):
        told = await registry["cache.wrap"](
            state=STATE, action="llm.summarize", args={"text": "long"}, ttl_hours=1
        )
        assert (told["summary"], told["_cache_hit"]) == ("lon", hit)
        assert told["_cache_key"] == 'cache:llm.summarize:{"text":"long"}'
    assert runs == [(STATE, "long")]


async def test_the_state_does_not_count_for_the_key(registry: Registry) -> None:
    async def ask(state: dict[str, Any]) -> str:
        return str(state["user"])

    registry["ask"] = ask
    for user in ("anna", "bert"):
        told = await registry["actions.cache_wrap"]({"user": user}, "ask", code_version=True)
        assert told["result"] == "anna"


async def test_an_action_may_wrap_another_cached_one(registry: Registry) -> None:
    async def outer(state: Any) -> dict[str, Any]:
        return {"inner": await registry["cache.wrap"](state, "inner")}

    async def inner(state: Any) -> int:
        return 1

    registry["outer"], registry["inner"] = outer, inner
    assert (await registry["cache.wrap"](STATE, "outer"))["inner"]["result"] == 1


async def test_what_is_wrong_with_a_wrapping_is_raised(registry: Registry) -> None:
    async def fails(state: Any) -> None:
        raise KeyError("k")

    registry["fails"] = fails
    with pytest.raises(KeyError):
        await registry["cache.wrap"](STATE, "fails")
    with pytest.raises(ConfigError, match="there is no action 'fail', did you mean 'fails'"):
        await registry["cache.wrap"](STATE, "fail")
    with pytest.raises(ConfigError, match="no option 'ttl_minutes'"):
        await registry["cache.wrap"](STATE, "fails", ttl_minutes=5)
    with pytest.raises(InvalidEntryError, match="argument 'a' has a set"):
        await registry["cache.wrap"](STATE, "fails", {"a": {1}})


async def test_results_are_looked_at_and_invalidated(registry: Registry) -> None:
    async def find(state: Any, n: int) -> int:
        return n

    registry["find"] = find
    keys = [
        (await registry["cache.wrap"](STATE, "find", {"n": n}, metadata={"n": n}))["_cache_key"]
        for n in range(4)
    ]
    entry = await registry["cache.get"](STATE, keys[0])
    assert (entry["success"], entry["found"], entry["value"]) == (True, True, 0)
    invalidate = registry["cache.invalidate"]
    assert (await invalidate(STATE, key=keys[0]))["deleted"] == 1
    assert (await invalidate(STATE, metadata_filter={"n": 1}))["deleted"] == 1
    assert (await invalidate(STATE, pattern="cache:find:*"))["deleted"] == 2
    assert not (await registry["cache.get"](STATE, key=keys[3]))["found"]


async def test_the_memory_s_own_actions(registry: Registry) -> None:
    stored = await registry["ltm.store"](STATE, key="k", value={"a": 1}, metadata={"m": 1}, ttl=60)
    assert (stored["success"], stored["stored"], stored["key"]) == (True, True, "k")
    assert stored["expires_at"] is not None
    hit = await registry["ltm.retrieve"](STATE, key="k", default=5)
    assert (hit["found"], hit["value"], hit["metadata"]) == (True, {"a": 1}, {"m": 1})
    assert (await registry["ltm.delete"](STATE, key="k"))["deleted"] is True
    gone = await registry["ltm.retrieve"](STATE, key="k", default=5)
    assert (gone["success"], gone["found"], gone["value"]) == (True, False, 5)


async def test_the_memory_is_searched(registry: Registry) -> None:
    for key, text in (("a", "green tea"), ("b", "black tea"), ("c", "coffee")):
        await registry["ltm.store"](STATE, key, {"text": text}, metadata={"kind": key})
    found = await registry["ltm.search"](STATE, query="tea", limit=1)
    assert (found["success"], found["total"], len(found["results"])) == (True, 2, 1)
    found = await registry["ltm.search"](STATE, "tea", metadata_filter={"kind": "b"})
    assert [hit["key"] for hit in found["results"]] == ["b"]


async def test_a_file_is_hashed(registry: Registry, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"tea")
    assert await registry["storage.hash"](STATE, path=str(tmp_path / "file")) == {
        "success": True,
        "path": str(tmp_path / "file"),
        "hash": f"sha256:{hashlib.sha256(b'tea').hexdigest()}",
        "byte_size": 3,
    }


@pytest.mark.parametrize(
    ("name", "arguments", "error_type"),
    [
        ("ltm.store", {"key": "", "value": 1}, "InvalidEntryError"),
        ("ltm.store", {"key": "k", "value": {1}}, "InvalidEntryError"),
        ("ltm.retrieve", {"key": "a\0b"}, "InvalidEntryError"),
        ("ltm.delete", {"key": 5}, "InvalidEntryError"),
        ("ltm.search", {"query": ""}, "InvalidEntryError"),
        ("cache.get", {"key": ""}, "InvalidEntryError"),
        ("cache.invalidate", {}, "InvalidEntryError"),
        ("storage.hash", {"path": "/nothing/here"}, "InvalidEntryError"),
    ],
)
async def test_an_error_is_reported_as_a_dict(
    registry: Registry, name: str, arguments: dict[str, Any], error_type: str
) -> None:
    told = await registry[name](STATE, **arguments)
    assert (told["success"], told["error_type"]) == (False, error_type)
    assert told["error"]


def test_over_a_blocking_backend_the_actions_are_plain(tmp_path: pathlib.Path) -> None:
    registry: Registry = {}
    runs: list[str] = []

    def shout(state: Any, word: str) -> dict[str, str]:
        runs.append(word)
        return {"word": word.upper()}

    with SyncLTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs") as ltm:
        register_actions(registry, ltm)
        registry["shout"] = shout
        for name in NAMES:
            assert not inspect.iscoroutinefunction(registry[name])
            assert next(iter(inspect.signature(registry[name]).parameters)) == "state"
        told = [registry["cache.wrap"](STATE, "shout", {"word": "tea"}) for _ in range(2)]
        assert [(one["word"], one["_cache_hit"]) for one in told] == [
            ("TEA", False),
            ("TEA", True),
        ]
        assert runs == ["tea"]
        assert registry["ltm.store"](STATE, "k", 1)["stored"]
        assert registry["ltm.retrieve"](STATE, "k")["value"] == 1
        assert registry["cache.invalidate"](STATE, pattern="*")["deleted"] == 1
        assert registry["ltm.delete"](STATE, "nothing")["deleted"] is False


def test_options_are_those_of_the_cache(ltm: LTMBackend) -> None:
    with pytest.raises(ConfigError, match="ttl is 0 s"):
        register_actions({}, ltm, ttl=0)
    with pytest.raises(ConfigError, match="no place for what defer would take"):
        register_actions({}, SyncLTMBackend("memory:", "memory:"), defer=print)
