"""A process of its own that calls one cached action: ten times at once, when it is told to.

It says "ready", waits for a line, and writes the answers as JSON. The action notes its process in a
file for each run, and with ``hold`` ends when the file ``go`` is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import sys
from typing import Any

from ltm_async import LTMBackend, PostgresCatalog
from ltm_async.cache import Cache

from ..databases import wait_for

CALLERS = 10


async def main(dsn: str, schema: str, folder: str, hold: str) -> None:
    place = pathlib.Path(folder)

    async def find(word: str) -> dict[str, Any]:
        with (place / "runs").open("a") as runs:
            runs.write(f"{os.getpid()}\n")
        if hold:
            await wait_for((place / "go").exists, timeout_s=50)
        return {"word": word, "by": os.getpid()}

    catalog = PostgresCatalog(dsn, schema=schema, install=False)
    async with LTMBackend(catalog, place / "blobs", on_unavailable="raise") as ltm:
        cache = Cache(ltm, cleanup_probability=0, lease_wait=50)
        say("ready")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        answers = await asyncio.gather(
            *(cache.wrap(find, {"word": "tea"}, name="find") for _ in range(CALLERS))
        )
    await catalog.aclose()
    say(json.dumps(answers))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
