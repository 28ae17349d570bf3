"""Full text: each entry has a list of tokens, of which Firestore's own index knows who has them.

A token is a word, or what one begins with, behind a mark of its namespace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...filters import Filter, may_match
from ...protocols import MAX_COUNTED, Found, Matches
from ...text import Query, Term, mark_of, matches, occurrences, scores, text_in
from . import layout
from .documents import Documents
from .layout import ENTRIES, Document
from .server_time import ServerTime

MAX_TEXT_BYTES = 128 * 1024
"""A document has at most 1 MiB (https://firebase.google.com/docs/firestore/quotas)."""
MAX_SEEN = 1000
"""Entries that one search reads at most."""
BEGINNING = 3
"""Characters of a word by which it is found when only its beginning is known."""
NO_TEXT: dict[str, Any] = {"text": None, "tokens": None}
"""These fields of an entry that had a text and has none now."""
_MARK = 8
_AT_ONCE = 30
_FIELDS = (*layout.HEAD_FIELDS, "namespace", "text")


def text_data(namespace: str, words: str) -> dict[str, Any]:
    """The fields that an entry is found by."""
    text = words.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
    if len(text) < len(words):
        text = text[: text.rfind(" ")]
    mark = mark_of(namespace)[:_MARK]
    tokens = dict.fromkeys(_tokens(mark, text.split(" ")))
    return {"text": text, "tokens": [mark, *tokens]}


def _tokens(mark: str, words: list[str]) -> Iterator[str]:
    for word in dict.fromkeys(words):
        yield f"{mark}={word}"
        for length in range(1, min(BEGINNING, len(word)) + 1):
            yield f"{mark}~{word[:length]}"


def _token(mark: str, term: Term) -> str:
    """One that whatever has *term* has: of its whole words the longest, for it is rare."""
    whole = term.words[:-1] if term.prefix else term.words
    if whole:
        return f"{mark}={max(whole, key=len)}"
    return f"{mark}~{term.words[0][:BEGINNING]}"


async def search(
    documents: Documents,
    time: ServerTime,
    namespace: str,
    query: Query,
    wanted: Filter | None,
    limit: int,
) -> Matches:
    mark = mark_of(namespace)[:_MARK]
    tokens = sorted({_token(mark, term) for term in query.terms})
    seen: dict[str, Document] = {}
    now_us = 0
    for start in range(0, len(tokens), _AT_ONCE):
        found = await documents.query_any(
            ENTRIES, "tokens", tokens[start : start + _AT_ONCE], limit=MAX_SEEN, fields=_FIELDS
        )
        seen |= {
            name: document
            for name, document in found.documents.items()
            if document.data.get("namespace") == namespace
        }
        now_us = time.of(found.now_us)
    entries = await documents.count_any(ENTRIES, "tokens", [mark], limit=MAX_COUNTED)
    texts = {
        name: text_in(str(document.data.get("text")).split(" "), query)
        for name, document in seen.items()
    }
    having = {
        term: sum(1 for text in texts.values() if occurrences(term, text)) for term in query.terms
    }
    matching = [
        Found(layout.to_row(str(document.data.get("key")), document), texts[name])
        for name, document in seen.items()
        if matches(query, texts[name])
        and layout.is_live(document, now_us)
        and may_match(wanted, str(document.data.get("metadata")))
    ]
    ranks = scores(query, [text for _, text in matching], entries=entries, having=having)
    best = sorted(zip(ranks, matching, strict=True), key=lambda ranked: -ranked[0])[:limit]
    return Matches([match for _, match in best], len(matching), entries, having)
