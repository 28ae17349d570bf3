"""Proving that rows, ledger and objects agree."""

from __future__ import annotations

import dataclasses

from .collecting import strays
from .entry import last_key
from .errors import CorruptError
from .protocols import LedgerBlob
from .reading import check_name, read_batch
from .stores import Stores

PAGE = 500


@dataclasses.dataclass(slots=True)
class Findings:
    """What was looked at, and what is wrong."""

    entries: int = 0
    blobs: int = 0
    byte_size: int = 0
    pending_blobs: int = 0
    dead_blobs: int = 0
    strays: int = 0
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    """What is wrong, by key."""


async def verify(stores: Stores) -> Findings:
    """Read every live entry with its blob, and compare the ledger and the storage with them.

    What other writers change meanwhile is looked at again before it counts as a problem.
    """
    found = Findings()
    named = await _verify_entries(stores, found)
    await _verify_ledger(stores, found, named)
    found.strays = len(await strays(stores, older_than_us=0, limit=PAGE))
    return found


async def _verify_entries(stores: Stores, found: Findings) -> dict[str, str]:
    """Check every live entry's value; return the keys by the blob they name."""
    named: dict[str, str] = {}
    after = ""
    while True:
        page = await stores.to_catalog.unanswered(
            stores.catalog.list_entries, stores.namespace, after=after, limit=stores.batch_size
        )
        names = []
        for row in page:
            try:
                check_name(row)
                names.append(row.key)
            except CorruptError as exc:
                found.problems[row.key] = str(exc)
        read = await read_batch(stores, names)
        found.problems.update((key, str(exc)) for key, exc in read.errors.items())
        for row in read.rows.values():
            found.entries += 1
            found.byte_size += row.byte_size
            if row.blob_id is not None:
                found.blobs += 1
                named[row.blob_id] = row.key
        if len(page) < stores.batch_size:
            return named
        after = last_key([row.key for row in page])


async def _verify_ledger(stores: Stores, found: Findings, named: dict[str, str]) -> None:
    """A blob is live exactly while a row names it; each page is one moment."""
    after = ""
    while page := await stores.to_catalog.unanswered(
        stores.catalog.list_blobs, stores.namespace, after=after, limit=PAGE
    ):
        for blob in page:
            found.pending_blobs += blob.state == "pending"
            found.dead_blobs += blob.state == "dead"
            if (blob.state == "live") != blob.named:
                found.problems[blob.key] = _disagreement(blob)
            named.pop(blob.blob_id, None)
        after = page[-1].blob_id
    for blob_id, key in named.items():  # not in the ledger: replaced meanwhile, or never there
        rows = await stores.to_catalog.unanswered(
            stores.catalog.get_entries_batch, stores.namespace, [key]
        )
        if any(row.blob_id == blob_id for row in rows):
            found.problems[key] = "its blob is not in the ledger"


def _disagreement(blob: LedgerBlob) -> str:
    if blob.named:
        return f"its blob is {blob.state} in the ledger"
    return "a blob is live in the ledger, but no row names it"
