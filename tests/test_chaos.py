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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from .chaos.campaign import Figures, campaign
from .chaos.setups import (
    Setup,
    firestore_and_gcs,
    postgres_and_s3,
    sqlite_and_local,
    supabase_and_azure,
)

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


SETUPS: dict[str, Callable[[pathlib.Path], AbstractContextManager[Setup]]] = {
    "postgres+s3": lambda folder: postgres_and_s3(),
    "supabase+azure": lambda folder: supabase_and_azure(),
    "firestore+gcs": lambda folder: firestore_and_gcs(),
    "sqlite+local": sqlite_and_local,
}


@pytest.fixture(params=SETUPS)
def setup(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[str, Setup]]:
    with SETUPS[request.param](tmp_path) as setup:
        yield request.param, setup


@pytest.mark.timeout(3 * SECONDS + 120)
async def test_nothing_acknowledged_is_lost(setup: tuple[str, Setup]) -> None:
    name, stores = setup
    figures = await campaign(stores, seconds=SECONDS, seed=SEED)
    report(name, figures)
    assert figures.violations == []
    assert figures.faults
    assert figures.calls > 5 * SECONDS
