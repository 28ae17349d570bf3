"""Running a target: so many executions, each of which must end well, soon, and in little memory."""

from __future__ import annotations

import asyncio
import inspect
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

LONGEST_S = 20
"""An execution that takes longer hangs: on a machine under load one takes a fraction of it."""
MOST_MEMORY = 4 << 30


class Target(NamedTuple):
    """What is fed, and with what; it fails by any exception that it does not expect."""

    name: str
    made: st.SearchStrategy[Any]
    check: Callable[[Any], Any]


TARGETS: dict[str, Target] = {}


def target(made: st.SearchStrategy[Any]) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Make a function, plain or async, a target that is fed with *made*."""

    def add(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
        name = check.__name__
        TARGETS[name] = Target(name, made, check)
        return check

    return add


def run(of: Target, executions: int, *, start: int | None = None) -> int:
    """Feed *of* about so often, from the seed *start* or always the same; return how often it was.

    Raises:
        BaseException: Whatever the target raised, for the smallest input that was found.
    """
    done = 0
    with asyncio.Runner() as runner:

        def once(given_input: Any) -> None:
            nonlocal done
            done += 1
            with _watched():
                result = of.check(given_input)
                if inspect.iscoroutine(result):
                    runner.run(result)

        fed = settings(
            max_examples=executions,
            derandomize=start is None,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(given(of.made)(once))
        (fed if start is None else seed(start)(fed))()
    return done


def run_for(of: Target, seconds: float, *, start: int) -> int:
    """Feed *of* for so long, from one seed after the other."""
    done = 0
    until = time.monotonic() + seconds
    while done == 0 or time.monotonic() < until:
        done += run(of, 500, start=start + done)
    return done


def limit_memory() -> None:
    """Have an allocation fail that is absurd; for a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))


def _hangs(*_: object) -> NoReturn:
    raise AssertionError(f"an execution takes over {LONGEST_S} s")


@contextmanager
def _watched() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _hangs)
    left = signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(left)
        signal.signal(signal.SIGALRM, before)
