"""What a store does on its way that no result tells."""

from __future__ import annotations

import asyncio

from ltm_async import writing
from ltm_async.drafting import draft_all


async def test_others_get_a_turn_while_texts_are_made() -> None:
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
    texts = await writing._texts(drafts)
    assert (len(texts), turns) == (99, 99 // writing.PAUSE_EVERY_TEXTS)
    counting.cancel()
