"""Functions that are cached by a decorator: async and plain, with the signature they had."""

from __future__ import annotations

import asyncio
import inspect
import pathlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from ltm_async import BlockingCallError, InvalidEntryError, LTMBackend, SyncLTMBackend
from ltm_async.cache import Cache, SyncCache
from ltm_async.errors import ConfigError

from .rigs import CacheRig


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """The same guard as elsewhere; the wait of a blocking call is what is wanted here."""
    with blockbuster_ctx("ltm_async", excluded_modules=["ltm_async.testing"]) as guard:
        guard.functions["os.path.abspath"].can_block_in("ltm_async/blobs/local.py", {"__init__"})
        guard.functions["threading.Lock.acquire"].can_block_in("ltm_async/portal.py", {"run"})
        yield


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs"))


# Async functions


async def test_an_async_function_is_cached_by_its_arguments(caching: CacheRig) -> None:
    runs: list[tuple[Any, ...]] = []

    @caching.cache.cached(ttl=60)
    async def find(word: str, *rest: int, limit: int = 3, **more: int) -> list[Any]:
        """Finds."""
        runs.append((word, rest, limit, more))
        return [word, limit]

    assert await find("tea") == ["tea", 3]
    assert await find(word="tea", limit=3) == ["tea", 3]
    assert await find("tea", 1, 2, limit=4, x=5) == ["tea", 4]
    assert await find("tea", 1, 2, limit=4, x=5) == ["tea", 4]
    assert runs == [("tea", (), 3, {}), ("tea", (1, 2), 4, {"x": 5})]
    key = await caching.cache.key(find, "tea", 1, 2, limit=4, x=5)
    assert key.endswith('.find:{"limit":4,"rest":[1,2],"word":"tea","x":5}')
    assert (await caching.cache.get(key)).value == ["tea", 4]


async def test_a_function_keeps_its_name_its_text_and_its_signature(caching: CacheRig) -> None:
    async def find(word: str, limit: int = 3) -> str:
        """Finds."""
        return word * limit

    cached = caching.cache.cached()(find)
    assert inspect.iscoroutinefunction(cached)
    assert (cached.__name__, cached.__doc__) == ("find", "Finds.")
    assert inspect.signature(cached) == inspect.signature(find)


async def test_wrong_arguments_are_a_type_error_as_ever(caching: CacheRig) -> None:
    @caching.cache.cached()
    async def find(word: str) -> str:
        return word

    with pytest.raises(TypeError, match="missing a required argument: 'word'"):
        await find()  # type: ignore[call-arg]
    assert caching.steps == []


async def test_a_method_s_self_is_ignored_or_makes_the_key(caching: CacheRig) -> None:
    class Client:
        def __init__(self, user: str) -> None:
            self.user = user
            self.runs = 0

        @caching.cache.cached(ignore=["self"])
        async def shared(self, word: str) -> int:
            self.runs += 1
            return self.runs

        @caching.cache.cached(key=lambda self, word: f"{self.user}/{word}")
        async def own(self, word: str) -> int:
            self.runs += 1
            return self.runs

        @caching.cache.cached()
        async def neither(self) -> None: ...

    anna, bert = Client("anna"), Client("bert")
    assert [await client.shared("tea") for client in (anna, bert)] == [1, 1]
    assert [await client.own("tea") for client in (anna, bert, bert)] == [2, 1, 1]
    with pytest.raises(InvalidEntryError, match="argument 'self' has a Client"):
        await anna.neither()


async def test_fifty_calls_run_the_function_once(caching: CacheRig) -> None:
    runs = []

    @caching.cache.cached(ttl=60)
    async def find(n: int) -> int:
        runs.append(n)
        await asyncio.sleep(0)
        return n

    assert await asyncio.gather(*(find(7) for _ in range(50))) == [7] * 50
    assert runs == [7]


async def test_a_function_of_a_file_is_cached_by_its_content(
    caching: CacheRig, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "file"
    runs = []

    @caching.cache.cached(key_strategy="file_content", key_source="path")
    async def words(path: pathlib.Path) -> int:
        runs.append(path)
        return len(path.name)

    for text in ("a b", "a b", "c"):
        file.write_text(text)
        assert await words(file) == 4
    assert len(runs) == 2


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_a_generator_cannot_be_cached(cache: Cache, kind: str) -> None:
    def plain() -> Iterator[int]:
        yield 1

    async def of_async() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ConfigError, match="a generator has no result"):
        cache.cached()(plain if kind == "generator" else of_async)


def test_bad_options_are_refused_when_decorating(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="ttl is 0 s"):
        cache.cached(ttl=0)
    with pytest.raises(InvalidEntryError, match="metadata has a set"):
        cache.cached(metadata={"a": {1}})
    with pytest.raises(ConfigError, match="pass name="):
        cache.cached()(lambda: 1)
    with pytest.raises(ConfigError, match="needs a signature"):
        cache.cached(name="int")(int)


async def test_only_a_decorated_function_has_keys(caching: CacheRig) -> None:
    with pytest.raises(ConfigError, match="one that cached"):
        await caching.cache.key(len, "x")


# Plain functions


def test_a_plain_function_stays_plain_and_is_cached(cache: Cache) -> None:
    runs: list[str] = []

    @cache.cached(ttl=60)
    def find(word: str, limit: int = 3) -> str:
        """Finds."""
        runs.append(threading.current_thread().name)
        return word * limit

    assert [find("a"), find(word="a", limit=3), find("b")] == ["aaa", "aaa", "bbb"]
    assert runs == ["ltm-action"] * 2
    assert not inspect.iscoroutinefunction(find)
    assert (find.__name__, find.__doc__) == ("find", "Finds.")


def test_a_plain_function_has_nothing_deferred(tmp_path: pathlib.Path) -> None:
    """What would take it could only be asked in the loop that has ended by then."""
    work: list[Any] = []
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs")
    cache = Cache(ltm, defer=work.append, cleanup_probability=1)

    @cache.cached()
    def find() -> int:
        return 1

    assert find() == 1
    assert work == []


def test_cached_plain_functions_may_call_each_other(cache: Cache) -> None:
    """From the thread of one, the loop is free for the other."""

    @cache.cached()
    def inner(n: int) -> int:
        return n * 2

    @cache.cached()
    def outer(n: int) -> int:
        return inner(n) + inner(n + 1)

    assert [outer(1), outer(1), inner(2)] == [6, 6, 4]


def test_threads_that_call_at_once_run_it_once(cache: Cache) -> None:
    runs = []
    gate = threading.Event()

    @cache.cached()
    def find(n: int) -> int:
        runs.append(n)
        gate.wait(10)
        return n

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(find(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert (found, runs) == ([5] * 8, [5])


def test_a_plain_function_s_exception_is_its_caller_s(cache: Cache) -> None:
    @cache.cached()
    def fails() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        fails()


async def test_a_plain_function_would_stop_a_running_loop(caching: CacheRig) -> None:
    @caching.cache.cached()
    def find() -> int:
        return 1

    with pytest.raises(BlockingCallError, match="make it async"):
        find()


# The blocking cache


def test_the_blocking_cache_gives_plain_dicts(tmp_path: pathlib.Path) -> None:
    runs: list[str] = []

    def find(word: str) -> dict[str, str]:
        runs.append(word)
        return {"found": word}

    async def find_async(word: str) -> dict[str, str]:
        return find(word)

    with SyncLTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs") as ltm:
        cache = SyncCache(ltm, ttl=60)
        for action in (find, find_async):
            told = [cache.wrap(action, {"word": "tea"}, name=action.__name__) for _ in range(2)]
            assert [one["_cache_hit"] for one in told] == [False, True]
            assert told[1]["found"] == "tea"
        assert runs == ["tea", "tea"]
        entry = cache.get(told[0]["_cache_key"])
        assert (entry["success"], entry["found"], entry["value"]) == (True, True, {"found": "tea"})
        assert cache.invalidate(pattern="cache:*")["deleted"] == 2

        @cache.cached()
        def double(n: int) -> int:
            return n * 2

        assert [double(2), double(2)] == [4, 4]


def test_the_blocking_cache_has_the_methods_of_the_async_one() -> None:
    for name in ("wrap", "get", "invalidate"):
        ours, theirs = getattr(SyncCache, name), getattr(Cache, name)
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
        assert ours.__doc__.startswith(inspect.getdoc(theirs))
        assert not inspect.iscoroutinefunction(ours)


def test_the_blocking_cache_refuses_what_it_cannot_do() -> None:
    ltm = SyncLTMBackend("memory:", "memory:")
    with pytest.raises(ConfigError, match="no place for what defer would take"):
        SyncCache(ltm, defer=print)
    with pytest.raises(ConfigError, match="ltm must be a SyncLTMBackend"):
        SyncCache(LTMBackend("memory:", "memory:"))  # type: ignore[arg-type]


async def test_the_blocking_cache_would_stop_a_running_loop_unless_it_may() -> None:
    with pytest.raises(BlockingCallError):
        SyncCache(SyncLTMBackend("memory:", "memory:")).wrap(int, name="int")
    ltm = SyncLTMBackend("memory:", "memory:", allow_blocking=True)
    assert SyncCache(ltm).wrap(int, name="int")["result"] == 0

    @SyncCache(ltm).cached()
    def one() -> int:
        return 1

    assert one() == 1
