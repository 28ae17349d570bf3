"""The blocking half of what frameworks want both async and blocking."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ltm_async.portal import run_blocking

T = TypeVar("T")

REFUSAL = (
    "this call would stop the event loop that runs in this thread: await the method's async form,"
    " whose name begins with a"
)


def wait_for(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of the coroutine that *make* gives.

    Raises:
        BlockingCallError: The thread runs an event loop.
    """
    return run_blocking(make, refusal=REFUSAL)
