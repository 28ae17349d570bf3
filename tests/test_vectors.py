"""Searching by the caller's vectors, alone and beside the text; and functions that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import math
import pathlib
import random
import sqlite3
import sys
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy
import pytest

from ltm_async import (
    ConfigError,
    DeadlineError,
    InvalidEntryError,
    LTMBackend,
    MissingDriverError,
    StoreError,
    SyncLTMBackend,
    UnavailableError,
    nearest,
)
from ltm_async.catalogs.sqlite import statements as sqlite_statements
from ltm_async.testing.nearest import cosine
from ltm_async.text import MAX_PROSE, prose_of
from ltm_async.vectors import MAX_DIMENSIONS

from .backends import EMBEDDED_PAIRS, PAIRS, Rig, make_rig
from .corpus import INJECTIONS
from .databases import wait_for

DIMENSIONS = 24
WORDS = ["tea", "coffee", "milk", "water", "green", "black", "white", "hot", "cold", "cup", "leaf"]
WORDS += ["root"]


def vector_of(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Texts with words in common point in similar directions."""
    total = [1e-3] * dimensions
    for word in text.lower().split():
        source = random.Random(hashlib.sha256(word.encode()).digest())
        total = [number + source.gauss(0, 1) for number in total]
    return total


class Model:
    """An embedding function that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def __call__(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        return [vector_of(text) for text in texts]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture(params=PAIRS)
async def rig(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, model: Model
) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path, embed=model)
    yield rig
    assert (await rig.ltm.verify()).problems == {}
    await rig.aclose()


def texts_of(count: int, *, seed: int = 5) -> dict[str, str]:
    source = random.Random(seed)
    return {f"k{n:03}": " ".join(source.choices(WORDS, k=9)) + f" t{n}" for n in range(count)}


def by_cosine(texts: dict[str, str], query: str) -> list[str]:
    sought = vector_of(query)
    return sorted(texts, key=lambda key: (-round(cosine(vector_of(texts[key]), sought), 6), key))


async def keys_for(rig: Rig, query: str, **options: Any) -> list[str]:
    return [hit.key for hit in (await rig.ltm.search(query, **options)).results]


async def test_the_nearest_come_first_and_every_catalog_agrees(rig: Rig, model: Model) -> None:
    texts = texts_of(240)
    done = await rig.ltm.store_batch({"key": k, "value": {"t": t}} for k, t in texts.items())
    assert done.success
    for query in ("root leaf", "Hot, hot tea?", "cold milk t77"):
        page = await rig.ltm.search(query, limit=20)
        assert [hit.key for hit in page.results] == by_cosine(texts, query)[:20]
        best = page.results[0]
        assert best.score == pytest.approx(
            cosine(vector_of(texts[best.key]), vector_of(query)), abs=1e-5
        )
        assert (page.total, page.cursor) == (200, "20")  # as many as are ranked
    assert model.asked[-3:] == [["root leaf"], ["Hot, hot tea?"], ["cold milk t77"]]


async def test_a_batch_is_one_call_of_the_function_and_one_of_the_catalog(
    rig: Rig, model: Model
) -> None:
    texts = texts_of(500)
    assert (await rig.ltm.store_batch({"key": k, "value": t} for k, t in texts.items())).success
    # Firestore's commits are smaller, the first of them as if vectors were as long as may be.
    batches = 2 if rig.catalog.name == "firestore" else 1
    assert len(model.asked) == batches
    assert [*itertools.chain(*model.asked)] == list(texts.values())
    assert rig.faults.steps == ["catalog.track_entries_batch"] * batches
    await rig.ltm.search("tea")
    assert rig.faults.steps[batches:] == ["catalog.nearest_entries"]


async def test_a_vector_goes_wherever_its_value_goes(rig: Rig) -> None:
    pad = "." * 2_000
    await rig.ltm.store("small", {"a": {"b": ["one", {"c": "tea"}]}, "n": 5})
    await rig.ltm.store("large", {"text": f"tea {pad} milk"})
    assert set(await keys_for(rig, "tea")) == {"small", "large"}
    await rig.ltm.update("small", lambda value: {**value, "more": "water water water"})
    assert (await keys_for(rig, "water"))[0] == "small"
    await rig.ltm.touch("small", ttl=60)
    await rig.ltm.store("large", {"text": f"tea {pad} milk"}, metadata={"again": True})
    assert await keys_for(rig, "tea", metadata_filter={"again": True}) == ["large"]
    rig.clock.advance(61)
    assert await keys_for(rig, "water") == ["large"]
    await rig.ltm.cleanup_expired()
    await rig.ltm.delete_batch(["small", "large"])
    assert await keys_for(rig, "water") == []


async def test_a_filter_chooses_among_the_nearest(rig: Rig) -> None:
    texts = texts_of(60)
    await rig.ltm.store_batch(
        {"key": key, "value": text, "metadata": {"n": n, "a.b": n % 3}}
        for n, (key, text) in enumerate(texts.items())
    )
    filters: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
        ({"n": {"$lt": 7}}, lambda n: n < 7),
        ({"a.b": {"$in": [0, 1]}, "n": {"$gt": 50}}, lambda n: n % 3 < 2 and n > 50),
        ({"n": {"$exists": False}}, lambda _: False),
    ]
    for given, holds in filters:
        wanted = {key: text for n, (key, text) in enumerate(texts.items()) if holds(n)}
        found = await keys_for(rig, "green leaf", metadata_filter=given, limit=100)
        assert found == by_cosine(wanted, "green leaf")


async def test_pages_of_the_nearest(rig: Rig) -> None:
    texts = texts_of(25)
    await rig.ltm.store_batch({"key": key, "value": text} for key, text in texts.items())
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor is not None:
        page = await rig.ltm.search("cup", limit=10, cursor=cursor)
        pages.append([hit.key for hit in page.results])
        cursor = page.cursor
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [*itertools.chain(*pages)] == by_cosine(texts, "cup")


@pytest.mark.parametrize("pair", PAIRS)
async def test_both_rankings_are_fused_by_their_ranks(
    pair: str, tmp_path: pathlib.Path, model: Model
) -> None:
    rig = make_rig(pair, tmp_path, embed=model, index_text=True)
    texts = texts_of(50)
    await rig.ltm.store_batch({"key": key, "value": text} for key, text in texts.items())
    near = by_cosine(texts, "root leaf")
    rig.ltm._runner.stores()
    only_words = LTMBackend(rig.catalog, rig.blobs, index_text=True)
    by_words = [hit.key for hit in (await only_words.search("root leaf", limit=100)).results]
    assert 0 < len(by_words) < 50
    scores = dict.fromkeys(texts, 0.0)
    for ranking in (near, by_words):
        for rank, key in enumerate(ranking, 1):
            scores[key] += 1 / (60 + rank)
    page = await rig.ltm.search("root leaf", limit=50)
    assert [hit.key for hit in page.results] == sorted(scores, key=lambda k: (-scores[k], k))
    assert [hit.score for hit in page.results] == sorted(scores.values(), reverse=True)
    assert (page.total, page.cursor) == (50, None)
    await rig.aclose()


async def test_injections_are_texts_like_others(rig: Rig, model: Model) -> None:
    kept = [text for text in INJECTIONS if text.strip()]
    await rig.ltm.store_batch({"key": text, "value": [text]} for text in kept)
    for text in kept:
        assert text in await keys_for(rig, text, limit=len(kept))
        assert model.asked[-1] == [text]
    assert (await rig.ltm.stats()).entries == len(kept)


# What is embedded


def test_what_is_embedded_are_the_strings_as_they_are() -> None:
    assert (
        prose_of("k", {"b": "Two!", "a": ["One, ", 7, None, {"c": "東京"}]}) == "One,\n東京\nTwo!"
    )
    assert prose_of("key:7", {"n": 7, "blank": "  "}) == "key:7"
    assert prose_of("k", "x" * 20_000) == "x" * MAX_PROSE
    assert len(prose_of("k", ["word"] * 1_000_000)) <= MAX_PROSE


# A backend without


async def test_what_a_backend_without_embed_stores_is_near_no_longer(
    tmp_path: pathlib.Path, model: Model
) -> None:
    url = f"sqlite:///{tmp_path}/ltm.db"
    async with LTMBackend(url, tmp_path, embed=model) as searching:
        await searching.store("a", "tea")
        await searching.store("b", "tea")
        async with LTMBackend(url, tmp_path) as plain:
            with pytest.raises(ConfigError, match="index_text=True, or embed"):
                await plain.search("tea")
            await plain.store("a", "tea")
        assert [hit.key for hit in (await searching.search("tea")).results] == ["b"]


async def test_another_model_finds_what_it_has_stored(tmp_path: pathlib.Path, model: Model) -> None:
    url = f"sqlite:///{tmp_path}/ltm.db"
    async with (
        LTMBackend(url, tmp_path, embed=model) as one,
        LTMBackend(url, tmp_path, embed=lambda texts: [vector_of(t, 7) for t in texts]) as other,
    ):
        await one.store("a", "tea")
        await other.store("b", "tea")
        assert [hit.key for hit in (await one.search("tea")).results] == ["a"]
        assert [hit.key for hit in (await other.search("tea")).results] == ["b"]
        await other.store("a", "tea")
        assert [hit.key for hit in (await one.search("tea")).results] == []
        assert [hit.key for hit in (await other.search("tea")).results] == ["a", "b"]


# Functions of all kinds


def to_arrays(texts: list[str]) -> Any:
    return numpy.array([vector_of(text) for text in texts])


def to_single_precision(texts: list[str]) -> Any:
    return [numpy.array(vector_of(text), numpy.float32) for text in texts]


def to_tuples(texts: list[str]) -> Any:
    return tuple(tuple(map(round, vector_of(text))) for text in texts)


async def to_lists(texts: list[str]) -> Any:
    return [array("d", vector_of(text)) for text in texts]


def to_awaitable(texts: list[str]) -> Any:
    return to_lists(texts)


@pytest.mark.parametrize(
    "embed", [to_arrays, to_single_precision, to_tuples, to_lists, to_awaitable, Model()]
)
async def test_functions_and_sequences_of_all_kinds_do(embed: Any) -> None:
    async with LTMBackend("memory:", "memory:", embed=embed) as ltm:
        texts = texts_of(30)
        await ltm.store_batch({"key": key, "value": text} for key, text in texts.items())
        assert (await ltm.search(texts["k007"])).results[0].key == "k007"


async def test_a_plain_function_runs_beside_the_loop_and_an_async_one_on_it() -> None:
    threads: list[threading.Thread] = []

    def plain(texts: list[str]) -> list[list[float]]:
        threads.append(threading.current_thread())
        return [[1.0]] * len(texts)

    async def on_loop(texts: list[str]) -> list[list[float]]:
        return plain(texts)

    for embed in (plain, on_loop):
        async with LTMBackend("memory:", "memory:", embed=embed) as ltm:
            await ltm.store("k", "v")
    assert [thread is threading.current_thread() for thread in threads] == [False, True]


async def test_no_more_than_four_plain_calls_run_at_once() -> None:
    running = 0
    lock, go_on = threading.Lock(), threading.Event()

    def embed(texts: list[str]) -> list[list[float]]:
        nonlocal running
        with lock:
            running += 1
        assert go_on.wait(20)
        return [[1.0]] * len(texts)

    async with LTMBackend("memory:", "memory:", embed=embed) as ltm:
        stores = [asyncio.create_task(ltm.store(f"k{n}", "v")) for n in range(40)]
        await wait_for(lambda: running == 4)
        for _ in range(100):  # whoever could be the fifth has begun
            await asyncio.sleep(0)
        begun = running
        go_on.set()
        assert all(done.stored for done in await asyncio.gather(*stores))
    assert (begun, running) == (4, 40)


def test_the_blocking_backend_has_vectors_too(model: Model) -> None:
    with SyncLTMBackend("memory:", "memory:", embed=model) as ltm:
        ltm.store("a", "tea")
        ltm.store("b", "root")
        assert [hit["key"] for hit in ltm.search("tea")["results"]] == ["a", "b"]


# Functions that fail


HOSTILE: dict[str, Any] = {
    "None": None,
    "a number": 1.0,
    "text": "[[1.0], [1.0]]",
    "bytes": b"ab",
    "a mapping": {0: [1.0], 1: [1.0]},
    "a generator": (vector for vector in ([1.0], [1.0])),
    "a set": {(1.0,), (2.0,)},
    "none for two texts": [],
    "one for two texts": [[1.0]],
    "three for two texts": [[1.0]] * 3,
    "no vectors": [1.0, 2.0],
    "a vector that is None": [[1.0], None],
    "a vector of text": [["1.0"], ["2.0"]],
    "a vector that is text": ["ab", "cd"],
    "a vector that is bytes": [b"12345678", b"12345678"],
    "a vector that is a mapping": [{0: 1.0}, {0: 1.0}],
    "None in a vector": [[1.0, 2.0], [1.0, None]],
    "an empty vector": [[], []],
    "lengths that differ": [[1.0, 2.0], [1.0]],
    "too long": [[1.0] * (MAX_DIMENSIONS + 1)] * 2,
    "zero": [[0.0, 0.0], [1.0, 0.0]],
    "NaN": [[1.0, 0.0], [math.nan, 1.0]],
    "infinity": [[math.inf, 0.0], [1.0, 1.0]],
    "a huge integer": [[10**400], [1]],
    "complex": [[1j], [1j]],
    "nested": [[[1.0]], [[1.0]]],
    "an array of objects": numpy.array([[None], [None]]),
    "an array of no dimension": numpy.array(1.0),
    "NaN in an array": numpy.array([[numpy.nan, 1.0], [1.0, 1.0]]),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
async def test_an_answer_that_is_no_vectors_is_an_error_and_nothing_is_stored(
    answer: Any, tmp_path: pathlib.Path
) -> None:
    rig = make_rig("memory+memory", tmp_path, embed=lambda _: answer)
    done = await rig.ltm.store_batch({"key": key, "value": "v" * 2_000} for key in "ab")
    assert (done.stored, done.failed) == (0, 2)
    assert done.errors["a"].error_type == "StoreError"
    assert "embed must give" in done.errors["a"].error
    assert rig.faults.steps == []
    await rig.aclose()


async def test_a_function_that_fails_is_reported_without_its_words(tmp_path: pathlib.Path) -> None:
    async def embed(_: list[str]) -> Any:
        raise RuntimeError("401 for key sk-secret")

    rig = make_rig("memory+memory", tmp_path, embed=embed)
    with pytest.raises(UnavailableError, match=r"^embed failed with RuntimeError$") as raised:
        await rig.ltm.store("k", "v")
    assert isinstance(raised.value.__cause__, RuntimeError)
    with pytest.raises(UnavailableError):
        await rig.ltm.search("v")
    with pytest.raises(UnavailableError):
        await rig.ltm.update("k", lambda _: "v")
    done = await rig.ltm.store_batch([{"key": "k", "value": "v"}])
    assert (done.stored, "sk-secret" in str(done.to_dict())) == (0, False)
    assert rig.faults.steps == ["catalog.get_entries_batch"]  # of update
    await rig.aclose()


async def test_a_function_that_fails_degrades_a_call_like_a_store_that_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def embed(_: list[str]) -> Any:
        raise TimeoutError("sk-secret")

    async with LTMBackend("memory:", "memory:", embed=embed) as ltm:
        done = await ltm.store("k", "v")
        assert (done.success, done.stored, done.degraded) == (False, False, True)
        assert done.error_type == "UnavailableError"
        found = await ltm.search("v")
        assert (found.success, found.results) == (False, [])
        assert (await ltm.stats()).entries == 0
    assert "sk-secret" not in caplog.text


async def test_a_function_that_runs_out_or_takes_its_texts_away_is_an_error_too(
    tmp_path: pathlib.Path,
) -> None:
    def runs_out(_: list[str]) -> Any:
        return next(iter(()))

    def takes_away(texts: list[str]) -> Any:
        texts.clear()
        return []

    for embed in (runs_out, takes_away):
        rig = make_rig("memory+memory", tmp_path, embed=embed)
        with pytest.raises(StoreError, match="embed"):
            await rig.ltm.store("k", "v", timeout=20)
        assert rig.faults.steps == []
        await rig.aclose()


async def test_the_second_batch_fails_alone(tmp_path: pathlib.Path) -> None:
    def embed(texts: list[str]) -> Any:
        return [vector_of(text) for text in texts if text != "v7"]

    rig = make_rig("memory+memory", tmp_path, embed=embed, batch_size=5)
    done = await rig.ltm.store_batch({"key": f"k{n}", "value": f"v{n}"} for n in range(15))
    assert (done.stored, set(done.errors)) == (10, {f"k{n}" for n in range(5, 10)})
    await rig.aclose()


async def test_a_function_that_hangs_ends_with_the_call(tmp_path: pathlib.Path) -> None:
    ended = threading.Event()

    async def hangs(_: list[str]) -> Any:
        await asyncio.get_running_loop().create_future()

    for embed in (hangs, lambda _: ended.wait()):
        rig = make_rig("memory+memory", tmp_path, embed=embed)
        with pytest.raises(DeadlineError):
            await rig.ltm.store("k", "v", timeout=0.05)
        assert rig.faults.steps == []
        await rig.aclose()
    ended.set()


async def test_what_embed_must_be() -> None:
    for wrong in ("text", 7, [vector_of]):
        with pytest.raises(ConfigError, match="embed must be a function, not"):
            LTMBackend("memory:", "memory:", embed=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "query is blank"),
        (" \n", "query is blank"),
        (None, "query must be str, not NoneType"),
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogate"),
        ("ü" * 513, "query has 1026 bytes in UTF-8, the limit is 1024"),
    ],
)
async def test_bad_queries_are_refused_before_anything_is_asked(
    query: Any, words: str, model: Model
) -> None:
    ltm = LTMBackend("memory:", "memory:", embed=model)
    with pytest.raises(InvalidEntryError, match=words):
        await ltm.search(query)
    assert model.asked == []
    assert (await ltm.search("?!")).results == []  # no word, but a text


# Comparing one by one


@pytest.mark.parametrize("pair", EMBEDDED_PAIRS)
async def test_without_numpy_the_error_names_the_extra(
    pair: str, tmp_path: pathlib.Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(pair, tmp_path, embed=model)
    await rig.ltm.store("k", "tea")
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingDriverError, match=r"pip install 'ltm-async\[vectors\]'"):
        await rig.ltm.search("tea")
    await rig.aclose()


@pytest.mark.parametrize("pair", EMBEDDED_PAIRS)
async def test_more_vectors_than_can_be_compared_are_an_error_and_a_filter_helps(
    pair: str, tmp_path: pathlib.Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "MAX_COMPARED", 30)
    rig = make_rig(pair, tmp_path, embed=model)
    await rig.ltm.store_batch(
        {"key": key, "value": text, "metadata": {"n": n}}
        for n, (key, text) in enumerate(texts_of(31).items())
    )
    with pytest.raises(ConfigError, match="at most 30 vectors here"):
        await rig.ltm.search("tea")
    assert (await rig.ltm.search("tea", metadata_filter={"n": {"$lt": 30}})).total == 30
    await rig.aclose()


@pytest.mark.parametrize("pair", EMBEDDED_PAIRS)
async def test_pages_of_vectors_are_as_good_as_all_at_once(
    pair: str, tmp_path: pathlib.Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("memory", "sqlite.vectors"):
        monkeypatch.setattr(f"ltm_async.catalogs.{module}.PAGE", 7)
    rig = make_rig(pair, tmp_path, embed=model)
    texts = texts_of(300)
    await rig.ltm.store_batch({"key": key, "value": text} for key, text in texts.items())
    assert await keys_for(rig, "black root", limit=200) == by_cosine(texts, "black root")[:200]
    await rig.aclose()


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "ltm.db", isolation_level=None)) as db:
        yield db


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"1",
        b"\xff" * 4 * DIMENSIONS,
        b"\x00" * 4 * DIMENSIONS,
        b"\x00" * 400,
        b"\x00\x00\x80\x7f".ljust(4 * DIMENSIONS, b"\x00"),  # infinity
        b"\x00\x00\x80\xff".ljust(4 * DIMENSIONS, b"\x00"),
    ],
)
async def test_a_forged_vector_hides_no_other(
    forged: bytes, tmp_path: pathlib.Path, model: Model
) -> None:
    async with LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "b", embed=model) as ltm:
        await ltm.store_batch({"key": key, "value": "tea"} for key in "abc")
        with opened(tmp_path) as db:
            db.execute("UPDATE ltm_vectors SET vector = ? WHERE key = 'a'", (forged,))
            db.execute("UPDATE ltm_vectors SET key = 'gone' WHERE key = 'c'")
        page = await ltm.search("tea")
        assert page.results[0].key == "b"
        assert {hit.key for hit in page.results} <= {"a", "b"}


async def test_a_damaged_row_is_named_and_hides_no_other(
    tmp_path: pathlib.Path, model: Model
) -> None:
    url = f"sqlite:///{tmp_path}/ltm.db"
    async with LTMBackend(url, tmp_path / "b", embed=model, index_text=True) as ltm:
        await ltm.store_batch({"key": key, "value": "tea"} for key in "ab")
        with opened(tmp_path) as db:
            db.execute("UPDATE ltm_entries SET metadata = '[1]' WHERE key = 'a'")
        for given in (None, {"n": {"$exists": False}}):
            page = await ltm.search("tea", metadata_filter=given)
            assert [hit.key for hit in page.results] == ["b"]
            assert (list(page.errors), page.error_type) == (["a"], "CorruptError")


async def test_a_file_of_before_vectors_is_brought_up_to_date(
    tmp_path: pathlib.Path, model: Model
) -> None:
    url = f"sqlite:///{tmp_path}/ltm.db"
    async with LTMBackend(url, tmp_path / "b", index_text=True) as ltm:
        await ltm.store("old", "tea")
    with opened(tmp_path) as db:
        db.execute("DROP TABLE ltm_vectors")
        db.execute("DROP TABLE ltm_spaces")  # what came after them
        db.execute("PRAGMA user_version = 3")
    async with LTMBackend(url, tmp_path / "b", embed=model, index_text=True) as ltm:
        await ltm.store("new", "milk")
        assert [hit.key for hit in (await ltm.search("tea")).results] == ["new", "old"]  # a tie


async def test_who_has_no_vectors_writes_none_and_asks_for_none(tmp_path: pathlib.Path) -> None:
    statements: list[str] = []
    async with LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "b") as ltm:
        await ltm.open()
        await ltm.store("k", 0)
        catalog: Any = ltm._runner.stores().catalog
        await catalog._write(lambda conn, _: conn.set_trace_callback(statements.append))
        await ltm.store_batch({"key": f"k{n}", "value": n} for n in range(500))
    seen = [statement for statement in statements if "ltm_vectors" in statement]
    assert seen == [sqlite_statements.NEXT_VERSION]
