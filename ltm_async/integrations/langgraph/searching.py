"""Searching items: what was put last first, read page by page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import timedelta

from langgraph.store.base import SearchItem, SearchOp

from ltm_async.backend import LTMBackend
from ltm_async.entry import check_key, to_datetime
from ltm_async.filters import Filter, parse_filter
from ltm_async.results import EntryInfo, RetrieveResult

from .items import renew, search_item_of, updated_us
from .names import STORE_ROOT, Name, below, name_of
from .paging import First, check_window, page_after

VALUES_AT_ONCE = 500
VALUE_BYTES_AT_ONCE = 8 * 1024 * 1024
_EPOCH = to_datetime(0)


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """An item that may be among the results."""

    name: Name
    key: str
    updated_us: int
    byte_size: int
    hit: RetrieveResult | None = dataclasses.field(default=None, compare=False)
    """Its entry, where it had to be read."""

    @property
    def rank(self) -> tuple[int, str]:
        return -self.updated_us, self.key


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """A search that has been checked."""

    prefix: str
    filter: Filter | None
    limit: int
    offset: int
    refresh_ttl: bool

    @classmethod
    def of(cls, op: SearchOp) -> Search:
        """What *op* asks for.

        Raises:
            InvalidEntryError: A filter or limit cannot be used.
            NotImplementedError: It has a query.
        """
        if op.query is not None:
            raise NotImplementedError("LTMStore searches by namespace and filter, not by query")
        check_window(op.limit, op.offset)
        prefix = below(STORE_ROOT, tuple(op.namespace_prefix))
        check_key(prefix, "namespace_prefix, as the prefix of entries' keys,")
        return cls(
            prefix=prefix,
            filter=parse_filter(op.filter, "filter") if op.filter else None,
            limit=op.limit,
            offset=op.offset,
            refresh_ttl=op.refresh_ttl,
        )

    async def run(self, ltm: LTMBackend) -> list[SearchItem]:
        """Its items; those with a TTL renewed, if asked for.

        Raises:
            StoreError: A store failed, or an entry below the namespace is damaged.
        """
        first: First[Candidate] = First(self.offset + self.limit, rank=lambda one: one.rank)
        cursor: str | None = None
        while self.limit:
            page = await page_after(ltm, self.prefix, cursor)
            for candidate in await self._matching(ltm, first, _candidates(page.entries)):
                first.add(candidate)
            cursor = page.cursor
            if cursor is None:
                break
        chosen = first.ranked()[self.offset :]
        hits = {one.key: one.hit for one in chosen if one.hit is not None}
        for batch in _batches(one for one in chosen if one.hit is None):
            hits |= await _read(ltm, batch)
        found = [(one, hit) for one in chosen if (hit := hits.get(one.key)) is not None]
        if self.refresh_ttl:
            await renew(ltm, [hit for _, hit in found])
        return [search_item_of(one.name, hit) for one, hit in found]

    async def _matching(
        self, ltm: LTMBackend, first: First[Candidate], candidates: list[Candidate]
    ) -> list[Candidate]:
        """Those of *candidates* that the filter holds for, and that could be among *first*."""
        wanted = sorted(filter(first.admits, candidates), key=lambda one: one.rank)
        if self.filter is None:
            return wanted
        matching = []
        for batch in _batches(wanted):
            hits = await _read(ltm, batch)
            matching += [
                dataclasses.replace(one, hit=hits[one.key])
                for one in batch
                if one.key in hits and self.filter.matches(hits[one.key].value)
            ]
            if len(matching) >= self.offset + self.limit:
                break  # what is left of the page was put before all of these
        return matching


def _candidates(entries: Iterable[EntryInfo]) -> list[Candidate]:
    return [
        Candidate(
            name=name,
            key=entry.key,
            updated_us=updated_us(
                entry.metadata, (entry.updated_at - _EPOCH) // timedelta(microseconds=1)
            ),
            byte_size=entry.byte_size,
        )
        for entry in entries
        if (name := name_of(STORE_ROOT, entry.key)) is not None
    ]


def _batches(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """As many at once as memory is meant to hold."""
    batch: list[Candidate] = []
    size = 0
    for candidate in candidates:
        full = len(batch) == VALUES_AT_ONCE or size + candidate.byte_size > VALUE_BYTES_AT_ONCE
        if batch and full:
            yield batch
            batch, size = [], 0
        batch.append(candidate)
        size += candidate.byte_size
    if batch:
        yield batch


async def _read(ltm: LTMBackend, batch: list[Candidate]) -> dict[str, RetrieveResult]:
    return (await ltm.retrieve_batch(one.key for one in batch)).raise_for_error().results
