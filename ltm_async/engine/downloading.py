"""Parquet files out of a blob store, one after another."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..calling import Caller
from ..entry import MAX_VALUE_BYTES, shown
from ..errors import InvalidEntryError
from ..protocols import BlobStore
from ..retry import RetryPolicy
from ..worker import aside

SUFFIX = ".parquet"
MAX_FILES = 10_000
MAX_FILE_BYTES = MAX_VALUE_BYTES
"""What is read at once, into memory, before it is written to a file."""


class Stored(NamedTuple):
    """Where Parquet files are: one that is named, or all that a store has."""

    make: Callable[[], BlobStore]
    name: str | None


async def download(
    source: Stored, folder: Path, policy: RetryPolicy
) -> AsyncGenerator[tuple[str, Path], None]:
    """The name of each file in turn and a copy of it in *folder*, which is gone after its turn."""
    call = Caller("blob store", policy)
    store = source.make()
    try:
        names = [source.name] if source.name else await call.unanswered(_list, store)
        for name in names:
            data = await call.unanswered(store.get, name, limit=MAX_FILE_BYTES + 1)
            if data is None:
                raise InvalidEntryError(f"path has no file {shown(name)}")
            if len(data) > MAX_FILE_BYTES:
                raise InvalidEntryError(
                    f"path has a file {shown(name)} of more than {MAX_FILE_BYTES} bytes, which is"
                    " not read at once: copy it to this machine, and import that"
                )
            copy = folder / f"import-{secrets.token_hex(8)}{SUFFIX}"
            try:
                await aside(partial(copy.write_bytes, data))
                del data
                yield name, copy
            finally:
                await aside(partial(copy.unlink, missing_ok=True))
    finally:
        await store.aclose()


async def _list(store: BlobStore) -> list[str]:
    names: list[str] = []
    async for info in store.scan(""):
        if info.path.endswith(SUFFIX):
            names.append(info.path)
            if len(names) > MAX_FILES:
                break
    if not 1 <= len(names) <= MAX_FILES:
        count = f"more than {MAX_FILES}" if names else "no"
        raise InvalidEntryError(f"path has {count} files *{SUFFIX}, it must have 1 to {MAX_FILES}")
    return sorted(names)
