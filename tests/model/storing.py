"""The calls that store entries or change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ltm_async import ConflictError, LTMBackend
from ltm_async.entry import to_datetime
from ltm_async.transfer import chunks

from .call import UNKNOWN, Call, error_of_batch, instant, later
from .worlds import (
    Explain,
    Held,
    World,
    live_entry,
    may_conflict,
    may_pass,
    perhaps,
    slot_of,
    text,
    through,
    unchanged,
    write,
)

NOTHING = "nothing was there"


@dataclasses.dataclass
class Store(Call):
    key: str
    value: Any
    metadata: dict[str, Any] | None = None
    ttl: float | None = None
    ends_in: float | None = None
    """Seconds from when it is made, for ``expires_at``; negative ones are over."""
    expected: int | None = None
    """0 for ``if_absent``."""
    ends_at: int | None = dataclasses.field(default=None, repr=False)

    def entry(self, now: int) -> dict[str, Any]:
        self.ends_at = later(now, self.ends_in)
        ends_at = None if self.ends_at is None else to_datetime(self.ends_at)
        return {
            "key": self.key,
            "value": self.value,
            "metadata": self.metadata,
            "ttl": self.ttl,
            "expires_at": ends_at,
        }

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        given = self.entry(now)
        if self.expected is not None:
            swap = {"if_version": self.expected} if self.expected else {"if_absent": True}
            given.update(swap)
        return await ltm.store(given.pop("key"), given.pop("value"), **given)

    def happened(self, world: World, now: int, version: int | None = None) -> Iterator[World]:
        if may_pass(world, self.key, now, self.expected):
            ends_at = later(now, self.ttl) if self.ends_at is None else self.ends_at
            held = Held(text(self.value), text(self.metadata or {}), ends_at, version)
            yield from write(world, self.key, held)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        if isinstance(answer, ConflictError):
            if may_conflict(world, self.key, now, self.expected):
                yield world
            return
        assert answer.stored and answer.durable and not answer.degraded
        told = instant(answer.expires_at)
        for after in self.happened(world, now, answer.version):
            held = slot_of(after, self.key).held
            assert held is not None
            if told in {0, held.expires_at or 0}:  # 0 also after a lost reply
                yield after


@dataclasses.dataclass
class StoreBatch(Call):
    stores: list[Store]

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.store_batch([store.entry(now) for store in self.stores])

    def happened(self, world: World, now: int) -> Iterator[World]:
        """One of its batches has."""
        for batch in chunks(self.stores, self.batch_size):
            yield from _storing(batch, now, {})(world)

    def parts(self, answer: Any, now: int) -> list[Explain]:
        return [self._part(batch, answer, now) for batch in chunks(self.stores, self.batch_size)]

    def _part(self, batch: Sequence[Store], answer: Any, now: int) -> Explain:
        error = error_of_batch(answer, [store.key for store in batch])
        if error is None:
            return _storing(batch, now, answer.versions)
        return perhaps(_storing(batch, now, {})) if error in UNKNOWN else unchanged


def _storing(batch: Sequence[Store], now: int, versions: Mapping[str, int | None]) -> Explain:
    def storing(store: Store) -> Explain:
        return lambda world: store.happened(world, now, versions.get(store.key))

    return lambda world: through([world], *map(storing, batch))


@dataclasses.dataclass
class Touch(Call):
    key: str
    ttl: float | None
    metadata: dict[str, Any] | None

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.touch(self.key, ttl=self.ttl, metadata=self.metadata)

    def happened(self, world: World, now: int, version: int | None = None) -> Iterator[World]:
        held = live_entry(world, self.key, now)
        if held is None:
            return
        metadata = held.metadata if self.metadata is None else text(self.metadata)
        touched = Held(held.value, metadata, later(now, self.ttl), version)
        yield from write(world, self.key, touched)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        if answer.touched:
            if (later(now, self.ttl) or 0) == instant(answer.expires_at):
                yield from self.happened(world, now, answer.version)
        elif live_entry(world, self.key, now) is None:
            yield world


@dataclasses.dataclass
class Update(Call):
    key: str
    mark: int
    ttl: float | None
    was: str | None = dataclasses.field(default=None, repr=False)

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        def change(old: Any) -> Any:
            self.was = text(old)
            return [self.mark, old]

        self.was = None
        return await ltm.update(self.key, change, default=NOTHING, ttl=self.ttl)

    def happened(self, world: World, now: int, version: int | None = None) -> Iterator[World]:
        held = live_entry(world, self.key, now)
        if self.was is None or self.was != (text(NOTHING) if held is None else held.value):
            return
        kept = held or Held("", "{}", None, None)
        ends_at = kept.expires_at if self.ttl is None else later(now, self.ttl)
        changed = f"[{self.mark}, {self.was}]"
        yield from write(world, self.key, Held(changed, kept.metadata, ends_at, version))

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        yield from self.happened(world, now, answer.version)
