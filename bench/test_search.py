"""Search in 10,000 documents, and what its index costs, beside bare FTS5 and ``tsvector``.

The bare rivals write the same texts, as the database's own words, into a table with the same kind
of index, and take the keys of the 200 that it puts first. They count nothing.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Sequence

import asyncpg

from bench.conftest import Bench
from bench.figures import Figure, ratio
from bench.racing import blocking, race
from ltm_async import LTMBackend

Documents = Sequence[tuple[str, str]]
"""Keys and texts."""

WORDS = 40
BATCH = 500
BEST = 200


class Corpus:
    """Texts of words that are as frequent as words are: the n-th 1/n as often as the first."""

    def __init__(self) -> None:
        self._source = random.Random(8)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["".join(self._source.choices(letters, k=7)) for _ in range(20_000)]
        self._often = list(itertools.accumulate(1 / n for n in range(1, 20_001)))
        self._made = 0

    def more(self, count: int) -> Documents:
        self._made += count
        return [
            (
                f"doc:{number:07}",
                " ".join(self._source.choices(self.words, cum_weights=self._often, k=WORDS)),
            )
            for number in range(self._made - count, self._made)
        ]


def queries(corpus: Corpus) -> dict[str, str]:
    words = corpus.words
    return {
        "a rare word": words[3000],
        "a word of 1 in 100": words[30],
        "three words": f"{words[40]} {words[400]} {words[4000]}",
        "a phrase": f'"{words[1]} {words[2]}"',
    }


async def store(ltm: LTMBackend, documents: Documents) -> None:
    done = await ltm.store_batch({"key": key, "value": {"text": text}} for key, text in documents)
    assert done.raise_for_error().stored == len(documents)


async def search(ltm: LTMBackend, query: str) -> None:
    (await ltm.search(query, limit=BEST)).raise_for_error()


def test_search_on_sqlite(bench: Bench, folder: str) -> None:
    corpus, size = Corpus(), bench.pick(10_000, 50)
    conn = sqlite3.connect(f"{folder}/bare.db", isolation_level=None, check_same_thread=False)
    conn.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT UNIQUE, text TEXT);"
        "CREATE VIRTUAL TABLE words USING fts5 (text)"
    )

    def bare_store(documents: Documents) -> None:
        conn.execute("BEGIN IMMEDIATE")
        for key, text in documents:
            made = conn.execute("INSERT INTO entries (key, text) VALUES (?, ?)", (key, text))
            conn.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (made.lastrowid, text))
        conn.execute("COMMIT")

    def bare_search(query: str) -> None:
        match = " OR ".join(query.split()) if '"' not in query else query
        conn.execute(
            "SELECT key FROM words JOIN entries ON id = words.rowid "
            f"WHERE words MATCH ? ORDER BY rank LIMIT {BEST}",
            (match,),
        ).fetchall()

    async def main() -> list[Figure]:
        async with LTMBackend(
            f"sqlite:///{folder}/ltm.db", "memory:", index_text=True, timeout=None
        ) as ltm:
            built = await race(
                {"ours": lambda made: store(ltm, made), "bare FTS5": blocking(bare_store)},
                lambda _: corpus.more(BATCH if bench.full else 5),
                rounds=size // BATCH if bench.full else 2,
                at_most_s=60.0,
            )
            return [
                ratio("Search", f"SQLite, indexing {BATCH}", built.wall_ms, "bare FTS5"),
                *[
                    ratio(
                        "Search",
                        f"SQLite, {what} in {size:,}",
                        (
                            await race(
                                {
                                    "ours": lambda query: search(ltm, query),
                                    "bare FTS5": blocking(bare_search),
                                },
                                lambda _, query=query: query,  # type: ignore[misc]
                                rounds=bench.pick(30, 2),
                            )
                        ).wall_ms,
                        "bare FTS5",
                    )
                    for what, query in queries(corpus).items()
                ],
            ]

    bench.report(*bench.run(main))
    conn.close()


def test_search_on_postgres(bench: Bench, dsn: str) -> None:
    corpus, size = Corpus(), bench.pick(10_000, 50)

    async def main() -> list[Figure]:
        bare = await asyncpg.connect(dsn)
        await bare.execute(
            "CREATE TABLE bare (key text PRIMARY KEY, text text, words tsvector);"
            "CREATE INDEX ON bare USING gin (words)"
        )

        async def bare_store(documents: Documents) -> None:
            keys, texts = zip(*documents, strict=True)
            await bare.execute(
                "INSERT INTO bare SELECT k, t, to_tsvector('simple', t) "
                "FROM unnest($1::text[], $2::text[]) AS x (k, t)",
                keys,
                texts,
            )

        async def bare_search(query: str) -> None:
            joint = " <-> " if '"' in query else " | "
            await bare.fetch(
                f"SELECT key FROM bare, to_tsquery('simple', $1) AS q WHERE words @@ q "
                f"ORDER BY ts_rank(words, q) DESC LIMIT {BEST}",
                joint.join(query.strip('"').split()),
            )

        async with LTMBackend(dsn, "memory:", index_text=True, timeout=None) as ltm:
            built = await race(
                {"ours": lambda made: store(ltm, made), "bare tsvector": bare_store},
                lambda _: corpus.more(BATCH if bench.full else 5),
                rounds=size // BATCH if bench.full else 2,
                at_most_s=60.0,
            )
            await bare.execute("VACUUM ANALYZE")
            what = f"PostgreSQL, indexing {BATCH}"
            figures = [ratio("Search", what, built.wall_ms, "bare tsvector")]
            for what, query in queries(corpus).items():
                run = await race(
                    {"ours": lambda asked: search(ltm, asked), "bare tsvector": bare_search},
                    lambda _, query=query: query,  # type: ignore[misc]
                    rounds=bench.pick(30, 2),
                )
                title = f"PostgreSQL, {what} in {size:,}"
                figures.append(ratio("Search", title, run.wall_ms, "bare tsvector"))
        await bare.close()
        return figures

    bench.report(*bench.run(main))
