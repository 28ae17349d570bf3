"""The calls that read: entries, lists of them, and figures about all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ltm_async import LTMBackend
from ltm_async.transfer import chunks

from .call import UNKNOWN, Call, seen
from .worlds import KEYS, Explain, World, live, live_entry, look, looking, text, unchanged


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
        results = {key: answer.results.get(key) for key in keys if key not in answer.errors}
        return looking(
            {key: None if result is None else seen(result) for key, result in results.items()},
            now,
        )


@dataclasses.dataclass
class List(Call):
    prefix: str
    wanted: dict[str, Any] | None

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.list_entries(self.prefix, metadata_filter=self.wanted)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        assert answer.cursor is None and answer.errors == {}
        told = {info.key: seen(info) for info in answer.entries}
        assert list(told) == sorted(told)
        if list(told) == [key for key in KEYS if self._lists(world, key, now)]:
            yield from looking(told, now)(world)

    def _lists(self, world: World, key: str, now: int) -> bool:
        held = live_entry(world, key, now)
        if held is None or not key.startswith(self.prefix):
            return False
        return self.wanted is None or held.metadata == text(self.wanted)


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
