"""The calls that remove entries, live or expired, and what entries have left behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ltm_async import ConflictError, LTMBackend
from ltm_async.transfer import chunks

from .call import UNKNOWN, Call, failure_of
from .worlds import (
    Explain,
    World,
    expired,
    live_entry,
    may_conflict,
    may_pass,
    perhaps,
    remove,
    unchanged,
)


@dataclasses.dataclass
class Delete(Call):
    key: str
    expected: int | None = None

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.delete(self.key, if_version=self.expected)

    def happened(self, world: World, now: int) -> Iterator[World]:
        if may_pass(world, self.key, now, self.expected):
            yield remove(world, self.key)

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        if isinstance(answer, ConflictError):
            if may_conflict(world, self.key, now, self.expected):
                yield world
        elif answer.deleted == (live_entry(world, self.key, now) is not None):
            yield from self.happened(world, now)


@dataclasses.dataclass
class DeleteBatch(Call):
    keys: list[str]

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.delete_batch(self.keys)

    def happened(self, world: World, now: int) -> Iterator[World]:
        """One of its batches has."""
        for keys in chunks(self.keys, self.batch_size):
            yield remove(world, *keys)

    def parts(self, answer: Any, now: int) -> list[Explain]:
        if not isinstance(answer, BaseException):
            assert answer.deleted + len(answer.missing) + len(answer.errors) == len(self.keys)
        return [self._part(keys, answer, now) for keys in chunks(self.keys, self.batch_size)]

    def _part(self, keys: Sequence[str], answer: Any, now: int) -> Explain:
        def removing(world: World) -> Iterator[World]:
            yield remove(world, *keys)

        if isinstance(answer, BaseException):
            return perhaps(removing)
        told = [key for key in keys if key not in answer.errors]
        if not told:
            unknown = answer.errors[keys[0]].error_type in UNKNOWN
            return perhaps(removing) if unknown else unchanged
        # It happened; where its reply was lost, what was not there or is again is not told.
        unclear = {answer.errors[key].error_type for key in keys if key not in told}
        assert unclear <= UNKNOWN

        def explain(world: World) -> Iterator[World]:
            missing = [key for key in told if live_entry(world, key, now) is None]
            if missing == [key for key in told if key in answer.missing]:
                yield from removing(world)

        return explain


@dataclasses.dataclass
class Cleanup(Call):
    limit: int

    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.cleanup_expired(self.limit)

    def happened(self, world: World, now: int) -> Iterator[World]:
        for after, _ in expired(world, now, self.limit):
            yield after

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        for after, count in expired(world, now, self.limit):
            if count == answer.deleted:
                yield after

    def parts(self, answer: Any, now: int) -> list[Explain]:
        # What it removed before a store failed it is gone.
        if failure_of(answer) is not None:
            return [perhaps(lambda world: self.happened(world, now))]
        return [lambda world: self.answered(world, now, answer)]


@dataclasses.dataclass
class Collect(Call):
    async def make(self, ltm: LTMBackend, now: int) -> Any:
        return await ltm.collect_garbage()

    def answered(self, world: World, now: int, answer: Any) -> Iterator[World]:
        yield world
