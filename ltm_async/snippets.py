"""Snippets: the piece of an entry's text that has most of what a query seeks, and where.

They are made of the text that the index was made of, in the same words, so that what is found is
shown, on every catalog alike.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .text import MAX_CHARACTERS, MAX_WORDS, WORD, Query, starts, strings_in, text_in, words_of

MAX_SNIPPET = 160

# Between spaces, for neither form nor case of what is on one side depends on the other.
_CHUNK = re.compile(r"\S+")


class Snippet(NamedTuple):
    """A piece of an entry's key or of one string of its value, as it was stored."""

    text: str
    """Up to 160 characters."""
    matches: list[tuple[int, int]]
    """Where in ``text`` each word that is sought begins and ends, in characters, in order."""


class _Place(NamedTuple):
    """Where a word is: in which string, of which the key is the first, and from where to where."""

    part: int
    start: int
    end: int


def snippet_of(key: str, value: object, query: Query) -> Snippet | None:
    """Around the closest of what *query* seeks: most of its terms, then most of its words.

    What is as good in the value goes before what is in the key; then the first counts. None where
    nothing of *query* is in the text.
    """
    parts, words, places = located(key, value)
    text = text_in(words, query)
    hits = sorted(
        {
            (places[start + offset], number)
            for number, term in enumerate(query.terms)
            for start in starts(term, text)
            for offset in range(len(term.words))
        }
    )
    if not hits:
        return None
    cluster = max(_clusters(hits), key=_worth)  # the first of equals
    part, first, _ = cluster[0][0]
    last = max(place.end for place, _ in cluster)
    begin, end = _cut(parts[part], first, last)
    matches = {(place.start - begin, min(place.end, end) - begin) for place, _ in cluster}
    return Snippet(parts[part][begin:end], sorted(matches))


def located(key: str, value: object) -> tuple[list[str], list[str], list[_Place]]:
    """The strings of an entry, and the words of its text with the place of each."""
    parts: list[str] = []
    words: list[str] = []
    places: list[_Place] = []
    for number, part in enumerate(itertools.chain([key], strings_in(value))):
        parts.append(part)
        for chunk in _CHUNK.finditer(part, 0, MAX_CHARACTERS):
            for word, start, end in _pieces(chunk[0]):
                words.append(word)
                places.append(_Place(number, chunk.start() + start, chunk.start() + end))
            if len(words) >= MAX_WORDS:
                return parts, words[:MAX_WORDS], places[:MAX_WORDS]
    return parts, words, places


def _pieces(chunk: str) -> list[tuple[str, int, int]]:
    """The words of *chunk* with their places; the whole of it where they cannot be told apart."""
    words = words_of(chunk)
    pieces = [
        (word, found.start(), found.end())
        for found in WORD.finditer(chunk)
        for word in words_of(found[0])
    ]
    if [word for word, _, _ in pieces] == words:
        return pieces
    return [(word, 0, len(chunk)) for word in words]


def _clusters(hits: Sequence[tuple[_Place, int]]) -> Iterator[Sequence[tuple[_Place, int]]]:
    """From each of *hits* on as many as one snippet has room for."""
    end = 0
    for start, (first, _) in enumerate(hits):
        end = max(end, start + 1)
        while end < len(hits):
            place, _ = hits[end]
            if place.part != first.part or place.end - first.start > MAX_SNIPPET:
                break
            end += 1
        yield hits[start:end]


def _worth(cluster: Sequence[tuple[_Place, int]]) -> tuple[int, int, bool]:
    terms = {number for _, number in cluster}
    return len(terms), len({place for place, _ in cluster}), cluster[0][0].part > 0


def _cut(part: str, first: int, last: int) -> tuple[int, int]:
    """Where a snippet of *part* with what is from *first* to *last* begins and ends.

    At spaces, if there are any beside that.
    """
    spare = MAX_SNIPPET - (last - first)
    if spare <= 0:
        return first, first + MAX_SNIPPET
    begin = max(0, min(first - spare // 2, len(part) - MAX_SNIPPET))
    end = min(len(part), begin + MAX_SNIPPET)
    if begin > 0 and not part[begin - 1].isspace():
        begin = next((n + 1 for n in range(begin, first) if part[n].isspace()), begin)
    if end < len(part) and not part[end].isspace():
        end = next((n for n in range(end - 1, last - 1, -1) if part[n].isspace()), end)
    return begin, end
