"""What goes wrong during one call, step by step, and what goes on for longer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from ltm_async import LTMError, OutcomeUnknownError, UnavailableError
from ltm_async.testing import Faults

T = TypeVar("T")

COMMIT = -1
"""Of a plan: the step that changes entries, whatever its number is."""
_COMMITS = {
    f"catalog.{name}"
    for name in (
        "track_entries_batch",
        "delete_entries_batch",
        "touch_entry",
        "expire_entries",
    )
}


class Fault(enum.Enum):
    """What happens to a request."""

    REFUSED = "refused"
    REPLY_LOST = "reply lost"
    REQUEST_LOST = "request lost"
    """It never arrives, and the caller hears that its outcome is unknown."""
    DELAYED = "delayed"
    """The same, but it arrives: some time later."""
    CANCELLED_BEFORE = "cancelled before"
    CANCELLED_AFTER = "cancelled after"
    DOWN = "down from here on"


Planned: TypeAlias = Fault | Callable[[], Awaitable[None]]
"""A fault, or what happens meanwhile."""
Plan: TypeAlias = Mapping[int, Planned]
"""By the number of the step, from 0, or ``COMMIT``."""


@dataclasses.dataclass(slots=True)
class Late:
    """A request that is still on its way."""

    name: str
    send: Callable[[], Awaitable[Any]]

    async def arrive(self) -> None:
        with contextlib.suppress(LTMError):  # nobody is there to be told
            await self.send()


class Trouble(Faults):
    """The faults of one client: a plan for its next call, and whether the stores are down."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: dict[int, Planned] = {}
        self.down = False
        self.late: list[Late] = []
        self.met: list[str] = []
        """The faults that were reached."""

    def prepare(self, plan: Plan) -> None:
        self.steps.clear()
        self.met.clear()
        self.plan = dict(plan)

    async def step(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        planned = self.plan.pop(len(self.steps), None)
        if planned is None and name in _COMMITS:
            planned = self.plan.pop(COMMIT, None)
        self.steps.append(name)
        if planned is Fault.DOWN:
            self.down = True
        if self.down:
            self.met.append(Fault.DOWN.value)
            raise UnavailableError(f"{name} is down in a test", store="trouble")
        if planned is None:
            return await call()
        if not isinstance(planned, Fault):
            await planned()
            return await call()
        self.met.append(planned.value)
        match planned:
            case Fault.REFUSED:
                raise UnavailableError(f"{name} was refused by a test", store="trouble")
            case Fault.CANCELLED_BEFORE:
                await self._cancel()
            case Fault.DELAYED:
                self.late.append(Late(name, call))
        if planned in {Fault.REPLY_LOST, Fault.CANCELLED_AFTER}:
            await call()
        if planned is Fault.CANCELLED_AFTER:
            await self._cancel()
        raise OutcomeUnknownError(f"{name}: {planned.value} in a test", store="trouble")

    async def caught(self, operation: Any) -> Any:
        """What *operation* returns, or the exception it ends with."""
        try:
            return await self.run(operation)
        except (LTMError, asyncio.CancelledError) as exc:
            return exc
