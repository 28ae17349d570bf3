"""Faults of everything at once, and nothing that was acknowledged is lost.

``LTM_CHAOS_S`` has each campaign go on for other than some seconds, and ``LTM_SEED`` gives it other
faults; ``make chaos`` does the first and prints the figures. ``LTM_CHAOS_REPORT`` names a folder
that gets them as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

from .chaos.campaign import Figures, campaign
from .chaos.setups import Setup, postgres_and_s3, sqlite_and_local

SECONDS = float(os.environ.get("LTM_CHAOS_S", "6"))
SEED = int(os.environ.get("LTM_SEED", "1"))


def report(name: str, figures: Figures) -> None:
    # Not asdict, which makes another of a Counter.
    fields = {field.name: getattr(figures, field.name) for field in dataclasses.fields(figures)}
    sys.stdout.write(f"\n{name}\n")
    sys.stdout.writelines(
        f"  {field.replace('_', ' '):20} {value}\n" for field, value in fields.items()
    )
    if folder := os.environ.get("LTM_CHAOS_REPORT"):
        pathlib.Path(folder, f"chaos-{name}.json").write_text(json.dumps(fields, indent=1) + "\n")


async def hold(name: str, setup: Setup) -> None:
    figures = await campaign(setup, seconds=SECONDS, seed=SEED)
    report(name, figures)
    assert figures.violations == []
    assert figures.faults
    assert figures.calls > 20 * SECONDS


@pytest.fixture
def on_servers() -> Iterator[Setup]:
    with postgres_and_s3() as setup:
        yield setup


@pytest.fixture
def on_files(tmp_path: pathlib.Path) -> Iterator[Setup]:
    with sqlite_and_local(tmp_path) as setup:
        yield setup


@pytest.mark.timeout(3 * SECONDS + 120)
async def test_postgres_and_s3(on_servers: Setup) -> None:
    await hold("postgres+s3", on_servers)


@pytest.mark.timeout(3 * SECONDS + 120)
async def test_sqlite_and_a_local_folder(on_files: Setup) -> None:
    await hold("sqlite+local", on_files)
