"""Nothing acknowledged is lost: random calls, faults and clocks against a model, on every pair.

``LTM_MODEL_S`` has each pair go on for so many seconds, from the seed ``LTM_MODEL_SEED`` or one
that is drawn and printed (``make model``).
"""

from __future__ import annotations

import collections
import itertools
import os
import random
import sys
import time
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .backends import EMBEDDED_PAIRS, PAIRS
from .model.machine import Machine

SECONDS = float(os.environ.get("LTM_MODEL_S", "0"))
EXAMPLES = {"memory+memory": 50, "sqlite+local": 20, "postgres+local": 5}
STEPS = 40
QUIET = settings(
    database=None,
    deadline=None,
    stateful_step_count=STEPS,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
UNSHRUNK = settings(QUIET, phases=[Phase.generate])
"""A failing example is not made smaller, which would take minutes."""


@pytest.mark.timeout(180 if SECONDS == 0 else 600 + 3 * SECONDS)
@pytest.mark.parametrize("pair", PAIRS)
def test_what_clients_are_told_is_explained_by_a_world(
    pair: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", "ltm_async")
    # The breakers' time is the machine's, which stands still.
    monkeypatch.setattr("ltm_async.calling.COOL_DOWN_S", 0.0)

    class OnPair(Machine):
        figures: ClassVar = collections.Counter()

    OnPair.pair = pair
    usual = QUIET if pair in EMBEDDED_PAIRS and SECONDS else UNSHRUNK
    if SECONDS == 0:
        count = EXAMPLES.get(pair, 3)
        run_state_machine_as_test(
            OnPair, settings=settings(usual, max_examples=count, derandomize=True)
        )
        assert OnPair.figures["examples"] >= count
        return
    first = int(os.environ.get("LTM_MODEL_SEED") or random.randrange(10**6))
    until = time.monotonic() + SECONDS
    for number in itertools.count(first):
        sys.stderr.write(f"{pair}: seed {number}\n")
        run_state_machine_as_test(seed(number)(OnPair), settings=settings(usual, max_examples=10))
        if time.monotonic() > until:
            break
    shown = ", ".join(f"{name} {count}" for name, count in sorted(OnPair.figures.items()))
    sys.stdout.write(f"\n{pair}: seeds {first} to {number}: {shown}\n")
