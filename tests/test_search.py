"""Searching through a backend: what is found, in which order, and what is refused."""

from __future__ import annotations

import contextlib
import itertools
import math
import pathlib
import random
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async import ConfigError, InvalidEntryError, LTMBackend
from ltm_async.testing.searching import CORPUS, QUERIES
from ltm_async.text import MAX_WORD, MAX_WORDS, parse_query, text_of, words_of

from .backends import PAIRS, Rig, make_rig

WORDS = [
    "tea",
    "coffee",
    "milk",
    "water",
    "green",
    "black",
    "white",
    "hot",
    "cold",
    "cup",
    "leaf",
    "root",
]


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path, index_text=True)
    yield rig
    assert (await rig.ltm.verify()).problems == {}
    await rig.aclose()


async def keys_for(rig: Rig, query: str, **options: Any) -> list[str]:
    return [hit.key for hit in (await rig.ltm.search(query, **options)).results]


def bm25(query: list[str], texts: dict[str, list[str]]) -> list[str]:
    """The keys of *texts* with one of these words, best first, by the formula as in the books."""
    with_any = {key: words for key, words in texts.items() if set(words) & set(query)}
    mean = sum(map(len, with_any.values())) / len(with_any)
    scores = {}
    for key, words in with_any.items():
        score = 0.0
        for word in query:
            having = sum(1 for other in texts.values() if word in other)
            rarity = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            often = words.count(word)
            score += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(words) / mean))
        scores[key] = score
    return sorted(scores, key=lambda key: (-round(scores[key], 9), key))


async def test_the_best_come_first_and_every_catalog_agrees(rig: Rig) -> None:
    source = random.Random(7)
    texts = {
        f"k{number:03}": source.choices(WORDS, range(12, 0, -1), k=source.randint(1, 40))
        for number in range(150)
    }
    await rig.ltm.store_batch(
        {"key": key, "value": {"text": " ".join(words)}} for key, words in texts.items()
    )
    texts = {key: [key, *words] for key, words in texts.items()}
    for query in ("root", "root leaf", "tea", "tea cup root", "k007 white", "hot cold water milk"):
        page = await rig.ltm.search(query, limit=10)
        expected = bm25(query.split(), texts)
        assert [hit.key for hit in page.results] == expected[:10], query
        assert page.total == len(expected)
        assert (page.cursor is None) is (len(expected) <= 10)


@pytest.mark.parametrize("query", ["tea", "gre*", "緑茶", "'; DROP TABLE ltm_entries; --"])
async def test_words_of_all_kinds_are_found_in_values(rig: Rig, query: str) -> None:
    assert query in QUERIES or query == "gre*"
    await rig.ltm.store_batch({"key": key, "value": [text]} for key, text in CORPUS.items())
    sought = {word for term in parse_query(query).terms for word in term.words}
    prefix = query.endswith("*")
    found = await keys_for(rig, query, limit=100)
    for key, text in CORPUS.items():
        words = text_of(key, text).split()
        has = any(word.startswith("gre") for word in words) if prefix else bool({*words} & sought)
        assert has or key not in found
    assert found


async def test_values_are_found_wherever_they_are_kept(rig: Rig) -> None:
    pad = "." * 2_000
    await rig.ltm.store("small", {"a": {"b": ["one", {"c": "tea"}]}, "n": 5, "coffee": None})
    await rig.ltm.store("large", {"text": f"tea {pad} milk"})
    assert set(await keys_for(rig, "tea")) == {"small", "large"}
    assert await keys_for(rig, "milk") == ["large"]
    assert await keys_for(rig, "small") == ["small"]
    assert await keys_for(rig, "coffee") == []  # the name of a member is no text
    await rig.ltm.store("large", {"text": f"tea {pad} milk"}, metadata={"again": True})
    assert await keys_for(rig, "milk", metadata_filter={"again": True}) == ["large"]
    await rig.ltm.store("large", "nothing of it")
    assert await keys_for(rig, "milk") == []
    await rig.ltm.update("small", lambda value: {**value, "more": "milk"})
    assert await keys_for(rig, "milk") == ["small"]
    await rig.ltm.touch("small", ttl=60)
    assert await keys_for(rig, "milk") == ["small"]
    await rig.ltm.delete_batch(["small", "large"])
    assert await keys_for(rig, "milk tea small large") == []


async def test_a_filter_chooses_among_what_was_found(rig: Rig) -> None:
    await rig.ltm.store_batch(
        {
            "key": f"k{n:03}",
            "value": "tea " * (n + 1),
            "metadata": {"n": n, "a.b": n % 3, 'say "so"': n % 2},
        }
        for n in range(40)
    )
    filters: list[tuple[dict[str, Any], Any]] = [
        ({"n": {"$lt": 3}}, lambda n: n < 3),
        ({"$not": {"n": {"$gte": 2.5}}}, lambda n: n < 2.5),
        ({"a.b": {"$in": [0, 1]}, "n": {"$gt": 35}}, lambda n: n % 3 < 2 and n > 35),
        ({"n": {"$exists": False}}, lambda _: False),
        ({'say "so"': 1}, lambda n: n % 2 == 1),
    ]
    for given, holds in filters:
        page = await rig.ltm.search("tea", metadata_filter=given, limit=100)
        assert {hit.key for hit in page.results} == {f"k{n:03}" for n in range(40) if holds(n)}


async def test_pages_of_a_search(rig: Rig) -> None:
    await rig.ltm.store_batch({"key": f"k{n:02}", "value": "tea " * (n + 1)} for n in range(25))
    whole = await keys_for(rig, "tea", limit=100)
    assert len(whole) == 25
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor is not None:
        page = await rig.ltm.search("tea", limit=10, cursor=cursor)
        assert page.total == 25
        pages.append([hit.key for hit in page.results])
        cursor = page.cursor
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [*itertools.chain(*pages)] == whole


async def test_a_hit_shows_what_a_listing_shows_and_its_score(rig: Rig) -> None:
    await rig.ltm.store("k", "tea", metadata={"a": 1}, ttl=60)
    (hit,) = (await rig.ltm.search("tea")).results
    (entry,) = (await rig.ltm.list_entries()).entries
    shown = hit.to_dict()
    assert shown.pop("score") == hit.score > 0
    assert shown == entry.to_dict()
    found = (await rig.ltm.search("tea")).to_dict()
    assert (found["success"], found["total"], found["cursor"]) == (True, 1, None)
    assert found["results"][0]["key"] == "k"


async def test_what_a_backend_without_texts_stores_is_found_no_longer(
    tmp_path: pathlib.Path,
) -> None:
    url = f"sqlite:///{tmp_path}/ltm.db"
    async with LTMBackend(url, tmp_path, index_text=True) as searching:
        await searching.store("a", "tea")
        await searching.store("b", "tea")
        async with LTMBackend(url, tmp_path) as plain:
            with pytest.raises(ConfigError, match="index_text=True"):
                await plain.search("tea")
            await plain.store("a", "tea")
        assert [hit.key for hit in (await searching.search("tea")).results] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"query": ""}, "needs a letter or a digit"),
        ({"query": " ?! "}, "needs a letter or a digit"),
        ({"query": '""'}, "needs a letter or a digit"),
        ({"query": None}, "query must be str, not NoneType"),
        ({"query": b"tea"}, "query must be str, not bytes"),
        ({"query": "a\0b"}, "NUL"),
        ({"query": "\ud800"}, "lone surrogate"),
        ({"query": "ü" * 513}, "query has 1026 bytes in UTF-8, the limit is 1024"),
        ({"query": " ".join(map(str, range(33)))}, "query has 33 words, the limit is 32"),
        ({"query": "a", "limit": 0}, "limit is 0, it must be an int from 1 to 200"),
        ({"query": "a", "limit": 201}, "limit is 201"),
        ({"query": "a", "cursor": "x"}, "cursor is 'x', which no page of a search gave"),
        ({"query": "a", "cursor": "٣"}, "which no page of a search gave"),
        ({"query": "a", "cursor": 5}, "which no page of a search gave"),
        ({"query": "a", "metadata_filter": {"a": {"$near": 1}}}, "no operator"),
        ({"query": "a", "metadata_filter": []}, "metadata_filter must be a mapping"),
    ],
)
async def test_bad_arguments_are_refused_before_anything_is_asked(
    arguments: dict[str, Any], words: str
) -> None:
    rig = make_rig("memory+memory", pathlib.Path(), index_text=True)
    with pytest.raises(InvalidEntryError, match=words):
        await rig.ltm.search(**arguments)
    assert rig.ltm._runner.made is None
    await rig.aclose()


def test_a_query_at_its_limits_is_taken() -> None:
    assert len(parse_query(" ".join(map(str, range(32)))).terms) == 32
    assert len(parse_query("ü" * 512).terms[0].words[0]) == MAX_WORD
    assert len(parse_query(" ".join(["same"] * 100)).terms) == 1


def test_what_a_word_is() -> None:
    assert words_of("Don't PANIC: 42-times,x_y!") == ["don", "t", "panic", "42", "times", "x", "y"]
    assert words_of("Straße ＡＢＣ ﬁne İ") == ["strasse", "abc", "fine", "i"]
    assert words_of("緑茶ティー tea") == [*"緑茶ティー", "tea"]
    assert words_of("e\u0301te\u0301") == words_of("\u00e9t\u00e9") == ["\u00e9t\u00e9"]
    assert words_of("x" * 100) == ["x" * MAX_WORD]
    assert words_of("") == words_of(" \n\t") == []


def test_a_folded_word_is_its_own_folding() -> None:
    """What is folded when it is stored and again when it is sought is the same."""
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            for word in words_of(chr(code)):
                assert words_of(word) == [word], hex(code)


def test_a_text_has_its_first_words_only_and_stops_looking() -> None:
    parts = ["w " * 1_500] * 1_000_000  # the same list a million times over
    assert text_of("k", parts).split() == ["k", *["w"] * (MAX_WORDS - 1)]
    assert text_of("k", [[0] * 99_997, "last", "beyond"]) == "k last"
    assert text_of("k", {"b": ["two"], "a": "one", "c": [1, None, True]}) == "k one two"


# What the index holds may be forged, too


@pytest.fixture
async def forged(tmp_path: pathlib.Path) -> AsyncIterator[tuple[LTMBackend, sqlite3.Connection]]:
    """Two entries, and the file they are in."""
    async with LTMBackend(
        f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", index_text=True
    ) as ltm:
        await ltm.store("a", "tea", metadata={"n": 1})
        await ltm.store("b", "tea", metadata={"n": 2})
        with contextlib.closing(sqlite3.connect(tmp_path / "ltm.db", isolation_level=None)) as db:
            yield ltm, db


@pytest.mark.parametrize("metadata", ["{", "[1]", "7", '"text"', '{"n":NaN}', "x'7bff'"])
async def test_a_damaged_row_is_named_whatever_the_filter_and_hides_no_other(
    forged: tuple[LTMBackend, sqlite3.Connection], metadata: str
) -> None:
    ltm, db = forged
    value = f"CAST({metadata} AS TEXT)" if metadata.startswith("x'") else f"'{metadata}'"
    db.execute(f"UPDATE ltm_entries SET metadata = {value} WHERE key = 'a'")
    for given in (None, {"n": {"$gte": 0}}):
        page = await ltm.search("tea", metadata_filter=given)
        assert [hit.key for hit in page.results] == ["b"]
        assert (list(page.errors), page.error_type, page.success) == (["a"], "CorruptError", False)


async def test_a_text_of_another_namespace_leads_nowhere(
    forged: tuple[LTMBackend, sqlite3.Connection], tmp_path: pathlib.Path
) -> None:
    ltm, db = forged
    async with LTMBackend(
        f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", namespace="other", index_text=True
    ) as other:
        await other.store("secret", "tea")
    for table in ("ltm_texts", "ltm_words"):  # among the numbers of this namespace
        db.execute(f"UPDATE {table} SET rowid = (1 << 40) + 9 WHERE rowid = (2 << 40) + 1")
        assert db.execute(f"SELECT count(*) FROM {table} WHERE rowid < 2 << 40").fetchone() == (3,)
    assert {hit.key for hit in (await ltm.search("tea")).results} == {"a", "b"}


async def test_a_text_without_an_entry_is_no_match(
    forged: tuple[LTMBackend, sqlite3.Connection],
) -> None:
    ltm, db = forged
    db.execute("UPDATE ltm_texts SET key = 'gone' WHERE key = 'a'")
    assert [hit.key for hit in (await ltm.search("tea")).results] == ["b"]
