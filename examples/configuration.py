"""A backend from the mapping of a configuration file, with the environment filled in."""

from __future__ import annotations

import asyncio
import os
import tomllib

from ltm_async import ConfigError, LTMBackend

SETTINGS = """
[ltm]
catalog = "sqlite:///${LTM_FILE:-memory.db}"
storage = "${LTM_BLOBS}"
namespace = "agent-7"
batch_size = 200
on_unavailable = "raise"
retry = { attempts = 3 }
"""


async def main() -> None:
    os.environ["LTM_BLOBS"] = "./blobs"  # what a deployment would set
    settings = tomllib.loads(SETTINGS)["ltm"]
    async with LTMBackend.from_config(settings) as ltm:
        await ltm.store("greeting", "hello")
        print(ltm, (await ltm.retrieve("greeting")).value)

    for wrong in ({"batch_sise": 200}, {"batch_size": 0}, {"storage": "${LTM_NO_SUCH_NAME}"}):
        try:
            LTMBackend.from_config({**settings, **wrong})
        except ConfigError as exc:
            print("refused:", exc)


asyncio.run(main())
