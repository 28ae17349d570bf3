"""Out of a memory: every live entry as a line."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence

from ..backend import LTMBackend
from ..errors import CorruptError
from ..results import EntryInfo
from .lines import header, to_line

PAGE = 500
SLICE_BYTES = 8 * 1024 * 1024
"""Values that are read at once; one that is larger by itself goes alone."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole lines of an export."""

    data: bytes
    keys: tuple[str, ...] = ()
    """The entries in *data*, in order."""


async def export_entries(
    ltm: LTMBackend,
    *,
    on_damaged: Callable[[str, str], None],
    prefix: str = "",
    after: str | None = None,
    with_header: bool = True,
    slice_bytes: int = SLICE_BYTES,
) -> AsyncIterator[Chunk]:
    """Every live entry as lines, in the order of the keys' code points.

    Each chunk is as of one moment; an entry that is stored or deleted meanwhile may be in it or
    not. Memory is bounded by *slice_bytes* and the largest value.

    Args:
        on_damaged: Told the key of each entry that cannot be read, and what is wrong with it; it
            is left out, and the export goes on.
        prefix: Only keys that start with it; plain text.
        after: Only keys above this one, such as the last one that an earlier export wrote.

    Raises:
        StoreError: A store failed; all chunks so far are good.
    """
    told: Collection[str] = ()
    while True:
        page = await ltm.list_entries(prefix, cursor=after, limit=PAGE)
        if not page.errors:
            page.raise_for_error()
        if with_header:  # not before the catalog has answered
            yield Chunk(data=header())
            with_header = False
        for key, damage in page.errors.items():
            if key not in told:  # a page may begin with what the one before ended with
                on_damaged(key, damage.error)
        told = page.errors
        for keys in _slices(page.entries, slice_bytes):
            yield await _chunk(ltm, keys, on_damaged)
        if page.cursor is None:
            return
        after = page.cursor


async def _chunk(
    ltm: LTMBackend, keys: Sequence[str], on_damaged: Callable[[str, str], None]
) -> Chunk:
    read = await ltm.retrieve_batch(keys)
    lines: dict[str, bytes] = {}
    for key in keys:
        hit = read.results.get(key)
        if (failure := read.errors.get(key)) is not None:
            if failure.error_type == CorruptError.__name__:
                on_damaged(key, failure.error)
                continue
            # A store that is down is no damage: asked for alone, it comes or says so.
            hit = (await ltm.retrieve(key)).raise_for_error()
        if hit is not None and hit.found:  # else deleted or expired since it was listed
            lines[key] = to_line(hit)
    return Chunk(data=b"".join(lines.values()), keys=tuple(lines))


def _slices(entries: Iterable[EntryInfo], slice_bytes: int) -> Iterator[list[str]]:
    """Keys in turn, as many as come to *slice_bytes* of values."""
    keys: list[str] = []
    size = 0
    for entry in entries:
        if keys and size + entry.byte_size > slice_bytes:
            yield keys
            keys, size = [], 0
        keys.append(entry.key)
        size += entry.byte_size
    if keys:
        yield keys
