"""What was exported, file by file into a blob store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from .. import telemetry
from ..calling import Caller
from ..entry import MAX_VALUE_BYTES
from ..errors import InvalidEntryError
from ..protocols import BlobStore
from ..retry import RetryPolicy
from ..worker import aside

FILE_BYTES = 32 * 1024 * 1024
"""About what a file has: a blob store is given each whole, from memory."""


async def upload(
    files: Sequence[Path], make: Callable[[], BlobStore], policy: RetryPolicy
) -> dict[str, int]:
    """Put *files* into a new folder of the store; the size of each by its storage URI.

    Where one fails, those before it are deleted again, as far as that is possible.
    """
    folder = f"export-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
    call = Caller("blob store", policy, telemetry.find())
    store = make()
    paths: list[str] = []
    sizes: dict[str, int] = {}
    try:
        for number, file in enumerate(files):
            data = await aside(partial(_read, file))
            paths.append(f"{folder}/entries-{number:05}.parquet")
            await call.unanswered(store.put, paths[-1], data)
            sizes[store.uri(paths[-1])] = len(data)
    except BaseException:
        await store.delete(paths)
        raise
    finally:
        await store.aclose()
    return sizes


def _read(file: Path) -> bytes:
    if file.stat().st_size > MAX_VALUE_BYTES:
        raise InvalidEntryError(
            f"a file of the export is larger than {MAX_VALUE_BYTES} bytes, so it is not put at"
            " once: export to a path, and copy it"
        )
    return file.read_bytes()
