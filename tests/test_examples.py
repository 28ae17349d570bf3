"""The examples run as they are, and the catalog among them keeps the contract."""

from __future__ import annotations

import pathlib
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

import ltm_async
from ltm_async.protocols import Catalog
from ltm_async.testing import CatalogContract, CrashPointContract, ManualClock
from ltm_async.testing.crashing import CatalogPlace, MemoryCatalogPlace

from .databases import Console, Database
from .integrations.asgi_calls import Counted

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
LAST_LINES = {
    "blocking_code": "deleted: 100",
    "cached_actions": "refreshed behind it: 2 hit: True",
    "compare_and_swap": "after 20 updates side by side: {'visits': 30}",
    "configuration": "refused: the environment variable LTM_NO_SUCH_NAME is not set",
    "expiry": "entries removed: 1 blobs deleted: 1",
    "lambda_handler": "counted on: True",
    "langgraph_agent": "sunny: 2",
    "many_at_once": "nothing of it was written: True",
    "own_catalog": "{'commits': 2, 'reads': 2}",
    "store_and_retrieve": "deleted nothing True",
    "yaml_configured": "librarian remembers ['Faust', 'Emma']",
}
SERVED = ["fastapi_app"]
"""Tested where they are served."""


def test_every_example_is_known_here() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.py")) == sorted([*LAST_LINES, *SERVED])


@pytest.mark.parametrize("name", LAST_LINES)
def test_an_example_runs_twice_and_says_what_it_did(name: str, tmp_path: pathlib.Path) -> None:
    """Twice, since what the first run left must not disturb the second."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == LAST_LINES[name]


@pytest.mark.parametrize("name", [*LAST_LINES, *SERVED])
def test_an_example_is_short(name: str) -> None:
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 40


def test_two_warm_invocations_of_the_function_share_one_connection(
    database: Database, console: Console, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(database, console)
    monkeypatch.setenv("DATABASE_URL", counted.url)
    monkeypatch.chdir(tmp_path)
    function = runpy.run_path(str(FOLDER / "lambda_handler.py"))
    (opened,) = counted.pids()
    for visits in (1, 2):
        assert function["lambda_handler"]({"user": "ann"}, None) == {
            "user": "ann",
            "visits": visits,
        }
        assert counted.pids() == [opened]
    ltm_async.run(function["ltm"].aclose())


class TestOwnCatalog(CatalogContract):
    @pytest.fixture
    async def catalog(self) -> AsyncIterator[Catalog]:
        self.clock = ManualClock()
        catalog = runpy.run_path(str(FOLDER / "own_catalog.py"))["CountingCatalog"](
            clock=self.clock
        )
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Any, namespace: str) -> dict[str, str | None]:
        return {key: row.inlined_value for key, row in catalog._space(namespace).rows.items()}

    async def raw_ledger(self, catalog: Any, namespace: str) -> dict[str, str]:
        return {blob_id: blob.state for blob_id, blob in catalog._space(namespace).blobs.items()}


class TestCrashPointsOfOwnCatalog(CrashPointContract):
    def new_catalog_place(self) -> CatalogPlace:
        make = runpy.run_path(str(FOLDER / "own_catalog.py"))["CountingCatalog"]
        return MemoryCatalogPlace(make)
