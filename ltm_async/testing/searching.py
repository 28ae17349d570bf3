"""What every catalog that keeps texts must do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from ..entry import NEVER, Expiry
from ..errors import ConflictError, FencedError
from ..filters import parse_filter
from ..protocols import Catalog, Matches, Write
from ..text import MAX_WORD, MAX_WORDS, Text, matches, occurrences, parse_query, text_in, text_of
from .hiding import refuse_hidden
from .writes import LARGE, LEASE_US, SECOND_US, large, new_write_id, reservation, small

SPACE = "search contract"

CORPUS: Mapping[str, str] = {
    "user:7": "Likes green tea, and green apples. Does not like coffee.",
    "user:8": "Likes black coffee with milk",
    "user:70": "Tea? Green-tea ice cream!",
    "recipe/matcha": "Matcha is green tea, ground; whisk it in hot water.",
    "recipe/chai": "Black tea with milk, cardamom, ginger and black pepper; no green leaves. Tea!",
    "note": "teapot teaspoon greenhouse",
    "upper": "GREEN TEA IN CAPITALS",
    "de": "Grüner Tee und Straße, weiß wie Schnee",
    "tr": "İstanbul'da çay",
    "ja": "東京で緑茶を飲む。緑茶が好き。",
    "zh": "他喜欢喝绿茶和红茶",
    "th": "ชาเขียว",
    "ru": "Зелёный чай с молоком",
    "wide": "ＧＲＥＥＮ ﬁne ① e\u0301te\u0301 \u00e9t\u00e9",
    "emoji": "🍵 tea 🍵",
    "code": "def brew_tea(water_c=80): return f'{water_c}°C'",
    "sql": "'; DROP TABLE ltm_entries; -- \" OR 1=1 NEAR(tea green) AND NOT",
    "numbers": "42 3.14 1e5 0x1f 2026-11-25T20:00:00Z 192.168.0.1 a1b2c3",
    "mail": "write to tea@example.com or https://example.com/tea?x=1&y=2#green",
    "long": "tea " * 250 + "green",
    "word": "a" * 200,
    "empty": "",
    "punctuation": "... --- !!! \\ / & | ( ) : * ^ ~ ' \" %_",
}

QUERIES = (
    "tea",
    "green tea",
    '"green tea"',
    '"tea green"',
    '"green tea" milk',
    '"green tea" "hot water"',
    "gre*",
    "tea* milk",
    '"black te*"',
    "user:7",
    "user:7*",
    "coffee milk",
    "STRASSE",
    "straße",
    "weiss",
    "istanbul",
    "緑茶",
    "茶",
    "绿茶 红茶",
    "ชา",
    "зелёный",
    "ЧАЙ",
    "green fine 1",
    "été",
    "brew_tea",
    "3.14",
    "1e5",
    "0x1f",
    "2026-11-25",
    "192.168.0.1",
    "tea@example.com",
    "a" * 64,
    "a" * 65,
    "aaaa*",
    "nothing",
    "tea nothing",
    "drop table",
    "not",
    "near",
    "or and",
    "'; DROP TABLE ltm_entries; --",
    'green" OR words : tea',
    "tea:* & !green",
    "space : tea",
    "{words} : tea",
    "^tea + green - milk",
    "tea NEAR green",
)


class SearchContract:
    """Subclass it and give it ``catalog`` and ``advance``, as for ``CatalogContract``."""

    def __init_subclass__(cls) -> None:
        refuse_hidden(cls)
        super().__init_subclass__()

    @pytest.fixture
    def catalog(self) -> Catalog:
        raise NotImplementedError

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        """Let the catalog's clock go on, or its rows grow older by as much."""
        raise NotImplementedError

    @staticmethod
    def _text(key: str, text: str, *, metadata: str = "{}", expiry: Expiry = NEVER) -> Write:
        made = small(key, metadata=metadata, expiry=expiry)
        return made._replace(words=text_of(key, text))

    async def _index(self, catalog: Catalog, *writes: Write, namespace: str = SPACE) -> None:
        await catalog.track_entries_batch(namespace, writes, write_id=new_write_id())

    async def _search(
        self, catalog: Catalog, query: str, *, limit: int = 100, namespace: str = SPACE
    ) -> Matches:
        return await catalog.search_entries(namespace, parse_query(query), wanted=None, limit=limit)

    async def _keys(self, catalog: Catalog, query: str) -> set[str]:
        """What is found and does match."""
        found = await self._search(catalog, query)
        sought = parse_query(query)
        return {match.row.key for match in found.found if matches(sought, match.text)}

    @pytest.mark.parametrize("query", QUERIES)
    async def test_what_matches_is_found_and_counted(self, catalog: Catalog, query: str) -> None:
        await self._index(catalog, *(self._text(key, text) for key, text in CORPUS.items()))
        sought = parse_query(query)
        texts = {key: text_in(text_of(key, text).split(), sought) for key, text in CORPUS.items()}
        wanted = {key: text for key, text in texts.items() if matches(sought, text)}
        found = await self._search(catalog, query)
        seen = {match.row.key: match.text for match in found.found}
        assert self._plain(seen) == self._plain(wanted)
        assert found.total == len(wanted)
        assert found.entries == len(CORPUS)
        assert found.having == {
            term: sum(1 for text in texts.values() if occurrences(term, text))
            for term in sought.terms
        }

    @staticmethod
    def _plain(texts: Mapping[str, Text]) -> dict[str, tuple[dict[str, list[int]], int]]:
        return {
            key: ({word: list(places) for word, places in text.places.items()}, text.length)
            for key, text in texts.items()
        }

    async def test_a_row_is_found_as_a_listing_shows_it(self, catalog: Catalog) -> None:
        write = self._text("k", "tea", metadata='{"kind":"note"}')
        await self._index(catalog, write)
        (match,) = (await self._search(catalog, "tea")).found
        (listed,) = await catalog.list_entries(SPACE, limit=1)
        assert match.row == listed

    async def test_a_text_is_replaced_with_its_row(self, catalog: Catalog) -> None:
        await self._index(catalog, self._text("k", "green tea"), self._text("other", "tea"))
        await self._index(catalog, self._text("k", "black coffee"))
        assert await self._keys(catalog, "tea") == {"other"}
        assert await self._keys(catalog, "coffee") == {"k"}
        assert (await self._search(catalog, "tea")).entries == 2

    async def test_a_row_without_text_is_not_found(self, catalog: Catalog) -> None:
        await self._index(catalog, self._text("k", "tea"))
        await self._index(catalog, small("k"))
        assert await self._keys(catalog, "tea") == set()
        assert (await self._search(catalog, "tea")).entries == 0

    async def test_a_row_whose_text_has_no_word_is_stored_and_not_found(
        self, catalog: Catalog
    ) -> None:
        await self._index(catalog, self._text("--", "tea"))
        for writes in [self._text("--", "...")], [self._text("--", "?"), self._text("k", "tea")]:
            await self._index(catalog, *writes)
            assert await self._keys(catalog, "tea") == {write.key for write in writes} - {"--"}
        assert (await catalog.get_entry(SPACE, "--")) is not None

    async def test_a_touched_row_keeps_its_text(self, catalog: Catalog) -> None:
        await self._index(catalog, self._text("k", "tea"))
        await catalog.touch_entry(
            SPACE, "k", expiry=NEVER, metadata='{"a":1}', write_id=new_write_id()
        )
        assert await self._keys(catalog, "tea") == {"k"}

    async def test_what_was_deleted_is_not_found(self, catalog: Catalog) -> None:
        await self._index(catalog, self._text("a", "tea"), self._text("b", "tea"))
        await catalog.delete_entries_batch(SPACE, ["a"], write_id=new_write_id())
        found = await self._search(catalog, "tea")
        assert ([match.row.key for match in found.found], found.total, found.entries) == (
            ["b"],
            1,
            1,
        )

    async def test_what_has_expired_is_not_found(self, catalog: Catalog) -> None:
        soon = Expiry(ttl_us=10 * SECOND_US)
        await self._index(catalog, self._text("a", "tea", expiry=soon), self._text("b", "tea"))
        assert await self._keys(catalog, "tea") == {"a", "b"}
        await self.advance(catalog, 11)
        assert await self._keys(catalog, "tea") == {"b"}
        assert (await self._search(catalog, "tea")).total == 1
        await catalog.expire_entries(SPACE, 10, write_id=new_write_id())
        assert (await self._search(catalog, "tea")).entries == 1

    async def test_a_large_value_is_found_by_its_text_and_so_when_it_is_renewed(
        self, catalog: Catalog
    ) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await self._index(catalog, large("k", blob.blob_id)._replace(words="k tea"))
        assert await self._keys(catalog, "tea") == {"k"}
        await self._index(catalog, large("k", None)._replace(words="k tea"))
        assert await self._keys(catalog, "tea") == {"k"}

    async def test_a_refused_batch_changes_no_text(self, catalog: Catalog) -> None:
        await self._index(catalog, self._text("a", "tea"))
        stale = self._text("b", "coffee")._replace(if_version=7)
        with pytest.raises(ConflictError):
            await self._index(catalog, self._text("a", "coffee"), stale)
        ended = large("c", reservation("c", LARGE).blob_id)._replace(words="coffee")
        with pytest.raises(FencedError):
            await self._index(catalog, self._text("a", "coffee"), ended)
        assert await self._keys(catalog, "tea") == {"a"}
        assert await self._keys(catalog, "coffee") == set()

    async def test_namespaces_are_apart(self, catalog: Catalog) -> None:
        others = ["", SPACE + " ", SPACE.upper(), "'; --", "a" * 256]
        await self._index(catalog, self._text("k", "tea"))
        for place, namespace in enumerate(others):
            writes = [self._text(f"k{n}", "tea") for n in range(place + 2)]
            await self._index(catalog, *writes, namespace=namespace)
        for place, namespace in enumerate(others):
            found = await self._search(catalog, "tea", namespace=namespace)
            assert len(found.found) == found.total == found.entries == place + 2
            assert set(found.having.values()) == {place + 2}
        await catalog.delete_entries_batch("", ["k0"], write_id=new_write_id())
        assert await self._keys(catalog, "tea") == {"k"}
        assert (await self._search(catalog, "tea", namespace="")).entries == 1

    async def test_no_more_than_the_limit_is_found_and_all_is_counted(
        self, catalog: Catalog
    ) -> None:
        await self._index(catalog, *(self._text(f"k{n}", "tea") for n in range(30)))
        found = await self._search(catalog, "tea", limit=10)
        assert (len({match.row.key for match in found.found}), found.total) == (10, 30)

    async def test_the_limit_leaves_out_what_is_worse(self, catalog: Catalog) -> None:
        await self._index(catalog, *(self._text(f"k{n}", "tea for two") for n in range(30)))
        await self._index(catalog, self._text("best", "tea, green tea: green tea"))
        found = await self._search(catalog, "green tea", limit=1)
        assert [match.row.key for match in found.found] == ["best"]

    async def test_what_a_filter_wants_is_not_left_out(self, catalog: Catalog) -> None:
        kinds = itertools.cycle(["note", "task", "note"])
        writes = [
            self._text(f"k{n:02}", "tea", metadata=f'{{"kind":"{next(kinds)}","n":{n}}}')
            for n in range(30)
        ]
        await self._index(catalog, *writes)
        for given in ({"kind": "task"}, {"n": {"$gte": 25}}, {"$not": {"n": {"$lt": 3.5}}}):
            wanted = parse_filter(given)
            found = await catalog.search_entries(SPACE, parse_query("tea"), wanted=wanted, limit=30)
            kept = {
                write.key
                for n, write in enumerate(writes)
                if wanted.matches({"kind": "task" if n % 3 == 1 else "note", "n": n})
            }
            assert kept <= {match.row.key for match in found.found}

    async def test_texts_as_long_as_they_may_be(self, catalog: Catalog) -> None:
        words = [f"{n:0>{MAX_WORD}}" for n in range(MAX_WORDS)]
        await self._index(catalog, self._text("long", " ".join(words)), self._text("k", "1"))
        last = words[MAX_WORDS - 2]
        assert await self._keys(catalog, f'"{words[0]} {words[1]}" {last}') == {"long"}
        assert await self._keys(catalog, last) == {"long"}
        assert await self._keys(catalog, words[-1]) == set()  # the key is a word, too
