"""What is SQLite's own of a search: what it reads, and the index of older files."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from contextlib import closing
from typing import NamedTuple

import pytest

from ltm_async import SQLiteCatalog
from ltm_async.catalogs.sqlite import database, texts
from ltm_async.protocols import Matches
from ltm_async.testing.writes import new_write_id, small
from ltm_async.text import mark_of, parse_query, text_of

FILL = """
WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n LIMIT ?)
INSERT INTO ltm_entries SELECT ?, 'k' || n, 1, 'w', 'h', 2, '12', NULL, '{}', NULL, 1, 1 FROM n"""
NEEDLES = 10


class Cost(NamedTuple):
    matches: Matches
    steps: int
    """Of SQLite's virtual machine."""
    read: int
    """Bytes, by a connection that has read nothing yet: FTS5 does its work beside the machine."""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "ltm.db")


def fill(path: str, namespace: str, entries: int) -> None:
    """Entries that have ``tea``, of which ten, all over them, have ``needle``."""
    every = entries // NEEDLES
    with closing(database.connect(path, "NORMAL")) as conn:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(FILL, (entries, namespace))
        words = [f"k{n} tea {'needle' if n % every == 0 else 'hay'}" for n in range(entries)]
        texts.add(conn, namespace, [(f"k{n}", text) for n, text in enumerate(words)])
        conn.execute("COMMIT")


def cost(path: str, namespace: str, query: str) -> Cost:
    steps: list[None] = []
    with closing(database.connect_reader(path, "NORMAL")) as conn:
        conn.set_progress_handler(lambda: steps.append(None), 10)
        before = read_so_far()
        found = texts.search(conn, 1, namespace, parse_query(query), None, 200)
        return Cost(found, len(steps) * 10, read_so_far() - before)


def read_so_far() -> int:
    """Bytes that this thread has read from files, whether they were in memory or not."""
    if sys.platform != "linux":
        return 0
    status = pathlib.Path("/proc/thread-self/io").read_text()
    return int(status.split("rchar: ")[1].split()[0])


@pytest.mark.parametrize("query", ["needle", "needle k0", '"tea needle"', "nee*"])
def test_a_rare_word_takes_as_much_in_a_large_namespace(tmp_path: pathlib.Path, query: str) -> None:
    costs = []
    for entries in (1_000, 20_000):
        path = str(tmp_path / f"{entries}.db")
        fill(path, "", entries)
        costs.append(cost(path, "", query))
        assert (costs[-1].matches.total, costs[-1].matches.entries) == (NEEDLES, entries)
    few, many = costs
    assert many.steps <= 1.5 * few.steps, costs
    assert many.read <= 2.5 * few.read, costs


@pytest.mark.parametrize("query", ["needle", "tea", '"tea needle"'])
@pytest.mark.parametrize("place", ["a", "m", "z"])
def test_a_small_namespace_takes_as_much_beside_a_large_one(
    tmp_path: pathlib.Path, query: str, place: str
) -> None:
    """Whether its texts came before those of the others, between them or after them."""
    costs = []
    for beside in (20, 20_000):
        path = str(tmp_path / f"{beside}.db")
        for namespace in sorted(["f", "p", place]):
            fill(path, namespace, 10 if namespace == place else beside)
        costs.append(cost(path, place, query))
        assert (costs[-1].matches.total, costs[-1].matches.entries) == (10, 10)
    few, many = costs
    assert many.steps <= 1.5 * few.steps, costs
    assert many.read <= 4 * few.read, costs


def make_older(path: str) -> None:
    """A file of when texts had a word for their namespace and were not side by side."""
    with pytest.MonkeyPatch.context() as then:
        then.setattr(database, "MIGRATIONS", database.MIGRATIONS[:4])
        conn = database.connect(path, "NORMAL")
    with closing(conn):
        conn.execute("CREATE VIRTUAL TABLE ltm_words USING fts5 (space, words, tokenize = 'ascii')")
        for place, space in enumerate(["b", "a", "b", "", "a", "b"], 5):
            conn.execute("INSERT INTO ltm_texts VALUES (?, ?, ?)", (place, space, f"k{place}"))
            bound = (place, mark_of(space), f"k{place} tea")
            conn.execute("INSERT INTO ltm_words (rowid, space, words) VALUES (?, ?, ?)", bound)
        for space in ("", "a", "b"):
            conn.execute(FILL, (20, space))


async def test_texts_of_an_older_schema_are_found(path: str) -> None:
    await asyncio.to_thread(make_older, path)
    catalog = SQLiteCatalog(path)

    async def found(query: str, space: str) -> tuple[set[str], int]:
        matches = await catalog.search_entries(space, parse_query(query), wanted=None, limit=9)
        return {match.row.key for match in matches.found}, matches.entries

    assert await found("tea", "b") == ({"k5", "k7", "k10"}, 3)
    assert await found("tea", "a") == ({"k6", "k9"}, 2)
    assert await found("k8 k9", "") == ({"k8"}, 1)
    new = small("k5")._replace(words=text_of("k5", "coffee"))
    await catalog.track_entries_batch("b", [new], write_id=new_write_id())
    await catalog.delete_entries_batch("b", ["k7"], write_id=new_write_id())
    assert await found("tea", "b") == ({"k10"}, 2)
    assert await found("coffee", "b") == ({"k5"}, 2)
    await catalog.aclose()
