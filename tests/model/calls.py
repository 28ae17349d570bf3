"""The calls of the machine: how each is made, and which worlds explain its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ltm_async import (
    ConflictError,
    CorruptError,
    LTMBackend,
    LTMError,
    OutcomeUnknownError,
    StoreError,
)
from ltm_async.entry import to_datetime
from ltm_async.transfer import chunks

from .worlds import (
    KEYS,
    Explain,
    Held,
    Seen,
    World,
    expired,
    live,
    look,
    may_have,
    must_have,
    remove,
    text,
    through,
    write,
)

UNKNOWN = frozenset({"OutcomeUnknownError", "DeadlineError"})
NOTHING = "nothing was there"
EPOCH = datetime.fromtimestamp(0, UTC)


def failure_of(answer: Any) -> BaseException | None:
    """What a call ended with, raised or reported."""
    if isinstance(answer, BaseException):
        return answer
    failure: LTMError | None = answer.exception
    return failure


def is_unknown(failure: BaseException | None) -> bool:
    """The reply was lost, or the call was cancelled."""
    return isinstance(failure, OutcomeUnknownError) or (
        failure is not None and not isinstance(failure, LTMError)
    )


def instant(given: datetime | None) -> int:
    return 0 if given is None else (given - EPOCH) // timedelta(microseconds=1)


def at(now: int, seconds: float | None) -> int | None:
    return None if seconds is None else now + round(seconds * 1e6)


def seen(result: Any) -> Seen | None:
    """What a read or a listing says about a live entry."""
    if not getattr(result, "found", True):
        return None
    value = text(result.value) if hasattr(result, "found") else None
    return Seen(result.version, value, text(dict(result.metadata)), instant(result.expires_at))


def looking(key: str, now: int, found: Seen | None) -> Explain:
    return lambda world: look(world, key, now, found)


def removed(world: World, keys: Iterable[str]) -> World:
    for key in keys:
        world = remove(world, key)
    return world


def error_of_batch(answer: Any, keys: Sequence[str]) -> str | None:
    """Why one batch of a call failed; all of it was told the same."""
    if isinstance(answer, BaseException):
        return "OutcomeUnknownError"
    told = {key: answer.errors.get(key) for key in keys}
    errors = {None if failure is None else failure.error_type for failure in told.values()}
    assert len(errors) == 1, f"a batch was told in parts: {told}"
    error: str | None = errors.pop()
    return error


def unchanged(world: World) -> Iterator[World]:
    yield world


class Call:
    """One call of a client; *now* is the catalog's time while it runs."""

    batch_size = 500
    """How many entries its backend takes at once."""

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        raise NotImplementedError

    def happened(self, world: World, now: int) -> Iterator[World]:
        """*world* after it, if nobody was told; by default it changes nothing."""
        yield world

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        """The same, if *answer* is what its client was told."""
        raise NotImplementedError

    def parts(self, answer: Any, now: int) -> list[Explain]:
        """How *answer* is explained, for each transaction that the call consists of."""
        failure = failure_of(answer)
        assert not isinstance(failure, CorruptError), f"something is damaged: {failure}"
        if is_unknown(failure):
            return [lambda world: [world, *self.happened(world, now)]]
        if isinstance(failure, StoreError):
            return [unchanged]
        return [lambda world: self.answered(world, now, answer)]


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
        self.ends_at = at(now, self.ends_in)
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
        slot = world[KEYS.index(self.key)]
        if self.expected is None or may_have(slot, live(slot, now), self.expected):
            ends_at = at(now, self.ttl) if self.ends_at is None else self.ends_at
            held = Held(text(self.value), text(self.metadata or {}), ends_at, version)
            yield from write(world, self.key, held)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        if isinstance(answer, ConflictError):
            held = live(world[KEYS.index(self.key)], now)
            if self.expected is not None and not must_have(held, self.expected):
                yield world
            return
        assert answer.stored and answer.durable and not answer.degraded
        told = instant(answer.expires_at)
        for after in self.happened(world, now, answer.version):
            held = after[KEYS.index(self.key)].held
            assert held is not None
            if told in {0, held.expires_at or 0}:  # 0 also after a lost reply
                yield after


def _stored(
    batch: Sequence[Store], world: World, now: int, versions: Mapping[str, int | None]
) -> set[World]:
    def storing(store: Store) -> Explain:
        return lambda world: store.happened(world, now, versions.get(store.key))

    return through([world], *map(storing, batch))


@dataclasses.dataclass
class StoreBatch(Call):
    stores: list[Store]

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.store_batch([store.entry(now) for store in self.stores])

    def happened(self, world: World, now: int) -> Iterator[World]:
        """One of its batches has."""
        for batch in chunks(self.stores, self.batch_size):
            yield from _stored(batch, world, now, {})

    def parts(self, answer: Any, now: int) -> list[Explain]:
        return [self._part(batch, answer, now) for batch in chunks(self.stores, self.batch_size)]

    def _part(self, batch: Sequence[Store], answer: Any, now: int) -> Explain:
        error = error_of_batch(answer, [store.key for store in batch])
        if error is None:
            return lambda world: _stored(batch, world, now, answer.versions)
        if error in UNKNOWN:
            return lambda world: [world, *_stored(batch, world, now, {})]
        return unchanged


@dataclasses.dataclass
class Retrieve(Call):
    key: str

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.retrieve(self.key)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        yield from look(world, self.key, now, seen(answer))


@dataclasses.dataclass
class RetrieveBatch(Call):
    keys: list[str]

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.retrieve_batch(self.keys)

    def parts(self, answer: Any, now: int) -> list[Explain]:
        if isinstance(answer, BaseException):
            return [unchanged]
        assert {f.error_type for f in answer.errors.values()} <= {"UnavailableError", *UNKNOWN}
        told = [*answer.results, *answer.missing, *answer.errors]
        assert sorted(told) == sorted(set(self.keys))
        return [self._part(keys, answer, now) for keys in chunks(self.keys, self.batch_size)]

    def _part(self, keys: Sequence[str], answer: Any, now: int) -> Explain:
        """What was read at once is of one moment."""
        read = [key for key in keys if key not in answer.errors]
        found = {key: seen(answer.results[key]) for key in read if key in answer.results}
        return lambda world: through([world], *(looking(key, now, found.get(key)) for key in read))


@dataclasses.dataclass
class Delete(Call):
    key: str
    expected: int | None = None

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.delete(self.key, if_version=self.expected)

    def happened(self, world: World, now: int) -> Iterator[World]:
        slot = world[KEYS.index(self.key)]
        if self.expected is None or may_have(slot, live(slot, now), self.expected):
            yield remove(world, self.key)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        held = live(world[KEYS.index(self.key)], now)
        if isinstance(answer, ConflictError):
            if self.expected is not None and not must_have(held, self.expected):
                yield world
        elif answer.deleted == (held is not None):
            yield from self.happened(world, now)


@dataclasses.dataclass
class DeleteBatch(Call):
    keys: list[str]

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.delete_batch(self.keys)

    def happened(self, world: World, now: int) -> Iterator[World]:
        """One of its batches has."""
        for keys in chunks(self.keys, self.batch_size):
            yield removed(world, keys)

    def parts(self, answer: Any, now: int) -> list[Explain]:
        if not isinstance(answer, BaseException):
            assert answer.deleted + len(answer.missing) + len(answer.errors) == len(self.keys)
        return [self._part(keys, answer, now) for keys in chunks(self.keys, self.batch_size)]

    def _part(self, keys: Sequence[str], answer: Any, now: int) -> Explain:
        if isinstance(answer, BaseException):
            return lambda world: [world, removed(world, keys)]
        told = [key for key in keys if key not in answer.errors]
        if not told:
            unknown = answer.errors[keys[0]].error_type in UNKNOWN
            return (lambda world: [world, removed(world, keys)]) if unknown else unchanged
        # It happened; where its reply was lost, what was not there or is again is not told.
        unclear = {answer.errors[key].error_type for key in keys if key not in told}
        assert unclear <= UNKNOWN

        def explain(world: World) -> Iterator[World]:
            missing = [key for key in told if live(world[KEYS.index(key)], now) is None]
            if missing == [key for key in told if key in answer.missing]:
                yield removed(world, keys)

        return explain


@dataclasses.dataclass
class Touch(Call):
    key: str
    ttl: float | None
    metadata: dict[str, Any] | None

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.touch(self.key, ttl=self.ttl, metadata=self.metadata)

    def happened(self, world: World, now: int, version: int | None = None) -> Iterator[World]:
        held = live(world[KEYS.index(self.key)], now)
        if held is None:
            return
        metadata = held.metadata if self.metadata is None else text(self.metadata)
        touched = Held(held.value, metadata, at(now, self.ttl), version)
        yield from write(world, self.key, touched)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        if answer.touched:
            if (at(now, self.ttl) or 0) == instant(answer.expires_at):
                yield from self.happened(world, now, answer.version)
        elif live(world[KEYS.index(self.key)], now) is None:
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
        held = live(world[KEYS.index(self.key)], now)
        if self.was is None or self.was != (text(NOTHING) if held is None else held.value):
            return
        kept = held or Held("", "{}", None, None)
        ends_at = kept.expires_at if self.ttl is None else at(now, self.ttl)
        changed = f"[{self.mark}, {self.was}]"
        yield from write(world, self.key, Held(changed, kept.metadata, ends_at, version))

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        yield from self.happened(world, now, answer.version)


@dataclasses.dataclass
class Cleanup(Call):
    limit: int

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.cleanup_expired(self.limit)

    def parts(self, answer: Any, now: int) -> list[Explain]:
        # What it removed before a store failed it is gone.
        if failure_of(answer) is not None:
            return [lambda world: [world, *self.happened(world, now)]]
        return [
            lambda world: [
                after for after, count in expired(world, now, self.limit) if count == answer.deleted
            ]
        ]

    def happened(self, world: World, now: int) -> Iterator[World]:
        for after, _ in expired(world, now, self.limit):
            yield after


@dataclasses.dataclass
class Collect(Call):
    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.collect_garbage()

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        yield world


@dataclasses.dataclass
class List(Call):
    prefix: str
    wanted: dict[str, Any] | None

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.list_entries(self.prefix, metadata_filter=self.wanted)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        assert answer.cursor is None and answer.errors == {}
        told = {info.key: info for info in answer.entries}
        assert list(told) == sorted(told)
        listed: list[str] = []
        for key, slot in zip(KEYS, world, strict=True):
            held = live(slot, now)
            fits = self.wanted is None or (held and held.metadata == text(self.wanted))
            if held is not None and key.startswith(self.prefix) and fits:
                listed.append(key)
        if listed == list(told):
            yield from through(
                [world],
                *(looking(key, now, seen(told[key])) for key in listed),
            )


@dataclasses.dataclass
class Count(Call):
    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.stats()

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        rows = [slot for slot in world if slot.held is not None]
        count = sum(live(slot, now) is not None for slot in rows)
        if (answer.entries, answer.expired) == (count, len(rows) - count):
            yield world


@dataclasses.dataclass
class Verify(Call):
    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.verify()

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        assert answer.sound, answer.problems
        if answer.entries == sum(live(slot, now) is not None for slot in world):
            yield world
