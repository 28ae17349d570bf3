"""Retrieving: rows of one moment, then their blobs, each checked before it is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from . import telemetry
from .entry import (
    FIRST_US,
    LAST_US,
    MAX_VALUE_BYTES,
    blob_path,
    check_key,
    decode,
)
from .errors import CorruptError, InvalidEntryError, StoreError, UnavailableError
from .protocols import Row
from .results import RetrieveResult
from .stores import Stores
from .transfer import fan_out

Named: TypeAlias = tuple[str, str]
"""A key and the blob its row names: a forged row may name another's."""


class Fetched(NamedTuple):
    """What a blob held."""

    value: Any
    content_hash: str
    """Of the text itself, encrypted or not."""


ROUNDS = 5
"""How often rows are read again because a blob was replaced meanwhile."""


class Read(NamedTuple):
    """What was found: a result or an error for each key with a live row."""

    rows: dict[str, Row]
    """The content hash of those with a value is that of the value itself, encrypted or not."""
    results: dict[str, RetrieveResult]
    errors: dict[str, StoreError]

    def result(self, key: str) -> RetrieveResult:
        """What was found under *key*; raises why it could not be read."""
        if key in self.errors:
            raise self.errors[key]
        return self.results.get(key) or RetrieveResult(key=key)


async def read_batch(
    stores: Stores, keys: Sequence[str], texts: dict[str, str] | None = None
) -> Read:
    """Read at most ``batch_size`` keys as of one moment.

    *texts* gets the canonical JSON that each value came from; without, none is held in memory.

    A blob that is gone or damaged has the rows read again. If they changed, the new ones
    count; if not, the blob is corrupt: it is never taken for a missing entry.
    """
    fetched: dict[Named, Fetched] = {}
    failed: dict[Named, StoreError] = {}
    for _ in range(ROUNDS):
        found = await stores.to_catalog.unanswered(
            stores.catalog.get_entries_batch, stores.namespace, keys
        )
        rows = {row.key: row for row in found}
        suspects = failed
        failed = {}
        todo = [
            row
            for row in found
            if row.blob_id is not None and (row.key, row.blob_id) not in fetched
        ]
        if todo:
            await _download(stores, todo, fetched, failed, texts)
        # What failed for the first time may have been replaced while it was read.
        if all(name in suspects or not _may_heal(exc) for name, exc in failed.items()):
            for (key, _), exc in failed.items():
                if isinstance(exc, CorruptError):
                    stores.damaged.add(key)
            return _decoded(stores, rows, fetched, failed, texts)
    busy = UnavailableError("the entry is replaced faster than its blob can be read")
    return _decoded(stores, rows, fetched, dict.fromkeys(failed, busy), texts)


def _may_heal(exc: StoreError) -> bool:
    return isinstance(exc, CorruptError)


async def _download(
    stores: Stores,
    rows: Sequence[Row],
    fetched: dict[Named, Fetched],
    failed: dict[Named, StoreError],
    texts: dict[str, str] | None,
) -> None:
    """Put the value of each row's blob into *fetched*, or why there is none into *failed*."""
    gate = stores.gates.get()

    async def download(row: Row) -> None:
        named = (row.key, row.blob_id or "")
        try:
            path = blob_path(stores.namespace, named[1])
            if not 0 <= row.byte_size <= MAX_VALUE_BYTES:
                raise CorruptError(f"a row says its blob has {row.byte_size} bytes")
            async with gate.admit(row.byte_size):
                data = await stores.to_blobs.unanswered(
                    stores.blobs.get, path, limit=stores.values.blob_bytes(row.byte_size) + 1
                )
                fetched[named] = await _checked(stores, row, data, texts)
            telemetry.transferred("down", row.byte_size)
        except StoreError as exc:
            failed[named] = exc

    await fan_out(rows, download, count=stores.max_concurrency)


async def _checked(
    stores: Stores, row: Row, data: bytes | None, texts: dict[str, str] | None
) -> Fetched:
    if data is None:
        raise CorruptError("a blob that a row names is missing")
    text, content_hash = await stores.values.open_blob(row, row.blob_id or "", data)
    value = decode(text)
    if texts is not None:
        texts[row.key] = text
    return Fetched(value, content_hash)


def _decoded(
    stores: Stores,
    rows: dict[str, Row],
    fetched: Mapping[Named, Fetched],
    failed: Mapping[Named, StoreError],
    texts: dict[str, str] | None,
) -> Read:
    results: dict[str, RetrieveResult] = {}
    errors: dict[str, StoreError] = {}
    open_inlined, result_of = stores.values.open_inlined, RetrieveResult.of
    for key, row in rows.items():
        _, _, row_hash, _, text, blob_id, metadata, _, _, _ = row
        try:
            check_instants(row)
            if text is not None:
                if blob_id is not None:
                    raise CorruptError("a row has a value and a blob at once")
                text, content_hash = open_inlined(row, text)
                value = decode(text)
                if texts is not None:
                    texts[key] = text
            elif blob_id is None:
                raise CorruptError("a row has neither a value nor a blob")
            elif (key, blob_id) in failed:
                raise failed[key, blob_id]
            else:
                value, content_hash = fetched[key, blob_id]
            if content_hash != row_hash:
                rows[key] = row = row._replace(content_hash=content_hash)
            decoded = {} if metadata == "{}" else decode_metadata(row)
            results[key] = result_of(key, value, decoded, row)
        except StoreError as exc:
            errors[key] = exc
    return Read(rows, results, errors)


def check_instants(row: Row) -> None:
    """A forged instant may be one that no datetime can hold."""
    _, _, _, _, _, _, _, expires_at, created_at, updated_at = row
    if not (
        FIRST_US <= created_at <= LAST_US
        and FIRST_US <= updated_at <= LAST_US
        and (expires_at is None or FIRST_US <= expires_at <= LAST_US)
    ):
        raise CorruptError("a row has an instant beyond all calendars")


def check_row(row: Row) -> dict[str, Any]:
    """The metadata of a row that can be shown."""
    check_instants(row)
    return decode_metadata(row)


def check_name(row: Row) -> None:
    """A row that nobody could ask for, for its key is none: forged, or text that is not UTF-8."""
    try:
        check_key(row.key)
    except InvalidEntryError as exc:
        raise CorruptError(f"a row's {exc}") from None


def decode_metadata(row: Row) -> dict[str, Any]:
    try:
        row.metadata.encode()
    except UnicodeEncodeError:
        raise CorruptError("a row's metadata is not UTF-8") from None
    metadata = decode(row.metadata)
    if type(metadata) is not dict:
        raise CorruptError("a row's metadata is not an object")
    return metadata
