"""Rounds of everything at once; what a process holds at rest after each does not grow.

``LTM_SOAK_S`` has it go on for other than some seconds: ``make soak`` for twenty minutes.
``LTM_CHAOS_REPORT`` names a folder that gets the figures as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from .chaos.setups import postgres_and_s3, sqlite_and_local
from .soak.worker import Held, Job

SECONDS = float(os.environ.get("LTM_SOAK_S", "2"))
SEED = int(os.environ.get("LTM_SEED", "1"))
COUNTED = ("descriptors", "sockets", "threads", "tasks")
GROWTH_MIB = 16
"""What an allocator may hold back; a leak of 100 bytes a call is more in twenty minutes."""


def soak(settings: Any) -> list[Held]:
    job = Job(settings={**settings, "timeout": 30}, seconds=SECONDS, seed=SEED)
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.worker", json.dumps(dataclasses.asdict(job))],
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * SECONDS + 100,
        check=True,
    )
    return [Held(**json.loads(line)) for line in done.stdout.splitlines()]


def figures(rounds: Sequence[Held]) -> dict[str, Any]:
    at_s, rss_mib = [held.at_s for held in rounds], [held.rss_mib for held in rounds]
    return {
        "seed": SEED,
        "seconds": round(at_s[-1] - at_s[0]),
        "calls": rounds[-1].calls,
        **{name: [min(of := counts(rounds, name)), max(of)] for name in COUNTED},
        "rss_mib": [round(min(rss_mib)), round(max(rss_mib))],
        "rss_mib_per_hour": round(3600 * statistics.linear_regression(at_s, rss_mib).slope, 1),
    }


def counts(rounds: Sequence[Held], name: str) -> list[int]:
    return [getattr(held, name) for held in rounds]


def report(title: str, told: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{title}: {told}\n")
    if folder := os.environ.get("LTM_CHAOS_REPORT"):
        pathlib.Path(folder, f"soak-{title}.json").write_text(json.dumps(told, indent=1) + "\n")


@pytest.fixture(params=["sqlite+local", "postgres+s3"])
def setting(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    stores = sqlite_and_local(tmp_path) if request.param[0] == "s" else postgres_and_s3()
    with stores as setup:
        yield request.param, setup.direct


@pytest.mark.timeout(2 * SECONDS + 120)
def test_nothing_grows(setting: tuple[str, Any]) -> None:
    title, settings = setting
    rounds = soak(settings)
    report(title, figures(rounds))
    half = len(rounds) // 2
    for name in COUNTED:
        # The first has what the largest crowd needed. A thread may still be at work for a call that
        # was cancelled, and have a file open; the last is after all has settled.
        first, *later = counts(rounds, name)
        assert later[-1] <= first, name
        assert statistics.median(later[half:]) <= first, name
    rss_mib = [held.rss_mib for held in rounds]
    assert max(rss_mib[half:]) <= max(rss_mib[:half]) + GROWTH_MIB
