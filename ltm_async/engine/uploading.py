"""What was exported, file by file into a blob store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ..calling import Caller
from ..entry import MAX_VALUE_BYTES
from ..errors import InvalidEntryError
from ..protocols import BlobStore
from ..retry import RetryPolicy
from ..worker import aside

FILE_BYTES = 32 * 1024 * 1024
"""About what a file has: a blob store is given each whole, from memory."""
MAX_NAME_BYTES = 512
"""Of a file, of the 1,024 that an object's name may have; the others are the storage URI's."""


async def upload(
    root: Path, files: Sequence[Path], make: Callable[[], BlobStore], policy: RetryPolicy
) -> dict[str, int]:
    """Put *files* into a new folder of the store, in such folders as those below *root* that they
    are in; the size of each by its storage URI.

    Where one fails, those before it are deleted again, as far as that is possible.
    """
    folder = f"export-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
    names = [_name(folder, root, file, number) for number, file in enumerate(files)]
    call = Caller("blob store", policy)
    store = make()
    paths: list[str] = []
    sizes: dict[str, int] = {}
    try:
        for name, file in zip(names, files, strict=True):
            data = await aside(partial(_read, file))
            paths.append(name)
            await call.unanswered(store.put, name, data)
            sizes[store.uri(name)] = len(data)
    except BaseException:
        await store.delete(paths)
        raise
    finally:
        await store.aclose()
    return sizes


def _name(folder: str, root: Path, file: Path, number: int) -> str:
    """One in the folder of a file that was split is beside the others of its part."""
    parts = file.parent.relative_to(root).parts
    # The names are escaped like URLs, but for dots, which a store may take for a way out.
    levels = [part.replace("..", "%2E%2E") for part in parts if "=" in part]
    name = "/".join([folder, *levels, f"entries-{number:05}.parquet"])
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidEntryError(
            f"partition_by makes a name of {len(name.encode())} bytes, the limit is"
            f" {MAX_NAME_BYTES} in a store"
        )
    return name


def _read(file: Path) -> bytes:
    if file.stat().st_size > MAX_VALUE_BYTES:
        raise InvalidEntryError(
            f"a file of the export is larger than {MAX_VALUE_BYTES} bytes, so it is not put at"
            " once: export to a path, and copy it"
        )
    return file.read_bytes()
