"""Searching items: what was put last first, read page by page, or what fits a query best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from langgraph.store.base import SearchItem, SearchOp

from ltm_async.backend import LTMBackend
from ltm_async.entry import check_key, to_datetime
from ltm_async.filters import Filter, parse_filter
from ltm_async.results import EntryInfo, RetrieveResult, SearchHit
from ltm_async.searching import MAX_RANKED, Sought

from .items import renew, search_item_of, updated_us, within
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
    score: float | None = None
    """How well it fits the query, if there is one."""
    hit: RetrieveResult | None = dataclasses.field(default=None, compare=False)
    """Its entry, where it had to be read."""

    @property
    def rank(self) -> tuple[int, str]:
        return -self.updated_us, self.key


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """A search that has been checked."""

    namespace: tuple[str, ...]
    query: str | None
    filter: Filter | None
    limit: int
    offset: int
    refresh_ttl: bool

    @classmethod
    def of(cls, op: SearchOp) -> Search:
        """What *op* asks for.

        Raises:
            InvalidEntryError: A namespace, query, filter or limit cannot be used.
        """
        check_window(op.limit, op.offset)
        namespace = tuple(op.namespace_prefix)
        check_key(below(STORE_ROOT, namespace), "namespace_prefix, as the prefix of entries' keys,")
        if op.query:
            Sought.of(op.query, by_words=False)  # the backend looks for words, if it is to
        return cls(
            namespace=namespace,
            query=op.query or None,
            filter=parse_filter(op.filter, "filter") if op.filter else None,
            limit=op.limit,
            offset=op.offset,
            refresh_ttl=op.refresh_ttl,
        )

    async def run(self, ltm: LTMBackend) -> list[SearchItem]:
        """Its items; those with a TTL renewed, if asked for.

        Raises:
            ConfigError: It has a query, and *ltm* keeps neither texts nor vectors.
            InvalidEntryError: Its query has no words for *ltm* to seek.
            StoreError: A store failed, or an entry below the namespace is damaged.
        """
        if self.limit == 0:
            return []
        ranked = await (self._newest(ltm) if self.query is None else self._best(ltm, self.query))
        chosen = ranked[self.offset : self.offset + self.limit]
        hits = {one.key: one.hit for one in chosen if one.hit is not None}
        for batch in _batches(one for one in chosen if one.hit is None):
            hits |= await _read(ltm, batch)
        found = [(one, hit) for one in chosen if (hit := hits.get(one.key)) is not None]
        if self.refresh_ttl:
            await renew(ltm, [hit for _, hit in found])
        return [search_item_of(one.name, hit, one.score) for one, hit in found]

    async def _newest(self, ltm: LTMBackend) -> list[Candidate]:
        first: First[Candidate] = First(self.offset + self.limit, rank=lambda one: one.rank)
        cursor: str | None = None
        while True:
            page = await page_after(ltm, below(STORE_ROOT, self.namespace), cursor)
            wanted = filter(first.admits, _candidates(page.entries))
            for candidate in await self._matching(ltm, sorted(wanted, key=lambda one: one.rank)):
                first.add(candidate)
            cursor = page.cursor
            if cursor is None:
                return first.ranked()

    async def _best(self, ltm: LTMBackend, query: str) -> list[Candidate]:
        prefix = below(STORE_ROOT, self.namespace)
        page = await ltm.search(query, metadata_filter=within(self.namespace), limit=MAX_RANKED)
        if not page.errors or any(key.startswith(prefix) for key in page.errors):
            page.raise_for_error()  # damage elsewhere is not for this search to report
        # The keys decide: metadata may have been written by another.
        ours = [entry for entry in page.results if entry.key.startswith(prefix)]
        return await self._matching(ltm, _candidates(ours))

    async def _matching(self, ltm: LTMBackend, ranked: list[Candidate]) -> list[Candidate]:
        """Those of *ranked* that the filter holds for, as many as are needed."""
        if self.filter is None:
            return ranked
        matching = []
        for batch in _batches(ranked):
            hits = await _read(ltm, batch)
            matching += [
                dataclasses.replace(one, hit=hits[one.key])
                for one in batch
                if one.key in hits and self.filter.matches(hits[one.key].value)
            ]
            if len(matching) >= self.offset + self.limit:
                break
        return matching


def _candidates(entries: Sequence[EntryInfo]) -> list[Candidate]:
    return [
        Candidate(
            name=name,
            key=entry.key,
            updated_us=updated_us(
                entry.metadata, (entry.updated_at - _EPOCH) // timedelta(microseconds=1)
            ),
            byte_size=entry.byte_size,
            score=entry.score if isinstance(entry, SearchHit) else None,
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
