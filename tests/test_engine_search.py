"""Words in SQL: what is found and how it ranks is what the backend's own search says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ltm_async import DuckDBQueryEngine, InvalidEntryError, LTMBackend, QueryError
from ltm_async.testing.searching import CORPUS, QUERIES

TEXTS = {
    **CORPUS,
    "often": "tea " * 300 + "green tea",
    "very/often": "teas tea " * 290 + "green green",
    "no words": "",
    "::": "",
}
RANKED = "SELECT key, score FROM matches ORDER BY score DESC, key"


@pytest.fixture
async def ltm() -> AsyncIterator[LTMBackend]:
    async with LTMBackend("memory:", "memory:", index_text=True, on_unavailable="raise") as ltm:
        await ltm.store_batch(
            {"key": key, "value": {"text": text}, "metadata": {"n": n}}
            for n, (key, text) in enumerate(TEXTS.items())
        )
        yield ltm


@pytest.fixture
async def engine(ltm: LTMBackend) -> AsyncIterator[DuckDBQueryEngine]:
    async with DuckDBQueryEngine(ltm, threads=2) as engine:
        yield engine


async def by_search(ltm: LTMBackend, query: str) -> dict[str, float]:
    return {hit.key: hit.score for hit in (await ltm.search(query, limit=100)).results}


def rounded(ranked: Any) -> list[tuple[str, float]]:
    """In the order of their ranks, of which the last digits depend on the order of the sums."""
    return sorted(((key, round(score, 9)) for key, score in ranked), key=lambda hit: (-hit[1], hit))


async def test_a_query_finds_and_ranks_what_search_does(
    ltm: LTMBackend, engine: DuckDBQueryEngine
) -> None:
    for query in (
        "tea",
        "green tea",
        '"green tea" milk',
        "tea* milk",
        '"black te*"',
        "user:7*",
        "茶",
    ):
        expected = rounded((await by_search(ltm, query)).items())
        found = await engine.query(RANKED, search=query)
        assert found.columns == ("key", "score")
        assert rounded(found.rows) == expected, query
        assert found.entries == len(TEXTS)


async def test_loaded_entries_are_searched_again_and_again(
    ltm: LTMBackend, engine: DuckDBQueryEngine
) -> None:
    async with await engine.load(index_text=True) as loaded:
        for query in QUERIES:
            found = await loaded.query(RANKED, search=query)
            assert rounded(found.rows) == rounded((await by_search(ltm, query)).items()), query
        assert (await loaded.query("SELECT count(*) FROM entries")).rows == [(len(TEXTS),)]


async def test_random_texts_rank_the_same(engine: DuckDBQueryEngine, ltm: LTMBackend) -> None:
    chance = random.Random(7)
    words = [f"{letter}{n}" for letter in "ab" for n in range(6)]

    def some(most: int) -> list[str]:
        return chance.choices(words, k=chance.randint(1, most))

    await ltm.store_batch(
        {"key": f"random:{n}", "value": [" ".join(some(40)) for _ in range(3)]} for n in range(80)
    )
    async with await engine.load(prefix="random:", index_text=True) as loaded:
        other = LTMBackend("memory:", "memory:", index_text=True)
        await other.store_batch(
            {"key": key, "value": hit.value}
            for key, hit in (
                await ltm.retrieve_batch([f"random:{n}" for n in range(80)])
            ).results.items()
        )
        for _ in range(30):
            pieces = [
                chance.choice(['"{}"', "{}", "{}*"]).format(" ".join(some(3))) for _ in range(3)
            ]
            query = " ".join(pieces)
            found = await loaded.query(RANKED, search=query)
            assert rounded(found.rows) == rounded((await by_search(other, query)).items()), query


async def test_matches_compose_with_the_rest_of_sql(engine: DuckDBQueryEngine) -> None:
    found = await engine.query(
        "SELECT key, (metadata->>'n')::INT AS n FROM matches JOIN entries USING (key)"
        " WHERE score > $1 AND (value->>'text') LIKE '%milk%' ORDER BY key",
        [0.1],
        search="black",
    )
    assert found.rows == [("recipe/chai", 4), ("user:8", 1)]
    found = await engine.query("SELECT words FROM entries WHERE key = 'wide'", search="x")
    assert found.rows == [("wide green fine 1 été été",)]


async def test_prefix_and_filter_choose_what_is_ranked(engine: DuckDBQueryEngine) -> None:
    found = await engine.query(RANKED, search="tea", prefix="user:")
    assert {key for key, _ in found.rows} == {"user:7", "user:70"}
    found = await engine.query(RANKED, search="tea", metadata_filter={"n": {"$lt": 1}})
    assert [key for key, _ in found.rows] == ["user:7"]


async def test_nothing_to_search_is_nothing_found(engine: DuckDBQueryEngine) -> None:
    assert (await engine.query(RANKED, search="tea", prefix="nowhere")).rows == []


async def test_matches_are_gone_after_their_query(engine: DuckDBQueryEngine) -> None:
    async with await engine.load(index_text=True) as loaded:
        for query, count in (("matcha", 1), ("cardamom", 1), ("milk", 2)):
            found = await loaded.query("SELECT count(*) FROM matches", search=query)
            assert found.rows == [(count,)]
        with pytest.raises(QueryError, match="matches does not exist"):
            await loaded.query("FROM matches")


@pytest.mark.parametrize("search", ["", "!!", "x" * 1025, 7, " ".join(map(str, range(33)))])
async def test_a_search_that_breaks_a_limit_is_refused_before_any_i_o(
    engine: DuckDBQueryEngine, search: Any
) -> None:
    with pytest.raises(InvalidEntryError, match="search"):
        await engine.query("SELECT 1", search=search)
    async with await engine.load(index_text=True) as loaded:
        with pytest.raises(InvalidEntryError, match="search"):
            await loaded.query("SELECT 1", search=search)


async def test_a_search_needs_values_and_loaded_words(engine: DuckDBQueryEngine) -> None:
    with pytest.raises(InvalidEntryError, match="values=False"):
        await engine.query("SELECT 1", search="tea", values=False)
    with pytest.raises(InvalidEntryError, match="values=False"):
        await engine.load(index_text=True, values=False)
    async with await engine.load() as loaded:
        with pytest.raises(InvalidEntryError, match="index_text=True"):
            await loaded.query("SELECT 1", search="tea")
