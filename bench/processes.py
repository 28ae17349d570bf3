"""Measuring in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_ALL = "in all"


def python(*arguments: str) -> str:
    """What a new interpreter printed; it keeps what it compiled, as one that is deployed has."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def phases(code: str, *arguments: str) -> dict[str, float]:
    """Milliseconds of each phase of a new process, and of all up to the last.

    *code* is run with ``mark``, which ends a phase and says its name.
    """
    began = previous = time.monotonic()
    spent_ms = {}
    for name, at in json.loads(python("-c", _AROUND.format(code=code), *arguments)):
        spent_ms[name] = (at - previous) * 1e3
        previous = at
    return {**spent_ms, IN_ALL: (previous - began) * 1e3}


def alternately(
    sides: Mapping[str, tuple[str, Callable[[int], Sequence[str]]]], rounds: int
) -> dict[str, list[dict[str, float]]]:
    """The phases of each side's process, in every round one of each, in changing order.

    A side is a program and its arguments in a round.

    A first round, which finds nothing compiled and nothing in the page cache, does not count.
    """
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(1 + rounds):
        for name in order:
            code, arguments = sides[name]
            spent_ms = phases(code, *arguments(turn))
            if turn:
                runs[name].append(spent_ms)
        order.append(order.pop(0))
    return runs


_AROUND = """\
import sys, time
marks = [("interpreter", time.monotonic())]
mark = lambda name: marks.append((name, time.monotonic()))
{code}
import json
print(json.dumps(marks))
"""
