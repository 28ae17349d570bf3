"""Snippets: of which text they are, where they are cut, and what they cost."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

import pytest

from ltm_async import InvalidEntryError
from ltm_async.snippets import MAX_SNIPPET, Snippet, located, snippet_of
from ltm_async.testing.searching import CORPUS, QUERIES
from ltm_async.text import MAX_WORD, MAX_WORDS, parse_query, text_in, text_of, words_of
from ltm_async.text import matches as is_match

from .backends import PAIRS, make_rig

LETTERS = (
    "aAbZ09 _-.:\"'\n\t\u00a0\u3000\u2028ßſİıΣςéé\u0301\u0301\u0345´ﬁ㎏ﷺ½ｶﾞｷガ緑茶กำ한글Ⅸ🍵ǆ\u1e9e"
)


def some_texts() -> list[str]:
    chance = random.Random(7)
    return ["".join(chance.choices(LETTERS, k=chance.randrange(40))) for _ in range(2_000)]


def marked(snippet: Snippet | None) -> str | None:
    """With brackets around what matches."""
    if snippet is None:
        return None
    text, last = "", 0
    for start, end in snippet.matches:
        text += f"{snippet.text[last:start]}[{snippet.text[start:end]}]"
        last = end
    return text + snippet.text[last:]


def snippet(query: str, value: object, key: str = "k") -> str | None:
    return marked(snippet_of(key, value, parse_query(query)))


@pytest.mark.parametrize(
    "value",
    [
        *CORPUS.values(),
        {"b": ["one", {"c": "two words"}], "a": ["three", 4, None, True]},
        "x" * 200 + " " + "y" * MAX_WORD,
        ["w " * (MAX_WORDS - 5), "a b c d e f g", "h"],
        "spaces" + " " * 200_000 + "and what is too far behind them",
        "-" * 200_000 + "word",
    ],
)
def test_the_text_is_what_the_index_was_made_of(value: object) -> None:
    _, words, places = located("the key", value)
    assert " ".join(words) == text_of("the key", value)
    assert len(words) == len(places)


def test_every_word_is_where_its_place_says_whatever_its_script() -> None:
    for text in some_texts():
        parts, words, places = located("k", text)
        assert words == ["k", *words_of(text)], ascii(text)
        for word, place in zip(words, places, strict=True):
            piece = parts[place.part][place.start : place.end]
            assert word in words_of(piece), ascii(text)
            assert len(piece.split()) == 1, ascii(text)


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_found_has_a_snippet_and_what_is_not_has_none_of_it(query: str) -> None:
    sought = parse_query(query)
    for key, value in CORPUS.items():
        found = snippet_of(key, value, sought)
        if is_match(sought, text_in(text_of(key, value).split(), sought)):
            assert found is not None and found.matches
        if found is not None:
            assert len(found.text) <= MAX_SNIPPET
            assert found.text in key or found.text in value


def test_a_snippet_has_what_is_sought_and_is_never_too_long() -> None:
    chance = random.Random(3)
    made = 0
    for _ in range(300):
        texts = chance.choices(some_texts()[:200], k=chance.randrange(1, 30))
        value = [" ".join(texts[:15]), "".join(texts[15:])]
        words = words_of(value[0]) or ["none"]
        found = snippet_of("k", value, parse_query(" ".join(chance.choices(words, k=3)) + "*"))
        if found is None:
            assert words == ["none"]
            continue
        made += 1
        assert len(found.text) <= MAX_SNIPPET
        assert found.matches == sorted(set(found.matches))
        for start, end in found.matches:
            assert 0 <= start < end <= len(found.text)
    assert made > 250


FAR = "and so on " * 30


@pytest.mark.parametrize(
    ("query", "value", "expected"),
    [
        ("tea", "Green TEA, black tea", "Green [TEA], black [tea]"),
        ("te*", "Ten teas", "[Ten] [teas]"),
        ('"green tea"', "green, tea; tea green", "[green], [tea]; tea green"),
        ("緑茶", "日本の緑茶です", "日本の[緑][茶]です"),
        ("fine", "it is \ufb01ne", "it is [\ufb01ne]"),
        ("strasse", "eine STRAẞE", "eine [STRAẞE]"),
        ("tea", ["milk", {"b": "tea two", "a": "tea one"}], "[tea] one"),
        ("coffee", "tea", None),
        ("k", "tea", "[k]"),
        ("k", "with k in it", "with [k] in it"),
        ("tea", {"tea": 1}, None),
        # The closest, not the first, wherever it is.
        ("tea milk", f"tea {FAR} milk {FAR} tea with milk", "tea with milk"),
        ("tea", f"tea {FAR} tea {FAR} tea, tea", "tea, tea"),
        ("tea milk", f"tea tea tea {FAR} milk in tea", "milk in tea"),
    ],
)
def test_it_is_the_piece_with_most_of_what_is_sought(
    query: str, value: object, expected: str | None
) -> None:
    found = snippet(query, value)
    if expected is not None and "[" not in expected:
        assert found is not None
        assert found.replace("[", "").replace("]", "").endswith(expected)
        assert found.count("[") == 2
    else:
        assert found == expected


def test_it_begins_and_ends_between_words_where_it_can() -> None:
    words = [f"word{number:03}" for number in range(200)]
    found = snippet_of("k", " ".join(words), parse_query("word100"))
    assert found is not None
    assert set(found.text.split()) <= set(words)
    assert MAX_SNIPPET - 20 < len(found.text) <= MAX_SNIPPET
    place = found.text.index("word100")
    assert found.matches == [(place, place + 7)]
    assert 60 < place < 90  # in the middle
    whole = snippet_of("k", "x" * 500 + " tea " + "x" * 500, parse_query("tea"))
    assert whole is not None and whole.text.strip() == "tea"
    long = snippet_of("k", "a-" + "b" * 500, parse_query("b" * 64))
    assert long is not None and long.matches == [(0, MAX_SNIPPET)]


@pytest.mark.parametrize("pair", PAIRS)
async def test_snippets_are_of_small_and_large_values_on_every_pair(
    pair: str, tmp_path: pathlib.Path
) -> None:
    rig = make_rig(pair, tmp_path, index_text=True)
    values: dict[str, Any] = {
        "small": {"likes": "green tea"},
        "large": ["x" * 2_000, "tea, in a large value"],
        "other": "coffee",
    }
    await rig.ltm.store_batch({"key": key, "value": value} for key, value in values.items())
    hits = [hit.key for hit in (await rig.ltm.search("tea")).results]
    assert sorted(hits) == ["large", "small"]
    found = await rig.ltm.retrieve_snippets("tea", [*hits, "other", "gone", hits[0]])
    assert {key: marked(piece) for key, piece in found.snippets.items()} == {
        "small": "green [tea]",
        "large": "[tea], in a large value",
    }
    assert list(found.snippets) == hits
    assert (found.missing, found.errors) == (["gone"], {})
    plain = json.loads(json.dumps(found.to_dict()["snippets"]))
    assert plain["small"] == {"text": "green tea", "matches": [[6, 9]]}
    (blob,) = await rig.objects()
    await rig.blobs.delete([blob])
    damaged = await rig.ltm.retrieve_snippets("tea", hits)
    assert (list(damaged.snippets), list(damaged.errors)) == (["small"], ["large"])
    assert damaged.errors["large"].error_type == "CorruptError"
    await rig.aclose()


async def test_twenty_snippets_take_one_round_trip(tmp_path: pathlib.Path) -> None:
    rig = make_rig("sqlite+local", tmp_path)
    keys = [f"k{number:03}" for number in range(200)]
    await rig.ltm.store_batch({"key": key, "value": "tea"} for key in keys)
    for count, calls in (0, 0), (1, 1), (20, 1), (21, 2), (200, 10):
        rig.faults.steps.clear()
        found = await rig.ltm.retrieve_snippets("tea", keys[:count])
        assert list(found.snippets) == keys[:count]
        assert rig.faults.steps == ["catalog.get_entries_batch"] * calls
    rig.faults.steps.clear()
    for query, wanted, words in (
        ("tea", [*keys, "one more"], "keys has 201 keys, the limit is 200"),
        ("tea", "k", "keys must be an iterable"),
        ("tea", [""], r"keys\[0\] is empty"),
        ("?!", ["k"], "query is"),
    ):
        with pytest.raises(InvalidEntryError, match=words):
            await rig.ltm.retrieve_snippets(query, wanted)
    assert rig.faults.steps == []
    await rig.aclose()
