"""What a store does on its way that no result tells."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import pytest

from ltm_async import FencedError, LTMBackend, MemoryBlobStore, MemoryCatalog, writing
from ltm_async.drafting import Draft, draft_all
from ltm_async.embedding import Embedder
from ltm_async.testing import Faults

from .backends import make_rig


async def vectors(drafts: Sequence[Draft]) -> Collection[str]:
    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0]] * len(texts)

    return await writing._vectors(Embedder(embed), drafts)


@pytest.mark.parametrize("make", [writing._texts, vectors], ids=["words", "vectors"])
async def test_others_get_a_turn_while_texts_are_made(
    make: Callable[[Sequence[Draft]], Awaitable[Collection[str]]],
) -> None:
    """One for every twenty texts, and none that nobody needs."""
    drafts = await draft_all(
        ({"key": f"k{n}", "value": "tea"} for n in range(99)), keep_bytes=1_000_000
    )
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    made = await make(drafts)
    assert (len(made), turns) == (99, 99 // writing.PAUSE_EVERY_TEXTS)
    counting.cancel()


@pytest.mark.parametrize(
    ("sizes", "pauses"),
    [
        ([100, 100, 99, 1, 300], [1, 2, 4, 5]),
        ([60, 39, 60, 40, 1], [3]),
        ([1_024] * 5, []),  # blobs, of which a commit has the names
    ],
)
async def test_others_get_a_turn_while_rows_are_made(
    sizes: list[int], pauses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Draft] = []
    paused: list[int] = []
    drafts = await draft_all(
        ({"key": f"k{n}", "value": "x" * (size - 2)} for n, size in enumerate(sizes)),
        keep_bytes=10_000,
    )

    def one_by_one() -> Any:
        for draft in drafts:
            given.append(draft)
            yield draft

    async def sleep(seconds: float) -> None:
        assert seconds == 0
        paused.append(len(given))

    monkeypatch.setattr(writing, "PAUSE_EVERY_BYTES", 100)
    monkeypatch.setattr("ltm_async.writing.asyncio.sleep", sleep)
    async with LTMBackend(MemoryCatalog(), MemoryBlobStore()) as ltm:
        await writing._to_writes(ltm._runner.stores(), one_by_one(), {}, {}, {})
    assert paused == pauses


async def test_what_has_no_words_is_embedded_by_its_key() -> None:
    given: list[str] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        given.extend(texts)
        return [[1.0]] * len(texts)

    drafts = await draft_all(
        [{"key": "k", "value": [7]}, {"key": "l", "value": ["Tea"]}], keep_bytes=0
    )
    assert list(await writing._vectors(Embedder(embed), drafts)) == ["k", "l"]
    assert given == ["k", "Tea"]


async def test_a_write_that_is_fenced_is_tried_three_times_in_all(tmp_path: pathlib.Path) -> None:
    class Fenced(Faults):
        async def step(self, name: str, call: Any) -> Any:
            if name == "catalog.track_entries_batch":
                self.steps.append(name)
                raise FencedError("in a test")
            return await super().step(name, call)

    rig = make_rig("memory+memory", tmp_path, Fenced())
    with pytest.raises(FencedError):
        await rig.ltm.store("k", "x" * 5_000)
    assert rig.faults.steps.count("catalog.track_entries_batch") == 3
    assert rig.faults.steps.count("blobs.put") == 3  # each under a name of its own
    rig.clock.advance(3_600)
    await rig.ltm.collect_garbage()
    assert await rig.objects() == set()
