"""``ltm query``: rows as JSON lines."""

from __future__ import annotations

import pathlib

import pytest

from .running import CANARY, Run, damage_row, fill


def test_rows_are_objects_with_json_as_it_is(ltm: Run) -> None:
    ltm("store", "note:1", '{"likes": ["tea"], "n": 1}', "--metadata", '{"from": "chat"}')
    ltm("store", "note:2", '{"likes": [], "n": 2}')
    ltm("store", "page:1", "3")
    done = ltm(
        "query",
        "SELECT key, value->'likes' AS likes, metadata, created_at, 1.5::DECIMAL(9, 2) AS d,"
        " 'nan'::FLOAT AS f, NULL AS nothing FROM entries ORDER BY key",
        "--prefix",
        "note:",
    )
    assert (done.code, done.err) == (0, "")
    first, second = done.lines
    assert first.pop("created_at").endswith("Z")
    assert first == {
        "key": "note:1",
        "likes": ["tea"],
        "metadata": {"from": "chat"},
        "d": "1.50",
        "f": "nan",
        "nothing": None,
    }
    assert (second["key"], second["likes"]) == ("note:2", [])


def test_entries_can_be_chosen_by_metadata_and_without_values(ltm: Run) -> None:
    for n in range(3):
        ltm("store", f"k{n}", "1", "--metadata", f'{{"n": {n}}}')
    sql = "SELECT count(*) AS count FROM entries"
    assert ltm("query", sql, "--where", '{"n": {"$gt": 0}}', "--without-values").lines == [
        {"count": 2}
    ]
    assert ltm("query", "FROM entries", "--without-values").lines[0].keys().isdisjoint({"value"})


def test_words_are_searched_beside_the_entries(ltm: Run) -> None:
    for key, text in (("a", "green tea"), ("b", "tea tea"), ("c", "coffee")):
        ltm("store", key, f'"{text}"')
    done = ltm(
        "query",
        "SELECT key, value FROM matches JOIN entries USING (key) ORDER BY score DESC",
        "--search",
        "tea",
    )
    assert done.lines == [{"key": "b", "value": "tea tea"}, {"key": "a", "value": "green tea"}]
    assert ltm("query", "SELECT 1", "--search", "!").code == 2


def test_more_rows_than_the_limit_are_told_of(ltm: Run) -> None:
    done = ltm("query", "FROM range(5)", "--limit", "2")
    assert (done.code, len(done.lines), done.err) == (
        0,
        2,
        "ltm: there are more rows: --limit is 2\n",
    )


@pytest.mark.parametrize(
    "args", [["SELEC"], ["FROM read_text('/etc/passwd')"], ["SELECT 1", "--where", "{"]]
)
def test_sql_that_is_refused_is_2(ltm: Run, args: list[str]) -> None:
    done = ltm("query", *args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("ltm: ")


def test_an_entry_that_is_damaged_is_named_and_is_3(ltm: Run, folder: pathlib.Path) -> None:
    fill(folder, 3)
    ltm("store", "torn", "1")
    damage_row(folder, "torn")
    done = ltm("query", "SELECT count(*) AS count FROM entries")
    assert done.code == 3
    assert done.lines == [{"count": 3}]
    assert "left out 'torn'" in done.err
    assert CANARY not in done.err
