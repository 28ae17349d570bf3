"""Texts and queries in PostgreSQL's types: made of words that are letters and digits only."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .errors import CorruptError
from .filters import Filter
from .jsonpath import as_arguments
from .protocols import MAX_COUNTED, MAX_MATCHES, Found, Matches, Row
from .text import Query, Term, Text, mark_of


class Asked(NamedTuple):
    """What ``ltm_search`` is given, after the namespace."""

    query: str
    terms: list[str]
    words: list[str]
    prefixes: list[str]
    path: str | None
    variables: str | None
    limit: int
    most: int = MAX_MATCHES
    counted: int = MAX_COUNTED


def to_tsvector(namespace: str, words: str) -> str:
    """*words*, as in ``Write``, as a tsvector, with the mark of their namespace."""
    places = " ".join(f"'{word}':{place}" for place, word in enumerate(words.split(" "), 1))
    return f"'/{mark_of(namespace)}' {places}"


def ask(namespace: str, query: Query, wanted: Filter | None, limit: int) -> Asked:
    joint = " & " if query.every else " | "
    return Asked(
        _within(namespace, joint.join(map(_phrase, query.decisive))),
        [_within(namespace, _phrase(term)) for term in query.terms],
        sorted(query.words),
        sorted(query.prefixes),
        *as_arguments(wanted),
        limit,
    )


def answer(query: Query, rows: list[Any]) -> Matches:
    """What ``ltm_search`` gave; its rows may be forged."""
    *_, total, entries, having = rows[0]
    found = [
        Found(Row._make(row[:10]), _text(row[10], row[11])) for row in rows if row[0] is not None
    ]
    return Matches(found, total, entries, dict(zip(query.terms, having, strict=True)))


def _within(namespace: str, expression: str) -> str:
    return f"'/{mark_of(namespace)}' & ({expression})"


def _phrase(term: Term) -> str:
    *words, last = (f"'{word}'" for word in term.words)
    return " <-> ".join([*words, f"{last}:*" if term.prefix else last])


def _text(places: str | None, length: int) -> Text:
    found = {} if places is None else json.loads(places)
    if not all(isinstance(place, list) for place in found.values()):
        raise CorruptError("a text in the index has words without places")
    return Text({word: [place - 1 for place in places] for word, places in found.items()}, length)
