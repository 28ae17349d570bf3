"""One attempt at an operation, through faults, and what its caller is told."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from ... import LTMBackend
from ...errors import OutcomeUnknownError, StoreError
from ...retry import RetryPolicy
from ..faults import Faults, faulty_blob_store, faulty_catalog
from .operations import Operation
from .places import Pair
from .state import NAMESPACE


class Told(enum.Enum):
    """What the caller of an operation knows when it has ended."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "outcome unknown"
    CANCELLED = "cancelled"
    KILLED = "killed"


class Attempt(NamedTuple):
    """How one attempt at an operation ended."""

    told: Told
    steps: Sequence[str] = ()
    version: int | None = None
    """Of the entries written, if they were and it was told."""
    flawless: bool = False
    """Done, and the result names no errors."""


AGAIN = RetryPolicy(base_s=0.0002, cap_s=0.001)
ONCE = RetryPolicy(attempts=1)


async def attempt(
    pair: Pair, operation: Operation, faults: Sequence[Faults], now_us: int, retry: RetryPolicy
) -> Attempt:
    """Run *operation* on *pair* through *faults*, the last of which counts first."""
    async with pair.opened(pair.catalog.clock_at(now_us)) as faulty:
        for fault in faults:
            faulty = faulty_catalog(faulty[0], fault), faulty_blob_store(faulty[1], fault)
        ltm = LTMBackend(*faulty, namespace=NAMESPACE, on_unavailable="raise", retry=retry)
        told, result = await _tell(faults[-1].run(_raised(operation.run(ltm))))
        await ltm.aclose()
    return Attempt(
        told,
        faults[-1].steps,
        _version(result),
        told is Told.DONE and not getattr(result, "errors", ()),
    )


async def _raised(call: Awaitable[Any]) -> Any:
    result = await call
    return result.raise_for_error() if hasattr(result, "raise_for_error") else result


async def _tell(call: Awaitable[Any]) -> tuple[Told, Any]:
    try:
        return Told.DONE, await call
    except asyncio.CancelledError:
        return Told.CANCELLED, None
    except OutcomeUnknownError:
        return Told.UNKNOWN, None
    except StoreError:
        return Told.FAILED, None


def _version(result: Any) -> int | None:
    versions = set(getattr(result, "versions", {}).values())
    version: int | None = versions.pop() if versions else getattr(result, "version", None)
    assert not versions, "one batch has two versions"
    return version
