"""Full text: what a word is, what a query asks for, and how matches are ranked.

One definition for all catalogs, which only find the entries that may match. A word is a run of
letters and digits, compared without case and in Unicode's compatibility form; each character of a
script that writes without spaces is a word by itself. The text of an entry is its key and the
strings in its value (not the names of members), up to 2,000 words from its first 100,000 parts.

A query is words and phrases:

==================  ==========================================================================
``green tea``       has ``green`` or ``tea``; both, and the rarer of them, count for more
``"green tea"``     has these words side by side, or is not found
``gre*``            has a word that begins so
``user:7``, 東京    what is written in one piece is sought side by side
==================  ==========================================================================
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .entry import check_text, shown
from .errors import InvalidEntryError

MAX_WORDS = 2_000
"""Of one entry; what comes after them is not found."""
MAX_PARTS = 100_000
"""Strings, numbers, objects and lists of one value that are looked at for words."""
MAX_WORD = 64
"""Characters of a word; the rest of a longer one is left out."""
MAX_PLACES = 255
"""How often one word counts in one text: as often as PostgreSQL can tell."""
MAX_QUERY_BYTES = 1024
MAX_PROSE = 16_000
"""Characters that an embedding function is given of one entry; models read fewer."""
MAX_TERMS = 32

K1 = 1.2
B = 0.75
"""BM25's usual constants: how soon more of the same counts little, and how much length matters."""

# Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar write no spaces between words.
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_ALONE += "\U00020000-\U0003ffff"
WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_ASCII_WORD = re.compile("[0-9a-z]+")
_PIECE = re.compile(r'"([^"]*)"?|([^\s"]+)')
MAX_CHARACTERS = (MAX_WORD + 1) * MAX_WORDS
"""Of one string that are looked at, at most."""


class Term(NamedTuple):
    """Words that are sought side by side."""

    words: tuple[str, ...]
    prefix: bool
    """The last of them may go on."""
    required: bool


class Query(NamedTuple):
    """What is sought: all required terms, or, where there are none, one of the others."""

    terms: tuple[Term, ...]

    @property
    def decisive(self) -> tuple[Term, ...]:
        """The terms on which a match depends."""
        return tuple(term for term in self.terms if term.required) or self.terms

    @property
    def every(self) -> bool:
        """All that is decisive has to be there, not one of it."""
        return self.decisive[0].required

    @property
    def words(self) -> frozenset[str]:
        """The words that are sought whole."""
        return frozenset(word for term in self.terms for word in _whole(term))

    @property
    def prefixes(self) -> frozenset[str]:
        return frozenset(term.words[-1] for term in self.terms if term.prefix)


def _whole(term: Term) -> tuple[str, ...]:
    return term.words[:-1] if term.prefix else term.words


class Text(NamedTuple):
    """What of an entry's text a query is about."""

    places: Mapping[str, Sequence[int]]
    """Where each word is that the query seeks, or that begins with what it seeks."""
    length: int
    """In words."""


def words_of(text: str) -> list[str]:
    """The words of *text*, in order."""
    text = text[:MAX_CHARACTERS]
    if text.isascii():
        words = _ASCII_WORD.findall(text.lower())
    else:
        # Folding may undo the form, and the form the folding: together they are stable after this.
        folded = unicodedata.normalize("NFKC", text).casefold()
        words = WORD.findall(unicodedata.normalize("NFKC", folded))
    return [word[:MAX_WORD] for word in words] if len(text) > MAX_WORD else words


def text_of(key: str, value: object) -> str:
    """The words to index of an entry, with spaces between them."""
    found = words_of(key)
    for part in strings_in(value):
        found += words_of(part)
        if len(found) >= MAX_WORDS:
            break
    return " ".join(found[:MAX_WORDS])


def prose_of(key: str, value: object) -> str:
    """What an embedding function is given of an entry: the strings in its value, one a line.

    As they are, for models know case and marks, and without the key, which is mostly an id and no
    part of the meaning; the key alone where there are none.
    """
    found: list[str] = []
    left = MAX_PROSE
    for part in strings_in(value):
        if text := part.strip():
            found.append(text[:left])
            left -= len(found[-1]) + 1
            if left <= 0:
                break
    return "\n".join(found) or key


def strings_in(value: object) -> Iterator[str]:
    """The strings of *value* that count, in order."""
    nodes: list[object] = [value]
    left = MAX_PARTS
    while nodes and left:
        node = nodes.pop()
        left -= 1
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            nodes.extend(node[name] for name in sorted(node, reverse=True)[-left:])
        elif isinstance(node, list):
            nodes.extend(reversed(node[:left]))


def parse_query(given: object, name: str = "query") -> Query:
    """What *given*, the argument *name*, seeks.

    Raises:
        InvalidEntryError: It is no text of 1 to 1,024 bytes with 1 to 32 words or phrases.
    """
    check_text(name, given, MAX_QUERY_BYTES)
    terms: dict[Term, None] = {}
    for phrase, piece in _PIECE.findall(str(given)):
        words = tuple(words_of(phrase or piece))
        if words:
            terms[Term(words, piece.endswith("*"), bool(phrase))] = None
    if not terms:
        raise InvalidEntryError(f"{name} is {shown(given)}, it needs a letter or a digit")
    if len(terms) > MAX_TERMS:
        raise InvalidEntryError(f"{name} has {len(terms)} words, the limit is {MAX_TERMS}")
    return Query(tuple(terms))


def text_in(words: Sequence[str], query: Query) -> Text:
    """What of a text, given as its words, *query* is about."""
    whole, prefixes = query.words, tuple(query.prefixes)
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        if word in whole or (prefixes and word.startswith(prefixes)):
            found = places.setdefault(word, [])
            if len(found) < MAX_PLACES:
                found.append(place)
    return Text(places, len(words))


def starts(term: Term, text: Text) -> set[int]:
    """Where in *text* an occurrence of *term* begins."""
    common: set[int] | None = None
    for offset, word in enumerate(term.words):
        found = {place - offset for place in _places(word, term, offset, text)}
        common = found if common is None else common & found
        if not common:
            break
    return common or set()


def occurrences(term: Term, text: Text) -> int:
    """How often *term* is in *text*."""
    return len(starts(term, text))


def mark_of(namespace: str) -> str:
    """A word that stands for *namespace*, which may hold anything, in an index of all of them."""
    return hashlib.sha256(namespace.encode()).hexdigest()[:16]


def _places(word: str, term: Term, offset: int, text: Text) -> Iterator[int]:
    if term.prefix and offset == len(term.words) - 1:
        for found, places in text.places.items():
            if found.startswith(word):
                yield from places
    else:
        yield from text.places.get(word, ())


def matches(query: Query, text: Text) -> bool:
    found = (occurrences(term, text) > 0 for term in query.decisive)
    return all(found) if query.every else any(found)


def scores(
    query: Query, texts: Sequence[Text], *, entries: int, having: Mapping[Term, int]
) -> list[float]:
    """The BM25 score of each of *texts* that may be found together.

    Args:
        entries: How many texts there are.
        having: In how many of them each term is.
    """
    mean = sum(text.length for text in texts) / max(len(texts), 1) or 1.0
    rarity = {
        term: math.log1p((max(entries, count) - count + 0.5) / (count + 0.5))
        for term, count in having.items()
    }

    def score(text: Text) -> float:
        damping = K1 * (1 - B + B * text.length / mean)
        total = 0.0
        for term in query.terms:
            often = occurrences(term, text)
            total += rarity[term] * often * (K1 + 1) / (often + damping)
        return total

    return list(map(score, texts))
