"""Remember a value, read it back, look at what came with it, and delete it."""

from __future__ import annotations

import asyncio

from ltm_async import LTMBackend


async def main() -> None:
    async with LTMBackend("sqlite:///memory.db", "./blobs") as ltm:
        profile = {"name": "Ada", "likes": ["tea", "engines"]}
        stored = await ltm.store("user:7", profile, metadata={"source": "chat"})
        print("stored as version", stored.version, "inlined:", stored.inlined)

        hit = await ltm.retrieve("user:7")
        print("found:", hit.found, hit.value, dict(hit.metadata))

        # At 1,024 bytes of JSON and more a value becomes a blob: a file below ./blobs.
        essay = await ltm.store("essay", "words and words " * 500)
        print("a blob of", essay.byte_size, "bytes:", essay.storage_uri is not None)

        # None is a value like any other; whether there is an entry is another question.
        await ltm.store("nothing", None)
        nothing, nobody = await ltm.retrieve("nothing"), await ltm.retrieve("nobody")
        print("a stored None:", nothing.found, nothing.value, "- no entry:", nobody.found)

        for key in ("user:7", "essay", "nothing"):
            print("deleted", key, (await ltm.delete(key)).deleted)


asyncio.run(main())
