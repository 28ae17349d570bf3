"""Processes killed in the middle of our own adapters, and logs of SQLite that are torn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import pytest

from ltm_async.testing import ManualClock
from ltm_async.testing.crashing import (
    Attempt,
    Fresh,
    Look,
    Pair,
    Told,
    check_agreement,
    check_recovery,
    check_rest,
    large,
    look_at,
    opened,
    prepare,
)

from .crash.child import LOGGED, STORES, Children, Job, logged_store
from .crash.operations import BY_NAME
from .crash.places import in_folder, packed
from .crash.settings import EXHAUSTIVE, LONG_S

LINES = 1 if EXHAUSTIVE else 7
"""Before every how many of them a process is killed."""


class FolderScene:
    """SQLite and local blobs in the prepared state, in copies of one folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._template = folder / "template"
        self._template.mkdir()
        clock = ManualClock()
        asyncio.run(prepare(in_folder(self._template), clock))
        self.now_us = clock()
        self._before: Look = asyncio.run(look_at(in_folder(self._template)))

    @contextlib.contextmanager
    def copy(self) -> Iterator[pathlib.Path]:
        with self.empty() as folder:
            shutil.copytree(self._template, folder, dirs_exist_ok=True)
            yield folder

    @contextlib.contextmanager
    def empty(self) -> Iterator[pathlib.Path]:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)

    def job(self, folder: pathlib.Path, operation: str, at: int | None, trap: str) -> Job:
        pair = packed(in_folder(folder))
        return Job(operation=operation, pair=pair, now_us=self.now_us, at=at, trap=trap)

    def check_killed(self, folder: pathlib.Path, operation: str) -> None:
        pair, killed = in_folder(folder), Attempt(Told.KILLED)
        asyncio.run(check_recovery(pair, self._before, BY_NAME[operation], killed, self.now_us))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> FolderScene:
    return FolderScene(tmp_path_factory.mktemp("scene"))


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize(
    ("trap", "every", "least", "name"),
    [
        ("file event", 1, 4, "store large"),
        ("file event", 1, 12, "batch of five"),
        ("file event", 1, 1, "delete large"),
        ("file event", 1, 2, "cleanup"),
        ("file event", 1, 4, "collect with audit"),
        ("line", LINES, 60, "large over large"),
        ("line", LINES, 60, "batch of five"),
        ("line", LINES, 30, "delete large"),
        ("line", LINES, 60, "cleanup"),
    ],
)
def test_a_process_killed_inside_an_adapter_leaves_the_old_or_the_new(
    trap: str, every: int, least: int, name: str, scene: FolderScene, children: Children
) -> None:
    """Before each file operation, and some lines of the adapters, until a run completes."""
    for at in itertools.count(0, every):
        with scene.copy() as folder:
            if not children.run(scene.job(folder, name, at, trap)).killed:
                break
            scene.check_killed(folder, name)
    assert at >= least


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("start", [0, 1])
def test_a_process_killed_during_its_first_store_leaves_stores_that_open(
    start: int, scene: FolderScene, children: Children
) -> None:
    """Anywhere in making the schema, the folder and the first row."""
    for at in itertools.count(start, 2 * LINES):
        with scene.empty() as folder:
            if not children.run(scene.job(folder, "store large", at, "line")).killed:
                break
            asyncio.run(_check_first_store(in_folder(folder), scene.now_us))
    assert at > 100


async def _check_first_store(pair: Pair, now_us: int) -> None:
    async with opened(pair, now_us) as fresh:
        found = await fresh.ltm.retrieve("new large")
        stored = BY_NAME["store large"].stores["new large"].value
        assert found.value == (stored if found.found else None)
        assert (await fresh.ltm.verify()).sound
        check_agreement(await look_at(pair))
        await fresh.ltm.store("new large", large("after the kill"))
        await check_rest(pair, fresh, killed=True)
        assert (await fresh.ltm.retrieve("new large")).value == large("after the kill")


LOG_HEADER = 32
FRAME = 24 + 4096


@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_a_torn_log_loses_the_stores_behind_the_tear_and_no_other(
    damage: str, scene: FolderScene, children: Children
) -> None:
    with scene.copy() as killed:
        verdict = children.run(scene.job(killed, LOGGED, None, "step"))
        assert verdict.killed
        ends: list[int] = verdict.said
        assert len(ends) == STORES
        log = (killed / "ltm.db-wal").read_bytes()
        assert len(log) == ends[-1]
        assert (len(log) - LOG_HEADER) % FRAME == 0
        for frame in range((ends[-4] - LOG_HEADER) // FRAME, (len(log) - LOG_HEADER) // FRAME):
            start = LOG_HEADER + frame * FRAME
            for offset in (start, start + 1, start + 24, start + 2000, start + FRAME - 1):
                with scene.empty() as folder:
                    shutil.copytree(killed, folder, dirs_exist_ok=True)
                    (folder / "ltm.db-shm").unlink()
                    rest = b"" if damage == "cut" else bytes(len(log) - offset)
                    (folder / "ltm.db-wal").write_bytes(log[:offset] + rest)
                    intact = [end for end in ends if end <= offset]
                    asyncio.run(_check_torn(in_folder(folder), intact, scene.now_us))


async def _check_torn(pair: Pair, intact: Sequence[int], now_us: int) -> None:
    expected = dict(logged_store(number) for number in range(len(intact)))
    async with opened(pair, now_us) as fresh:
        await _check_values(fresh, expected)
        check_agreement(await look_at(pair))
        await check_rest(pair, fresh, killed=True, reservations_lost=True)
        await _check_values(fresh, expected)


async def _check_values(fresh: Fresh, expected: dict[str, object]) -> None:
    found = await fresh.ltm.retrieve_batch(["key 0", "key 1"])
    assert found.errors == {}
    assert {key: result.value for key, result in found.results.items()} == expected
    assert (await fresh.ltm.verify()).sound
