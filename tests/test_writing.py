"""What a store does on its way that no result tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import pytest

from ltm_async import writing
from ltm_async.drafting import Draft, draft_all
from ltm_async.embedding import Embedder


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
