"""Writers that do not lose each other's changes: if_absent, if_version and update."""

from __future__ import annotations

import asyncio
from typing import Any

from ltm_async import ConflictError, LTMBackend


def add_one(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "visits": value["visits"] + 1}


async def main() -> None:
    async with LTMBackend("sqlite:///memory.db", "./blobs") as ltm:
        await ltm.delete("counter")
        await ltm.store("counter", {"visits": 0}, if_absent=True)
        try:
            await ltm.store("counter", {"visits": 0}, if_absent=True)
        except ConflictError as exc:
            print("refused:", exc)

        mine = await ltm.retrieve("counter")
        await ltm.store("counter", {"visits": 10})  # somebody else was faster
        try:
            await ltm.store("counter", add_one(mine.value), if_version=mine.version)
        except ConflictError as exc:
            print("the entry now has version", exc.version, "not", mine.version)

        # update() reads, calls the function and writes back, again until nobody came between.
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(ltm.update("counter", add_one))
        print("after 20 updates side by side:", (await ltm.retrieve("counter")).value)


asyncio.run(main())
