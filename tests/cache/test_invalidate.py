"""Looking at cached results, and deleting them by key, by pattern and by metadata."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ltm_async import InvalidEntryError, UnavailableError
from ltm_async.cache.invalidating import matcher

from .rigs import Action, CacheRig, make_cache_rig


async def keys_of(caching: CacheRig) -> list[str]:
    return [entry.key for entry in (await caching.rig.ltm.list_entries(limit=1000)).entries]


async def fill(caching: CacheRig) -> None:
    """Three users' results, and a memory that is no result."""
    for user in ("anna", "anton", "bert"):
        await caching.cache.wrap(
            Action().run,
            {"user": user},
            name=f"find.{user}",
            metadata={"user": user, "team": user[0]},
        )
    await caching.rig.ltm.store("cache:find.anna:mine", "kept", metadata={"user": "anna"})


async def test_get_tells_all_about_a_result_and_runs_nothing(caching: CacheRig) -> None:
    told = await caching.cache.wrap(
        Action().run, {"a": 1}, name="find", metadata={"m": 1}, ttl_seconds=9
    )
    entry = await caching.cache.get(told["_cache_key"])
    hit = await caching.rig.ltm.retrieve(told["_cache_key"])
    assert entry.to_dict() == {
        "success": True,
        "found": True,
        "key": told["_cache_key"],
        "value": {"run": 1},
        "action": "find",
        "created_at": told["_cache_created_at"],
        "expires_at": hit.expires_at,
        "metadata": {"m": 1},
        "failure": None,
        "degraded": False,
        "error": None,
        "error_type": None,
    }


async def test_get_tells_what_is_missing_expired_or_remembered_as_a_failure(
    caching: CacheRig,
) -> None:
    assert not (await caching.cache.get("nothing")).found
    action = Action()
    action.failure = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        await caching.cache.wrap(action.run, key="k", error_ttl=5)
    failure = (await caching.cache.get("k")).failure
    assert failure == ("broken", "RuntimeError")
    caching.advance(6)
    assert not (await caching.cache.get("k")).found
    with pytest.raises(InvalidEntryError):
        await caching.cache.get("")


async def test_a_key_is_invalidated(on_every_pair: CacheRig) -> None:
    action = Action(lambda run: {"run": run, "text": "x" * 5_000})
    told = await on_every_pair.cache.wrap(action.run)
    for deleted in (1, 0):
        done = await on_every_pair.cache.invalidate(told["_cache_key"])
        assert (done.success, done.deleted, done.errors) == (True, deleted, {})
    assert await on_every_pair.rig.objects() == set()
    assert (await on_every_pair.cache.wrap(action.run))["run"] == 2


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("cache:find.an*", ["find.bert"]),
        ("cache:find.????:*", ["find.anton"]),
        ("*bert*", ["find.anna", "find.anton"]),
        ("cache:find.anna", ["find.anna", "find.anton", "find.bert"]),
        ("*", []),
    ],
)
async def test_a_pattern_invalidates_results_and_nothing_else(
    on_every_pair: CacheRig, pattern: str, left: list[str]
) -> None:
    await fill(on_every_pair)
    done = await on_every_pair.cache.invalidate(pattern=pattern)
    assert done.deleted == 3 - len(left)
    assert await keys_of(on_every_pair) == sorted(
        ["cache:find.anna:mine", *(f'cache:{name}:{{"user":"{name[5:]}"}}' for name in left)]
    )


async def test_metadata_invalidates_results_and_nothing_else(on_every_pair: CacheRig) -> None:
    await fill(on_every_pair)
    for metadata_filter, deleted in (
        ({"user": "anna"}, 1),
        ({"team": {"$in": ["a", "c"]}}, 1),
        ({"_cache_action": "find.bert"}, 1),
        ({"user": "anna"}, 0),
    ):
        done = await on_every_pair.cache.invalidate(metadata_filter=metadata_filter)
        assert done.deleted == deleted
    assert await keys_of(on_every_pair) == ["cache:find.anna:mine"]


async def test_every_page_is_invalidated(
    caching: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltm_async.cache.invalidating.PAGE", 7)
    for number in range(30):
        await caching.cache.wrap(Action().run, {"n": number}, name="find", lease=None)
    assert (await caching.cache.invalidate(pattern="cache:find:*")).deleted == 30
    assert await keys_of(caching) == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "k", "pattern": "*"},
        {"pattern": "*", "metadata_filter": {"a": 1}},
        {"key": ""},
        {"pattern": ""},
        {"pattern": "x" * 1025},
        {"pattern": "a\0*"},
        {"pattern": 5},
        {"metadata_filter": {}},
        {"metadata_filter": {"a": {"$regex": "x"}}},
        {"metadata_filter": [1]},
    ],
)
async def test_bad_input_is_refused_before_anything_is_sent(
    caching: CacheRig, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidEntryError):
        await caching.cache.invalidate(**options)
    assert caching.steps == []


async def test_what_could_not_be_invalidated_is_said(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caching = make_cache_rig("memory+memory", tmp_path, monkeypatch, on_unavailable="degrade")
    await fill(caching)
    caching.go_down()
    for options in ({"key": "k"}, {"pattern": "*"}, {"metadata_filter": {"a": 1}}):
        done = await caching.cache.invalidate(**options)
        assert (done.success, done.deleted, done.error_type) == (False, 0, "UnavailableError")
    caching.rig.faults.at = len(caching.steps) + 1  # the listing is answered, the delete is not
    done = await caching.cache.invalidate(pattern="*")
    assert (done.success, done.deleted, len(done.errors)) == (False, 0, 3)
    await caching.rig.aclose()


async def test_a_memory_that_raises_raises(caching: CacheRig) -> None:
    caching.go_down()
    with pytest.raises(UnavailableError):
        await caching.cache.invalidate("k")
    with pytest.raises(UnavailableError):
        await caching.cache.invalidate(pattern="*")


# Patterns


def likes(pattern: str, key: str) -> bool:
    """The meaning of a pattern, told as simply as can be."""
    if not pattern:
        return not key
    if pattern[0] == "*":
        return any(likes(pattern[1:], key[cut:]) for cut in range(len(key) + 1))
    return bool(key) and pattern[0] in {key[0], "?"} and likes(pattern[1:], key[1:])


def test_every_short_pattern_matches_what_it_means() -> None:
    keys = ["".join(key) for size in range(6) for key in itertools.product("ab", repeat=size)]
    patterns = [
        "".join(one) for size in range(1, 5) for one in itertools.product("ab*?", repeat=size)
    ]
    for pattern in patterns:
        matches = matcher(pattern)
        assert [key for key in keys if matches(key)] == [
            key for key in keys if likes(pattern, key)
        ], pattern


@pytest.mark.parametrize(
    ("pattern", "key"),
    [("[a]", "[a]"), ("a.c", "a.c"), ("a*", "a\nb"), ("?", "é"), ("\\?", "\\x"), ("{n}*", "{n}1")],
)
def test_only_stars_and_question_marks_are_special(pattern: str, key: str) -> None:
    assert matcher(pattern)(key)


def test_other_signs_stand_for_themselves() -> None:
    assert not matcher("a.c")("abc")
    assert not matcher("[ab]*")("a")


def test_no_pattern_takes_long() -> None:
    """It would not end if each star were tried at every place."""
    assert not matcher("*a" * 300 + "b")("a" * 1024)
