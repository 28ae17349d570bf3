"""A backend from settings.ltm of an agent's YAML file."""

from __future__ import annotations

import asyncio
import os
import pathlib
from typing import Any

import yaml

from ltm_async import create_ltm_backend

AGENT = """
name: librarian
settings:
  ltm:
    catalog:
      type: sqlite
      path: ${AGENT_HOME}/memory.db
      synchronous: FULL
    storage:
      uri: ${AGENT_BLOBS:-./blobs}
    namespace: librarian
    on_unavailable: raise
"""


async def main(agent: Any) -> None:
    async with create_ltm_backend(agent["settings"]["ltm"]) as ltm:
        await ltm.store("shelf:1", ["Faust", "Emma"])
        print(agent["name"], "remembers", (await ltm.retrieve("shelf:1")).value)


if __name__ == "__main__":
    pathlib.Path("agent.yaml").write_text(AGENT)
    os.environ["AGENT_HOME"] = "."  # what a deployment would set
    asyncio.run(main(yaml.safe_load(pathlib.Path("agent.yaml").read_text())))
