"""Running ``ltm``, in this process and in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from ltm_async import LTMBackend

ROOT = pathlib.Path(__file__).parents[2]
CANARY = "canary-93d5"


class Done(NamedTuple):
    """What a run printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


def environment(folder: pathlib.Path, **more: str) -> dict[str, str]:
    clean = {  # PYTHONUNBUFFERED, for one, hides what a buffer does at the end
        name: value for name, value in os.environ.items() if not name.startswith(("LTM_", "PYTHON"))
    }
    return {
        **clean,
        "PYTHONPATH": str(ROOT),
        "LTM_CATALOG": f"sqlite:///{folder}/ltm.db",
        "LTM_STORAGE": f"{folder}/blobs",
        **more,
    }


def process(
    folder: pathlib.Path,
    *args: str,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Done:
    """A run in a process of its own."""
    done = subprocess.run(
        [python, "-W", "error", "-m", "ltm_async", *args],
        cwd=folder,
        env=environment(folder) if env is None else env,
        input=data,
        capture_output=True,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class started(subprocess.Popen[bytes]):  # noqa: N801  # reads as what it makes
    """A run that is under way, killed at the end if it still is."""

    def __init__(self, folder: pathlib.Path, *args: str) -> None:
        super().__init__(
            [sys.executable, "-W", "error", "-m", "ltm_async", *args],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __exit__(self, *exc: Any) -> None:
        self.kill()
        super().__exit__(*exc)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def fill(folder: pathlib.Path, count: int, size: int = 10) -> None:
    async def store() -> None:
        async with LTMBackend(f"sqlite:///{folder}/ltm.db", folder / "blobs") as memory:
            done = await memory.store_batch(
                {"key": f"k{number:06}", "value": f"{number} {'x' * size}"}
                for number in range(count)
            )
            assert done.stored == count

    asyncio.run(store())


def damage(folder: pathlib.Path, *keys: str) -> None:
    """Write something else into the blobs of *keys*, or of all."""
    with closing(sqlite3.connect(folder / "ltm.db")) as db:
        blobs = dict(db.execute("SELECT key, blob_id FROM ltm_entries").fetchall())
    for path in (folder / "blobs").rglob("*"):
        if path.is_file() and (not keys or path.name in {blobs[key] for key in keys}):
            path.write_text(f"{CANARY} was here")


def damage_row(folder: pathlib.Path, key: str) -> None:
    with closing(sqlite3.connect(folder / "ltm.db")) as db, db:
        changed = db.execute(
            "UPDATE ltm_entries SET metadata = ? WHERE key = ?", (f"{{{CANARY}", key)
        )
        assert changed.rowcount == 1
