"""Histories: what clients asked of a backend at the same time, when, and what they were told.

::

    recorder = Recorder()
    first, second = recorder.client("first", ltm), recorder.client("second", another)
    await asyncio.gather(first.store("key", 1), second.retrieve("key"))
    assert check_history(recorder.history()) == []

A process that may be killed writes its history down as it goes, with ``Recorder(log=file)``, and
:func:`read_history` joins the files of all. What has no end there has an unknown outcome.

Values are kept as content hashes, so those of different writes must differ for a check to see
much. Times are of the monotonic clock, which all processes of one machine share.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from ..entry import compute_content_hash
from ..errors import ConflictError, LTMError
from ..results import (
    DeleteBatchResult,
    DeleteResult,
    Result,
    RetrieveBatchResult,
    RetrieveResult,
    StoreBatchResult,
    StoreResult,
    TouchResult,
)

if TYPE_CHECKING:
    from ..backend import LTMBackend

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"
UNKNOWN_ERRORS = frozenset({"OutcomeUnknownError", "DeadlineError"})
_NOTHING = object()


@dataclasses.dataclass(slots=True, kw_only=True)
class Step:
    """One call for one key, as its client saw it."""

    client: str
    key: str
    kind: str
    """``store``, ``retrieve``, ``delete``, ``touch`` or ``update``."""
    invoked_ns: int
    returned_ns: int | None = None
    """None while it runs, and for what was cut off."""
    status: str = UNKNOWN
    """``ok``; ``failed``, without an effect for certain; ``unknown``, with one now, later or
    never."""
    value: str | None = None
    """The content hash of what was written, or read; None for no entry."""
    version: int | None = None
    """Of what was written, touched or read; None where the client was not told."""
    if_version: int | None = None
    """The version to be replaced or deleted; 0 for none."""
    done: bool = True
    """False where a delete or touch found no live entry, and where *if_version* did not hold."""
    replaced: str | None = None
    """What ``update`` computed the value from; None for no entry."""
    mortal: bool | None = False
    """It gave the entry an end, after which it is gone; None left the end that it had."""
    error: str | None = None
    """The class of what was raised or reported."""


class Recorder:
    """The history of the clients it makes.

    Args:
        log: Gets two lines of JSON for each step, at its beginning and its end, each flushed.
            Several recorders may append to one file if it is opened with ``"a"``.
    """

    def __init__(self, *, log: IO[str] | None = None) -> None:
        self._log = log
        self._steps: list[Step] = []
        self._numbers = itertools.count()

    def client(self, name: str, ltm: LTMBackend) -> RecordedClient:
        """*ltm* for one client called *name*, which should have one call at a time."""
        return RecordedClient(name, ltm, self)

    def history(self) -> list[Step]:
        """All steps so far, those that still run among them."""
        return list(self._steps)

    @contextlib.contextmanager
    def recording(self, steps: Sequence[Step]) -> Iterator[None]:
        """Record one call; whatever ends it without a result is told by its exception."""
        numbers = [f"{os.getpid()}-{id(self)}-{next(self._numbers)}" for _ in steps]
        self._steps += steps
        for number, step in zip(numbers, steps, strict=True):
            self._write(number, step)
        try:
            yield
        except ConflictError as exc:
            for step in steps:
                _end(step, OK, exc)
                step.done = False
            raise
        except LTMError as exc:
            for step in steps:
                _end(step, _status(type(exc).__name__), exc)
            raise
        except BaseException as exc:  # cancelled: nobody was told anything
            for step in steps:
                _end(step, UNKNOWN, exc)
            raise
        finally:
            for number, step in zip(numbers, steps, strict=True):
                self._write(number, step)

    def _write(self, number: str, step: Step) -> None:
        if self._log is not None:
            self._log.write(json.dumps([number, dataclasses.asdict(step)]) + "\n")
            self._log.flush()


def read_history(logs: Iterable[IO[str]]) -> list[Step]:
    """The steps in the *logs* of any number of recorders; a line cut off by a kill is left out."""
    steps: dict[str, Step] = {}
    for log in logs:
        for line in log:
            try:
                number, fields = json.loads(line)
            except ValueError:
                continue
            steps[number] = Step(**fields)
    return list(steps.values())


class RecordedClient:
    """The calls of a backend that a history can judge; their results are passed on as they are.

    Every write needs a value of its own, such as ``[client, number]``.
    """

    def __init__(self, name: str, ltm: LTMBackend, recorder: Recorder) -> None:
        self.name = name
        self.ltm = ltm
        self._recorder = recorder

    async def store(self, key: str, value: Any, **options: Any) -> StoreResult:
        step = self._step(key, "store", **_written(value, options))
        step.if_version = 0 if options.get("if_absent") else options.get("if_version")
        with self._recorder.recording([step]):
            result = await self.ltm.store(key, value, **options)
            _told(step, result)
            step.version = result.version
        return result

    async def retrieve(self, key: str, **options: Any) -> RetrieveResult:
        step = self._step(key, "retrieve")
        with self._recorder.recording([step]):
            result = await self.ltm.retrieve(key, **options)
            _told(step, result)
            if step.status == OK and result.found:
                step.value, step.version = compute_content_hash(result.value), result.version
        return result

    async def delete(self, key: str, **options: Any) -> DeleteResult:
        step = self._step(key, "delete", if_version=options.get("if_version"))
        with self._recorder.recording([step]):
            result = await self.ltm.delete(key, **options)
            _told(step, result)
            step.done = result.deleted or step.status != OK
        return result

    async def touch(self, key: str, **options: Any) -> TouchResult:
        step = self._step(key, "touch", mortal=_has_end(options))
        with self._recorder.recording([step]):
            result = await self.ltm.touch(key, **options)
            _told(step, result)
            step.done, step.version = result.touched or step.status != OK, result.version
        return result

    async def update(self, key: str, value: Any, **options: Any) -> StoreResult:
        """``update`` by a function that gives *value* whatever was there."""
        step = self._step(key, "update", **_written(value, options))
        step.mortal = _has_end(options) or None

        def replace(old: Any) -> Any:
            step.replaced = None if old is _NOTHING else compute_content_hash(old)
            return value

        with self._recorder.recording([step]):
            result = await self.ltm.update(key, replace, default=_NOTHING, **options)
            _told(step, result)
            step.version = result.version
        return result

    async def store_batch(
        self, entries: Sequence[Mapping[str, Any]], **options: Any
    ) -> StoreBatchResult:
        steps = [
            self._step(entry["key"], "store", **_written(entry["value"], entry))
            for entry in entries
        ]
        with self._recorder.recording(steps):
            result = await self.ltm.store_batch(entries, **options)
            for step in steps:
                _told_in_batch(step, result)
                step.version = result.versions.get(step.key)
        return result

    async def retrieve_batch(self, keys: Sequence[str], **options: Any) -> RetrieveBatchResult:
        steps = [self._step(key, "retrieve") for key in dict.fromkeys(keys)]
        with self._recorder.recording(steps):
            result = await self.ltm.retrieve_batch(keys, **options)
            for step in steps:
                _told_in_batch(step, result)
                if (found := result.results.get(step.key)) is not None:
                    step.value, step.version = compute_content_hash(found.value), found.version
        return result

    async def delete_batch(self, keys: Sequence[str], **options: Any) -> DeleteBatchResult:
        steps = [self._step(key, "delete") for key in dict.fromkeys(keys)]
        with self._recorder.recording(steps):
            result = await self.ltm.delete_batch(keys, **options)
            for step in steps:
                _told_in_batch(step, result)
                step.done = step.key not in result.missing
        return result

    def _step(self, key: str, kind: str, **fields: Any) -> Step:
        return Step(client=self.name, key=key, kind=kind, invoked_ns=time.monotonic_ns(), **fields)


def _written(value: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": compute_content_hash(value), "mortal": _has_end(options)}


def _has_end(options: Mapping[str, Any]) -> bool:
    return options.get("ttl") is not None or options.get("expires_at") is not None


def _status(error: str) -> str:
    return UNKNOWN if error in UNKNOWN_ERRORS else FAILED


def _end(step: Step, status: str, exc: BaseException | None) -> None:
    step.returned_ns = time.monotonic_ns()
    step.status = status
    step.error = None if exc is None else type(exc).__name__


def _told(step: Step, result: Result) -> None:
    exc = result.exception
    _end(step, OK if exc is None else _status(type(exc).__name__), exc)


def _told_in_batch(
    step: Step, result: StoreBatchResult | RetrieveBatchResult | DeleteBatchResult
) -> None:
    _end(step, OK, None)
    if (failure := result.errors.get(step.key)) is not None:
        step.status, step.error = _status(failure.error_type), failure.error_type
