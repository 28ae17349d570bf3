"""Search in 10,000 and 100,000 documents, and what its index costs, beside FTS5 and ``tsvector``.

The bare rivals write the same texts, as the database's own words, into a table with the same kind
of index, and take the keys of the 200 that it puts first. They count nothing.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence

import asyncpg

from bench.conftest import Bench
from bench.figures import ratio
from bench.racing import WARMUP, blocking, race
from ltm_async import LTMBackend

Documents = Sequence[tuple[str, str]]
"""Keys and texts."""

WORDS = 40
BATCH = 500
BULK = 5_000
SIZES = [10_000, 100_000]
BEST = 200
BUDGET = 1.5


class Corpus:
    """Texts of words that are as frequent as words are: the n-th 1/n as often as the first."""

    def __init__(self) -> None:
        self._source = random.Random(8)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["".join(self._source.choices(letters, k=7)) for _ in range(20_000)]
        self._often = list(itertools.accumulate(1 / n for n in range(1, 20_001)))
        self.made = 0

    def more(self, count: int) -> Documents:
        self.made += count
        return [
            (
                f"doc:{number:07}",
                " ".join(self._source.choices(self.words, cum_weights=self._often, k=WORDS)),
            )
            for number in range(self.made - count, self.made)
        ]


def queries(corpus: Corpus) -> dict[str, str]:
    words = corpus.words
    return {
        "a rare word": words[3000],
        "a word of 1 in 100": words[30],
        "three words": f"{words[40]} {words[400]} {words[4000]}",
        "a phrase": f'"{words[1]} {words[2]}"',
    }


class Searched:
    """One side: it stores documents with an index of their words, and finds the best."""

    def __init__(
        self,
        store: Callable[[Documents], Awaitable[object]],
        search: Callable[[str], Awaitable[object]],
    ) -> None:
        self.store = store
        self.search = search


def searched(ltm: LTMBackend) -> Searched:
    async def store(documents: Documents) -> None:
        work = ({"key": key, "value": {"text": text}} for key, text in documents)
        assert (await ltm.store_batch(work)).raise_for_error().stored == len(documents)

    async def search(query: str) -> None:
        (await ltm.search(query, limit=BEST)).raise_for_error()

    return Searched(store, search)


async def measure(
    bench: Bench,
    catalog: str,
    sides: Mapping[str, Searched],
    settle: Callable[[], Awaitable[object]],
) -> None:
    """Index batch by batch up to the first size, and in bulk up to the next; search at each."""
    corpus, (_, rival) = Corpus(), sides
    sizes, batch = (SIZES, BATCH) if bench.full else ([50, 100], 5)
    built = await race(
        {name: side.store for name, side in sides.items()},
        lambda _: corpus.more(batch),
        rounds=sizes[0] // batch - WARMUP,
        at_most_s=20.0,
    )
    title = f"{catalog}, indexing {batch}"
    bench.report(ratio("Search", title, built.wall_ms, rival, limit=BUDGET))
    for size in sizes:
        while corpus.made < size:
            documents = corpus.more(min(BULK, size - corpus.made))
            for side in sides.values():
                await side.store(documents)
        await settle()
        for what, query in queries(corpus).items():
            run = await race(
                {name: side.search for name, side in sides.items()},
                lambda _, query=query: query,  # type: ignore[misc]
                rounds=bench.pick(30, 2),
            )
            title = f"{catalog}, {what} in {size:,}"
            bench.report(ratio("Search", title, run.wall_ms, rival, limit=BUDGET, size=size))


def test_search_on_sqlite(bench: Bench, folder: str) -> None:
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

    async def settle() -> None:
        conn.execute("PRAGMA wal_checkpoint")

    async def main() -> None:
        async with LTMBackend(
            f"sqlite:///{folder}/ltm.db", "memory:", index_text=True, timeout=None
        ) as ltm:
            bare = Searched(blocking(bare_store), blocking(bare_search))
            await measure(bench, "SQLite", {"ours": searched(ltm), "bare FTS5": bare}, settle)

    bench.run(main)
    conn.close()


def test_search_on_postgres(bench: Bench, dsn: str) -> None:
    async def main() -> None:
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
            rival = Searched(bare_store, bare_search)
            sides = {"ours": searched(ltm), "bare tsvector": rival}
            await measure(bench, "PostgreSQL", sides, lambda: bare.execute("VACUUM ANALYZE"))
        await bare.close()

    bench.run(main)
