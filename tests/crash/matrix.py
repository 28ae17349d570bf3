"""The rows of the matrix, each run once however many tests and test processes ask for it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from ltm_async.testing import Faults, Mode
from ltm_async.testing.crashing import (
    AGAIN,
    COLLECTION,
    KILLS,
    ONCE,
    Attempt,
    Operation,
    Prepared,
    Scene,
    Told,
    attempt,
    check_recovery,
    steps_of,
    stop_and_stop_the_collection,
    stop_at,
    why,
)

from .child import Children, Job
from .places import packed
from .scenes import CopiedScene, Scenes
from .settings import Kind, Setting

GIVE_UP_S = 1500


class _Point(NamedTuple):
    """Where an operation is stopped."""

    at: int
    name: str
    first_at: int | None = None
    """The step that has a fault before."""
    first: str = ""


class Cell(NamedTuple):
    """One crash point in one mode."""

    first: str
    """The step that had a fault before, or nothing."""
    step: str
    mode: str
    violation: str | None = None


class Row(NamedTuple):
    """What was tried with one operation in one setting."""

    operation: str
    pair: str
    kind: str
    cells: Sequence[Cell]
    seconds: float

    @property
    def violations(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.violation is not None]


class Matrix:
    def __init__(self, folder: pathlib.Path, scenes: Scenes, children: Children) -> None:
        self._folder = folder
        self._scenes = scenes
        self._children = children

    def row(self, operation: Operation, setting: Setting) -> Row:
        kept = self._folder / f"{operation.name}, {setting.name}.json"
        try:
            kept.with_suffix(".claimed").touch(exist_ok=False)
        except FileExistsError:
            return _load(kept)
        began = time.monotonic()
        cells: list[Cell] = []
        try:
            scene = self._scenes.of(setting.pair)
            asyncio.run(self._fill(cells, scene, operation, setting))
        except BaseException as exc:
            cells.append(Cell("", "", "", repr(exc)))
            raise
        finally:
            took_s = round(time.monotonic() - began, 2)
            row = Row(operation.name, setting.pair, setting.kind.value, cells, took_s)
            _keep(kept, row)
        return row

    async def _fill(
        self,
        cells: list[Cell],
        scene: CopiedScene,
        operation: Operation,
        setting: Setting,
    ) -> None:
        async with scene.warm():
            points = await _points(scene, operation, setting.kind)
            for point, mode in itertools.product(points, setting.modes):
                violation = None
                try:
                    async with scene.copy() as prepared:
                        await self._stop(prepared, operation, setting.kind, point, mode)
                except AssertionError as exc:
                    violation = why(exc)
                cells.append(Cell(point.first, point.name, mode.value, violation))

    async def _stop(
        self, prepared: Prepared, operation: Operation, kind: Kind, point: _Point, mode: Mode
    ) -> None:
        retry = AGAIN if kind.retries else ONCE
        if kind is Kind.COLLECTION:
            gone = Faults(at=point.first_at, mode=Mode.DOWN)
            if mode not in KILLS:
                then = Faults(at=point.at, mode=mode)
                await stop_and_stop_the_collection(prepared, operation, gone, then)
                assert then.reached, "the step was not reached"
                return
            pair, now_us, before = prepared
            ended = await attempt(pair, operation, [gone], now_us, ONCE)
            self._kill(prepared, COLLECTION.name, point.at, mode)
            await check_recovery(pair, before, operation, ended, now_us)
        elif mode in KILLS:
            self._kill(prepared, operation.name, point.at, mode, point.first_at, kind.retries)
            pair, now_us, before = prepared
            await check_recovery(pair, before, operation, Attempt(Told.KILLED), now_us)
        else:
            await stop_at(prepared, operation, point.at, mode, lost_at=point.first_at, retry=retry)

    def _kill(
        self,
        prepared: Prepared,
        operation: str,
        at: int,
        mode: Mode,
        lost_at: int | None = None,
        retries: bool = False,
    ) -> None:
        job = Job(
            operation=operation,
            pair=packed(prepared.pair),
            now_us=prepared.now_us,
            at=at,
            mode=mode.value,
            lost_at=lost_at,
            retries=retries,
        )
        assert self._children.run(job).killed, "the step was not reached"


async def _points(scene: Scene, operation: Operation, kind: Kind) -> list[_Point]:
    retry = AGAIN if kind.retries else ONCE
    whole = _numbered(await steps_of(scene, operation, retry=retry))
    if kind in {Kind.ONE, Kind.RETRIED}:
        return [_Point(at, name) for at, name in enumerate(whole)]
    points: list[_Point] = []
    for first_at, first in enumerate(whole):
        begin = 0
        if kind is Kind.COLLECTION:
            counting = Faults()
            async with scene.copy() as prepared:
                gone = Faults(at=first_at, mode=Mode.DOWN)
                await stop_and_stop_the_collection(prepared, operation, gone, counting)
            names = _numbered(counting.steps)
        else:
            lost = Faults(at=first_at, mode=Mode.LOST_REPLY)
            names = _numbered(await steps_of(scene, operation, lost, retry=retry))
            # What ran beside it is cancelled by the failure, where nothing is tried again.
            begin = first_at + 1 if kind.retries else lost.steps_begun
        points += [
            _Point(at, name, first_at, first) for at, name in enumerate(names) if at >= begin
        ]
    return points


def _numbered(steps: Sequence[str]) -> list[str]:
    return [f"{number} {name}" for number, name in enumerate(steps)]


def _keep(path: pathlib.Path, row: Row) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(row))
    aside.rename(path)


def _load(path: pathlib.Path) -> Row:
    """A row that another test has run, or is running."""
    give_up = time.monotonic() + GIVE_UP_S
    while not path.exists():
        assert time.monotonic() < give_up, f"nobody finished {path.stem}"
        time.sleep(0.02)
    return row_of(json.loads(path.read_text()))


def row_of(fields: Sequence[Any]) -> Row:
    operation, pair, kind, cells, seconds = fields
    return Row(operation, pair, kind, [Cell(*cell) for cell in cells], seconds)


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    with Children() as running:
        yield running


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory, scenes: Scenes, children: Children) -> Matrix:
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, in one that they share.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "crash-matrix"
    folder.mkdir(exist_ok=True)
    return Matrix(folder, scenes, children)
