"""The filter language: what it means, what it refuses, and listings that use it."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async import InvalidEntryError
from ltm_async.filters import may_match, parse_filter
from ltm_async.listing import MAX_EXAMINED
from ltm_async.protocols import Page

from .backends import PAIRS, Rig, make_rig
from .corpus import INJECTIONS

NOTE: dict[str, Any] = {
    "kind": "note",
    "n": 3,
    "half": 0.5,
    "done": False,
    "nothing": None,
    "tags": ["a", {"b": 1}],
    "where": {"city": "Köln", "a.b": {"$x": 1}},
    "a.b": "dotted",
    "$x": 7,
    "": "empty name",
}

HOLDS: dict[str, dict[str, Any]] = {
    "everything": {},
    "a value by itself": {"kind": "note"},
    "null that is there": {"nothing": None},
    "an object in any order": {"where": {"a.b": {"$x": 1}, "city": "Köln"}},
    "a list": {"tags": ["a", {"b": 1}]},
    "numbers whatever their type": {"n": 3.0},
    "an empty name": {"": "empty name"},
    "a dot in a name": {"a.b": "dotted"},
    "a path": {"$path": ["where", "city"], "$eq": "Köln"},
    "a path to names of any kind": {"$path": ["where", "a.b", "$x"], "$lt": 2},
    "a name that begins with $": {"$path": ["$x"], "$gte": 7, "$lte": 7},
    "all members": {"kind": "note", "n": {"$gt": 2, "$lt": 4}},
    "in": {"n": {"$in": [1, None, 3.0]}},
    "in, with null": {"nothing": {"$in": [None]}},
    "in, with objects": {"tags": {"$in": [[], ["a", {"b": 1.0}]]}},
    "ne": {"kind": {"$ne": "task"}},
    "ne where there is none": {"absent": {"$ne": 1}},
    "ne of another type": {"n": {"$ne": "3"}},
    "exists": {"nothing": {"$exists": True}},
    "does not exist": {"absent": {"$exists": False}},
    "text by code points": {"kind": {"$gt": "Zebra", "$lt": "ö"}},
    "a fraction": {"half": {"$gt": 0.49999999999999994, "$lt": 1}},
    "a huge integer": {"n": {"$lt": 10**400, "$gt": -(10**400)}},
    "and": {"$and": [{"n": 3}, {"kind": "note"}]},
    "or": {"$or": [{"n": 4}, {"kind": "note"}]},
    "not": {"$not": {"n": 4}},
    "not of nothing there": {"$not": {"absent": {"$gt": 0}}},
    "joins beside members": {"kind": "note", "$or": [{"n": 3}, {"n": 4}], "$not": {"done": True}},
}

FAILS: dict[str, dict[str, Any]] = {
    "another value": {"kind": "task"},
    "true is not 1": {"done": 0},
    "1 is not true": {"n": {"$in": [True, "3"]}},
    "null is not absence": {"absent": None},
    "null is no number": {"nothing": {"$lt": 1}},
    "a truth value is not ordered": {"done": {"$lt": 1}},
    "text and numbers do not compare": {"n": {"$gt": "0"}},
    "a dot is no path": {"where.city": "Köln"},
    "a path does not enter a list": {"$path": ["tags", "0"], "$exists": True},
    "a path does not enter text": {"$path": ["kind", "0"], "$exists": True},
    "a part of an object": {"where": {"city": "Köln"}},
    "a part of a list": {"tags": ["a"]},
    "one of two": {"n": {"$gt": 2, "$lt": 3}},
    "in nothing": {"n": {"$in": []}},
    "not equal, and it is": {"kind": {"$ne": "note"}},
    "one of two in a list": {"$and": [{"n": 3}, {"kind": "task"}]},
    "neither": {"$or": [{"n": 4}, {"kind": "task"}]},
    "not": {"$not": {"$or": [{"n": 3}, {"kind": "task"}]}},
}


@pytest.mark.parametrize("given", HOLDS.values(), ids=HOLDS)
def test_a_filter_holds(given: dict[str, Any]) -> None:
    assert parse_filter(given).matches(NOTE)
    assert not parse_filter({"$not": given}).matches(NOTE)


@pytest.mark.parametrize("given", FAILS.values(), ids=FAILS)
def test_a_filter_does_not_hold(given: dict[str, Any]) -> None:
    assert not parse_filter(given).matches(NOTE)
    assert parse_filter({"$not": given}).matches(NOTE)


def nested(levels: int) -> dict[str, Any]:
    return {"$not": nested(levels - 1)} if levels else {"a": 1}


def joined(levels: int) -> dict[str, Any]:
    return {"$and": [joined(levels - 1)]} if levels else {"a": 1}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "must be a mapping, not NoneType"),
        ([], "must be a mapping, not list"),
        ({1: 2}, "a dict key that is not str"),
        ({"a": {1, 2}}, "has a set"),
        ({"a": float("nan")}, "NaN"),
        ({"a": {"$near": 1}}, r"there is no operator '\$near'; there are \$eq, \$ne"),
        ({"a": {"$eq": 1, "b": 2}}, "there is no operator 'b'"),
        ({"$eq": 1}, r"'\$eq' cannot stand here, where \$and, \$or, \$not, \$path and names"),
        ({"$not": {"$not": 1}}, "must hold filters, not int"),
        ({"a": {"$gt": None}}, r"\$gt needs a number or text"),
        ({"a": {"$lt": True}}, r"\$lt needs a number or text"),
        ({"a": {"$in": "text"}}, r"\$in needs a list"),
        ({"a": {"$in": [0] * 1001}}, "at most 1000 values"),
        ({"a": {"$exists": 1}}, r"\$exists needs true or false"),
        ({"$and": {}}, r"\$and needs a list of at least one filter"),
        ({"$or": []}, r"\$or needs a list of at least one filter"),
        ({"$or": [1]}, "must hold filters, not int"),
        ({"$not": [{"a": 1}]}, "must hold filters, not list"),
        ({"$path": "a", "$eq": 1}, r"\$path needs a list of 1 to 32 names"),
        ({"$path": [], "$eq": 1}, r"\$path needs a list of 1 to 32 names"),
        ({"$path": ["a"] * 33, "$eq": 1}, r"\$path needs a list of 1 to 32 names"),
        ({"$path": ["a", 1], "$eq": 1}, "names, which are str"),
        ({"$path": ["a"]}, "needs an operator beside it"),
        ({"$path": ["a"], "b": 1}, "there is no operator 'b'"),
        ({"a": "x" * 16_384}, "the limit is 16384"),
        ({"a\0b": 1}, "NUL"),
        ({"a": {"$in": ["\ud800"]}}, "lone surrogate"),
        ({"$and": [{"a": 1}] * 101}, "has 101 conditions, the limit is 100"),
        ({"$not": {"$and": [{"a": 1}] * 101}}, "has 101 conditions, the limit is 100"),
        (nested(10), "nested deeper than 10 levels"),
        (joined(10), "nested deeper than 10 levels"),
    ],
)
def test_what_is_no_filter_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidEntryError, match=words) as caught:
        parse_filter(given, "where")
    assert str(caught.value).startswith("where")


def test_the_limits_themselves_are_allowed() -> None:
    assert parse_filter({"$and": [{"n": 3}] * 100}).matches(NOTE)
    assert parse_filter({"n": {"$in": [0] * 999 + [3]}}).matches(NOTE)
    assert not parse_filter(nested(9)).matches({"a": 1})
    assert parse_filter({"$path": ["a"] * 32, "$exists": False}).matches({})
    assert parse_filter({"a": deep(450)}).matches({"a": deep(450)})
    parse_filter(joined(9))


def test_stored_metadata_may_match_where_it_does_or_cannot_be_read() -> None:
    wanted = parse_filter({"n": 3})
    assert [may_match(wanted, text) for text in ('{"n":3}', '{"n":4}')] == [True, False]
    assert all(may_match(wanted, text) for text in ("no JSON", "[3]"))
    assert may_match(None, '{"n":4}')


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path)
    yield rig
    await rig.aclose()


async def keys_where(rig: Rig, given: dict[str, Any], **options: Any) -> list[str]:
    """What a listing gives, page by page."""
    keys: list[str] = []
    cursor = None
    while True:
        page = await rig.ltm.list_entries(metadata_filter=given, cursor=cursor, **options)
        keys += [entry.key for entry in page.entries]
        if (cursor := page.cursor) is None:
            return keys


async def test_every_catalog_agrees_on_what_a_filter_means(rig: Rig) -> None:
    others: list[dict[str, Any]] = [
        {},
        {"n": 4, "kind": "task"},
        {"n": "3"},
        {"half": 0.1 + 0.2},
        {"n": 2**70},
    ]
    kept = [NOTE, *others]
    await rig.ltm.store_batch(
        {"key": f"k{place}", "value": place, "metadata": metadata}
        for place, metadata in enumerate(kept)
    )
    more: list[dict[str, Any]] = [
        {"half": {"$gt": 0.3}},
        {"half": {"$lte": 0.3}},
        {"half": 0.30000000000000004},
        {"n": 2**70},
        {"n": {"$gt": 2**70 - 1}},
        {"n": {"$ne": 3}},
    ]
    filters = [*HOLDS.values(), *FAILS.values(), *more]
    for given in [*filters, *({"$not": given} for given in filters)]:
        parsed = parse_filter(given)
        wanted = [f"k{place}" for place, known in enumerate(kept) if parsed.matches(known)]
        assert await keys_where(rig, given) == wanted, given
        assert await keys_where(rig, given, limit=1) == wanted, given


async def test_injections_as_names_and_values_find_what_has_them_and_nothing_else(rig: Rig) -> None:
    texts = [text for text in INJECTIONS if "\0" not in text and text.isprintable()]
    await rig.ltm.store("plain", 1, metadata={"owner": "eve"})
    await rig.ltm.store_batch(
        {"key": f"k{place:03}", "value": 1, "metadata": {text: text}}
        for place, text in enumerate(texts)
    )
    for place, text in enumerate(texts):
        same = [f"k{other:03}" for other, name in enumerate(texts) if name == text]
        assert f"k{place:03}" in same
        for condition in ({"$eq": text}, {"$in": [text]}, {"$exists": True}, {"$gte": text}):
            assert await keys_where(rig, {"$path": [text], **condition}) == same
        assert await keys_where(rig, {"$path": ["owner", text], "$exists": True}) == []


async def test_a_call_looks_at_a_bounded_number_of_rows_and_says_where_to_go_on() -> None:
    rig = make_rig("memory+memory", pathlib.Path())
    await rig.ltm.store_batch(
        {"key": f"{place:06}", "value": place, "metadata": {"n": place % 15_000}}
        for place in range(30_000)
    )
    page = await rig.ltm.list_entries(metadata_filter={"n": 14_999}, limit=5)
    assert (page.entries, page.success) == ([], True)
    assert int(page.cursor or "") + 1 == MAX_EXAMINED
    assert await keys_where(rig, {"n": 14_999}, limit=5) == ["014999", "029999"]
    await rig.aclose()


@pytest.mark.parametrize(
    ("pair", "entries", "calls", "rows"),
    [
        ("postgres+local", 5_000, 1, 10),
        ("supabase+local", 5_000, 1, 10),
        ("sqlite+local", 5_000, 6, 10),  # of 1,000 rows each, so that others get their turn
        ("memory+memory", 5_000, 8, 5_000),
        ("firestore+gcs", 1_000, 4, 10),  # all of which it reads
    ],
)
async def test_a_filter_on_few_of_many_moves_only_what_it_lets_through(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    pair: str,
    entries: int,
    calls: int,
    rows: int,
) -> None:
    """But for a catalog that leaves it to the caller, as one may."""
    rig = make_rig(pair, tmp_path)
    stored = await rig.ltm.store_batch(
        {"key": f"{place:06}", "value": 1, "metadata": {"n": place % (entries // 10)}}
        for place in range(entries)
    )
    assert stored.stored == entries
    pages: list[Page] = []
    real = rig.catalog.filter_entries

    async def filter_entries(*args: Any, **options: Any) -> Page:
        pages.append(await real(*args, **options))
        return pages[-1]

    monkeypatch.setattr(rig.catalog, "filter_entries", filter_entries)
    rig.faults.steps.clear()
    page = await rig.ltm.list_entries(metadata_filter={"n": 7})
    assert ([int(entry.key) % (entries // 10) for entry in page.entries], page.cursor) == (
        [7] * 10,
        None,
    )
    assert rig.faults.steps == ["catalog.filter_entries"] * calls
    assert sum(len(page.rows) for page in pages) == rows
    assert sum(page.examined for page in pages) == entries
    await rig.aclose()
