"""Which entries have given words, and how well: BM25 in SQL, by the rules of :mod:`..text`.

The index is a table with a row for each word, which lists the entries that have it and where: so
it takes some 6 bytes for each word of a text, and a query looks only at the rows of its own words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..text import K1, MAX_PLACES, B, Query

if TYPE_CHECKING:
    import duckdb

_TEXTS = """
CREATE TEMP TABLE ltm_texts AS
SELECT rowid::UINTEGER AS doc, key,
    length(words) - length(replace(words, ' ', '')) + 1 AS length
FROM entries WHERE words <> ''
"""
_WORDS = """
CREATE TEMP TABLE ltm_words AS
SELECT word, list(doc) AS docs, list(place) AS places FROM (
    SELECT doc, unnest(all_words) AS word, generate_subscripts(all_words, 1)::USMALLINT AS place
    FROM (SELECT rowid::UINTEGER AS doc, string_split(words, ' ') AS all_words
        FROM entries WHERE words <> '')
) WHERE {wanted} GROUP BY word
"""
_MATCHES = f"""
CREATE TEMP TABLE matches AS
WITH wanted AS (
    SELECT unnest(from_json($wanted::VARCHAR, '[{{"term": "INTEGER", "size": "INTEGER",
        "decisive": "BOOLEAN", "step": "INTEGER", "word": "VARCHAR", "prefix": "BOOLEAN"}}]'),
        recursive := true)
), lists AS (
    SELECT term, step, size, word, docs, places
    FROM ltm_words JOIN wanted USING (word) WHERE NOT prefix
    UNION ALL
    SELECT term, step, size, ltm_words.word, docs, places
    FROM ltm_words JOIN wanted ON prefix AND starts_with(ltm_words.word, wanted.word)
), every_place AS (
    SELECT term, step, size, word, unnest(docs) AS doc, unnest(places)::INTEGER AS place FROM lists
), places AS (
    FROM every_place SEMI JOIN (FROM ltm_texts WHERE length <= {MAX_PLACES}) USING (doc)
    UNION ALL
    FROM every_place SEMI JOIN (FROM ltm_texts WHERE length > {MAX_PLACES}) USING (doc)
    QUALIFY row_number() OVER (PARTITION BY term, step, word, doc ORDER BY place) <= {MAX_PLACES}
), often AS MATERIALIZED (
    SELECT term, doc, count(*) AS often FROM (
        SELECT term, doc FROM places GROUP BY term, doc, place - step
        HAVING count(*) = any_value(size)
    ) GROUP BY term, doc
), found AS MATERIALIZED (
    SELECT doc, key, length FROM ltm_texts SEMI JOIN (
        SELECT doc FROM often SEMI JOIN (FROM wanted WHERE decisive) USING (term)
        GROUP BY doc HAVING count(*) >= $needed
    ) USING (doc)
), rarities AS (
    SELECT term, ln(1 + ((SELECT count(*) FROM ltm_texts) - count(*) + 0.5) / (count(*) + 0.5))
        AS rarity
    FROM often GROUP BY term
)
SELECT key, sum(rarity * often * {K1 + 1} / (often + {K1} * ({1 - B} + {B} * length / mean)))
    AS score
FROM often JOIN found USING (doc) JOIN rarities USING (term),
    (SELECT avg(length) AS mean FROM found)
GROUP BY key
"""


def index_words(cursor: duckdb.DuckDBPyConnection, query: Query | None = None) -> None:
    """Index the column ``words`` of the entries; with *query* only the words that it seeks."""
    cursor.execute(_TEXTS)
    if query is None:
        cursor.execute(_WORDS.format(wanted="true"))
        return
    whole, prefixes = sorted(query.words), sorted(query.prefixes)
    wanted = " OR ".join(["word = ?"] * len(whole) + ["starts_with(word, ?)"] * len(prefixes))
    cursor.execute(_WORDS.format(wanted=wanted), [*whole, *prefixes])


def index_stems(cursor: duckdb.DuckDBPyConnection) -> None:
    """Index the column ``words`` by the extension fts, as well; in a database without others."""
    cursor.execute("PRAGMA create_fts_index('entries', 'key', 'words', ignore = '\\s+')")


def find_matches(cursor: duckdb.DuckDBPyConnection, query: Query) -> None:
    """Make the table ``matches``, of the keys and scores of what the index has for *query*."""
    wanted = [
        {
            "term": number,
            "size": len(term.words),
            "decisive": term in query.decisive,
            "step": step,
            "word": word,
            "prefix": term.prefix and step == len(term.words) - 1,
        }
        for number, term in enumerate(query.terms)
        for step, word in enumerate(term.words)
    ]
    needed = len(query.decisive) if query.every else 1
    cursor.execute(_MATCHES, {"wanted": json.dumps(wanted), "needed": needed})
