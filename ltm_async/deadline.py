"""One deadline for each public call, known to everything that runs inside it."""

from __future__ import annotations

import asyncio
import contextvars
from types import TracebackType

from .errors import DeadlineError

_ends_at: contextvars.ContextVar[float | None] = contextvars.ContextVar("ends_at", default=None)


def remaining_s() -> float | None:
    """Seconds until the current call's deadline, or None when it has none."""
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - asyncio.get_running_loop().time()


class Deadline:
    """Cancels what runs inside after *timeout_s* and raises DeadlineError instead.

    The time counts from *since*, in the loop's time, or from entering. None sets no limit. A
    deadline inside another ends with the earlier one.
    """

    __slots__ = ("_scope", "_since", "_timeout_s", "_token")

    def __init__(self, timeout_s: float | None, *, since: float | None = None) -> None:
        self._timeout_s = timeout_s
        self._since = since

    async def __aenter__(self) -> None:
        if self._timeout_s is None:
            self._scope = asyncio.timeout_at(None)
        else:
            since = asyncio.get_running_loop().time() if self._since is None else self._since
            self._scope = asyncio.timeout_at(since + self._timeout_s)
        await self._scope.__aenter__()
        ends_at, outer = self._scope.when(), _ends_at.get()
        if ends_at is None or (outer is not None and outer < ends_at):
            ends_at = outer
        self._token = _ends_at.set(ends_at)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _ends_at.reset(self._token)
        try:
            await self._scope.__aexit__(kind, exc, trace)
        except TimeoutError:
            raise DeadlineError(f"no answer within {self._timeout_s} s") from exc
