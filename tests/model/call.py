"""A call of a client: how it is made, what it was told, and which worlds explain that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ltm_async import CorruptError, LTMBackend, LTMError, OutcomeUnknownError, StoreError

from .worlds import Explain, Seen, World, perhaps, text, unchanged

UNKNOWN = frozenset({"OutcomeUnknownError", "DeadlineError"})
"""What a batch reports of entries whose reply was lost."""
EPOCH = datetime.fromtimestamp(0, UTC)


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
            return [perhaps(lambda world: self.happened(world, now))]
        if isinstance(failure, StoreError):
            return [unchanged]
        return [lambda world: self.answered(world, now, answer)]


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


def error_of_batch(answer: Any, keys: Sequence[str]) -> str | None:
    """Why one batch of a call failed; all of it was told the same."""
    if isinstance(answer, BaseException):
        return "OutcomeUnknownError"
    told = {key: answer.errors.get(key) for key in keys}
    errors = {None if failure is None else failure.error_type for failure in told.values()}
    assert len(errors) == 1, f"a batch was told in parts: {told}"
    error: str | None = errors.pop()
    return error


def seen(result: Any) -> Seen | None:
    """What a read or a listing says about a live entry."""
    if not getattr(result, "found", True):
        return None
    value = text(result.value) if hasattr(result, "found") else None
    return Seen(result.version, value, text(dict(result.metadata)), instant(result.expires_at))


def instant(given: datetime | None) -> int:
    """In microseconds since 1970, as the catalog has it; 0 where there is no end."""
    return 0 if given is None else (given - EPOCH) // timedelta(microseconds=1)


def later(now: int, seconds: float | None) -> int | None:
    return None if seconds is None else now + round(seconds * 1e6)
