"""What calls that cross are, and how it is judged what became of them.

``LTM_CROSSINGS=all``, as of ``make crossings``, has none left out.
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ltm_async import ConflictError, LTMBackend
from ltm_async.protocols import BlobStore, Catalog
from ltm_async.testing import ManualClock, RecordedClient, Recorder, check_history
from ltm_async.text import MAX_QUERY_BYTES, prose_of

ALL = os.environ.get("LTM_CROSSINGS") == "all"
LARGE = "x" * 3_000

THERE = ["nothing", "small", "large", "ended"]
"""What a key has before."""
OF_MANY = ["store small", "store large", "store the same", "delete"]
"""Calls that take any number of keys."""
OF_ONE = ["store first", "touch", "update"]
CALLS = [*OF_MANY, *OF_ONE, "sweep"]


def directions(texts: list[str]) -> list[list[float]]:
    """Equal where texts begin equal, and else hardly ever."""
    angles = [zlib.crc32(text[:MAX_QUERY_BYTES].encode()) / 2**32 * math.tau for text in texts]
    return [[math.cos(angle), math.sin(angle)] for angle in angles]


def client_of(
    recorder: Recorder, name: str, catalog: Catalog, blobs: BlobStore, namespace: str
) -> RecordedClient:
    ltm = LTMBackend(
        catalog,
        blobs,
        namespace=namespace,
        index_text=True,
        embed=directions,
        on_unavailable="raise",
    )
    return recorder.client(name, ltm)


@contextlib.contextmanager
def noting(what: str) -> Iterator[None]:
    """Whatever is raised says which crossing it was."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(what)
        raise


async def bring_about(client: RecordedClient, there: str, key: str, clock: ManualClock) -> None:
    match there:
        case "small":
            await client.store(key, ["word", "at first", key])
        case "large":
            await client.store(key, _large(key))
        case "ended":
            await client.store(key, _large(key), ttl=1)
            clock.advance(2)


async def call(client: RecordedClient, what: str, keys: Sequence[str]) -> None:
    """Calls that take one key take the first."""
    new = ["word", client.name, what]
    match what:
        case "store small":
            await client.store_batch([{"key": key, "value": [*new, key]} for key in keys])
        case "store large":
            await client.store_batch([{"key": key, "value": [*new, key, LARGE]} for key in keys])
        case "store the same":
            await client.store_batch([{"key": key, "value": _large(key)} for key in keys])
        case "delete":
            await client.delete_batch(keys)
        case "store first":
            with contextlib.suppress(ConflictError):
                await client.store(keys[0], [*new, LARGE], if_absent=True)
        case "touch":
            await client.touch(keys[0], metadata={"touched": True})
        case "update":
            await client.update(keys[0], [*new, LARGE])
        case "sweep":
            await client.ltm.cleanup_expired()
            await client.ltm.collect_garbage()


def _large(key: str) -> list[Any]:
    return ["word", "at first", key, LARGE]


async def judge(
    recorder: Recorder, catalog: Catalog, blobs: BlobStore, namespace: str, keys: Sequence[str]
) -> None:
    """At rest: an order explains what all were told, and rows, blobs, texts and vectors agree."""
    client = client_of(recorder, "judge", catalog, blobs, namespace)
    read = await client.retrieve_batch(keys)
    assert not read.errors
    assert check_history(recorder.history()) == []
    await client.ltm.collect_garbage()
    verified = await client.ltm.verify()
    assert (verified.problems, verified.pending_blobs) == ({}, 0)
    by_words = LTMBackend(catalog, blobs, namespace=namespace, index_text=True)
    assert (await scores_of(by_words, "word")).keys() == read.results.keys()
    by_meaning = LTMBackend(catalog, blobs, namespace=namespace, embed=directions)
    assert (await scores_of(by_meaning, "word")).keys() == read.results.keys()
    for key, hit in read.results.items():
        scores = await scores_of(by_meaning, prose_of(key, hit.value)[:MAX_QUERY_BYTES])
        assert scores[key] == pytest.approx(1, abs=1e-5), "it has the vector of another value"


async def scores_of(ltm: LTMBackend, query: str) -> dict[str, float]:
    found = (await ltm.search(query)).raise_for_error()
    return {hit.key: hit.score for hit in found.results}
