"""Items of LangGraph's store as entries, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from langgraph.store.base import Item, PutOp, SearchItem

from ltm_async.backend import LTMBackend
from ltm_async.entry import FIRST_US, LAST_US, MAX_TTL_S, shown, to_datetime
from ltm_async.errors import ConflictError, InvalidEntryError
from ltm_async.protocols import Row
from ltm_async.results import RetrieveResult
from ltm_async.transfer import fan_out

from .names import Name

NAMESPACE = "namespace"
"""The labels of the namespace by their places, for a search that looks into the metadata."""
TTL_MINUTES = "ttl_minutes"
UPDATED_US = "updated_us"
"""When the item was put, where its entry has been renewed since: microseconds since 1970."""
RENEWALS_AT_ONCE = 10


def entry_of(key: str, op: PutOp) -> dict[str, Any]:
    """What ``store_batch`` takes, for an *op* with a value."""
    if not isinstance(op.value, Mapping):
        raise InvalidEntryError(f"value must be a dict, not {type(op.value).__name__}")
    metadata: dict[str, Any] = {NAMESPACE: dict(_places(op.namespace))}
    entry = {"key": key, "value": dict(op.value), "metadata": metadata}
    if op.ttl is None:
        return entry
    if not _is_ttl(op.ttl):
        raise InvalidEntryError(
            f"ttl is {shown(op.ttl)}, it must be minutes, above 0 and at most {MAX_TTL_S // 60}"
        )
    metadata[TTL_MINUTES] = op.ttl
    return {**entry, "ttl": op.ttl * 60}


def within(namespace: tuple[str, ...]) -> dict[str, Any]:
    """A filter of metadata for the items in *namespace* and beneath it."""
    labels = [{"$path": [NAMESPACE, place], "$eq": label} for place, label in _places(namespace)]
    return {"$and": labels} if labels else {NAMESPACE: {"$exists": True}}


def _places(namespace: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return ((str(place), label) for place, label in enumerate(namespace))


def item_of(name: Name, hit: RetrieveResult) -> Item:
    return Item(
        value=hit.value,
        key=name.key,
        namespace=name.namespace,
        created_at=_created_at(hit),
        updated_at=to_datetime(updated_us(hit.metadata, _row(hit).updated_at)),
    )


def search_item_of(name: Name, hit: RetrieveResult, score: float | None) -> SearchItem:
    return SearchItem(
        namespace=name.namespace,
        key=name.key,
        value=hit.value,
        created_at=_created_at(hit),
        updated_at=to_datetime(updated_us(hit.metadata, _row(hit).updated_at)),
        score=score,
    )


def updated_us(metadata: Mapping[str, Any], changed_us: int) -> int:
    """When an item was put whose entry was changed last at *changed_us*."""
    put_us = metadata.get(UPDATED_US)
    return put_us if type(put_us) is int and FIRST_US <= put_us <= LAST_US else changed_us


async def renew(ltm: LTMBackend, hits: Sequence[RetrieveResult]) -> None:
    """Let the TTL of each item that has one begin again, unless it has been put anew since."""

    async def renew_one(hit: RetrieveResult) -> None:
        metadata = {
            **hit.metadata,
            UPDATED_US: updated_us(hit.metadata, _row(hit).updated_at),
        }
        try:
            # By compare-and-swap: a TTL must not reach an item that was put without one meanwhile.
            await ltm.store(
                hit.key,
                hit.value,
                metadata=metadata,
                ttl=hit.metadata[TTL_MINUTES] * 60,
                if_version=hit.version,
            )
        except ConflictError:
            return  # put or renewed by another, or gone

    ending = [hit for hit in hits if _is_ttl(hit.metadata.get(TTL_MINUTES))]
    if ending:
        await fan_out(ending, renew_one, count=RENEWALS_AT_ONCE)


def _is_ttl(minutes: Any) -> bool:
    return type(minutes) in {int, float} and 0 < minutes * 60 <= MAX_TTL_S


def _created_at(hit: RetrieveResult) -> datetime:
    return to_datetime(_row(hit).created_at)


def _row(hit: RetrieveResult) -> Row:
    return cast("Row", hit.row)  # it was found
