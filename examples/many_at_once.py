"""Store and read many entries: each batch whole or not at all, and a report key by key."""

from __future__ import annotations

import asyncio

from ltm_async import InvalidEntryError, LTMBackend


async def main() -> None:
    pages = {f"page:{number}": f"text of page {number} " * (number % 90) for number in range(1200)}
    async with LTMBackend("sqlite:///memory.db", "./blobs", batch_size=500) as ltm:
        done = await ltm.store_batch(
            {"key": key, "value": text, "metadata": {"kind": "page"}} for key, text in pages.items()
        )
        print(f"stored {done.stored} of {len(pages)}, {done.failed} failed")
        print(f"{done.inlined} in their rows, {done.uploaded} as blobs, {done.byte_size} bytes")

        again = await ltm.store_batch({"key": key, "value": text} for key, text in pages.items())
        print(f"the same again: {again.deduplicated} were there, {again.uploaded} uploaded")

        read = await ltm.retrieve_batch([*pages, "page:none"])
        same = all(read.results[key].value == text for key, text in pages.items())
        print(f"found {read.found}, all equal: {same}, missing: {read.missing}")

        # Every entry is checked before the first is written.
        try:
            await ltm.store_batch([{"key": "fine", "value": 1}, {"key": "bad", "value": {1, 2}}])
        except InvalidEntryError as exc:
            print("refused:", exc)
        print("nothing of it was written:", not (await ltm.retrieve("fine")).found)


asyncio.run(main())
