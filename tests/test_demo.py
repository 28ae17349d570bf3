"""The demo: its figures are the library's own, and a second run finds everything there."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.metadata
import inspect
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import pytest

from ltm_async import LTMBackend, demo
from ltm_async.testing import ManualClock


def run(path: pathlib.Path) -> demo.Report:
    """A run whose notes expire without waiting."""
    clock = ManualClock()

    async def wait(seconds: float) -> None:
        clock.advance(seconds)

    return asyncio.run(demo.run(path, clock=clock, wait=wait))


@dataclasses.dataclass(frozen=True)
class Runs:
    """Two runs, one after the other, on the same data."""

    path: pathlib.Path
    first: demo.Report
    second: demo.Report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    path = tmp_path_factory.mktemp("demo")
    return Runs(path, run(path), run(path))


def figures(table: str) -> dict[str, list[int]]:
    """The whole numbers of each line, by the text it begins with."""
    found: dict[str, list[int]] = {}
    for line in table.splitlines():
        if match := re.fullmatch(r" *(\D.*?)((?: +[\d,]+)+)(?: +\d+\.\d\d)?", line):
            found[match[1]] = [int(figure.replace(",", "")) for figure in match[2].split()]
    return found


def test_everything_comes_back_equal_and_is_verified(runs: Runs) -> None:
    report = runs.first
    assert report.sound
    assert report.stored.stored == report.retrieved.found > 150
    assert report.stored.inlined + report.stored.uploaded == report.stored.stored
    assert report.stored.inlined > 0 < report.stored.uploaded
    assert report.stored.deduplicated == 0
    assert report.different == []
    assert (report.verified.entries, report.left_over) == (report.stored.stored, 0)


async def test_every_installed_package_is_remembered(runs: Runs) -> None:
    async with LTMBackend(f"sqlite:///{runs.path / demo.CATALOG}", runs.path / demo.BLOBS) as ltm:
        for dist in importlib.metadata.distributions():
            key = f"package metadata: {dist.name} {dist.version}"
            assert (await ltm.retrieve(key)).value["name"] == dist.name
        key = f"Python's modules: python {platform.python_version()}/argparse.py"
        assert (await ltm.retrieve(key)).value == inspect.getsource(argparse)


def test_a_second_run_deduplicates_everything(runs: Runs) -> None:
    assert runs.second.sound
    stored = runs.second.stored
    assert stored.deduplicated == stored.stored == runs.first.stored.stored
    assert stored.uploaded == 0
    assert runs.second.verified.entries == runs.first.verified.entries


def test_the_notes_expire_and_are_cleaned_up(runs: Runs) -> None:
    for report in (runs.first, runs.second):
        assert (report.notes_before, report.notes_after) == (demo.NOTES, 0)
        assert report.cleaned.deleted == report.notes.stored == demo.NOTES
        assert report.cleaned.blobs_deleted == report.notes.uploaded == demo.NOTES // 4


@pytest.mark.parametrize("which", ["first", "second"])
def test_the_table_shows_the_figures_of_the_results(runs: Runs, which: str) -> None:
    report: demo.Report = getattr(runs, which)
    stored = report.stored
    sources = {
        source.name: [
            source.entries,
            source.inlined,
            source.entries - source.inlined,
            source.byte_size,
            source.largest,
        ]
        for source in report.sources
    }
    assert figures(demo.table(report)) == sources | {
        "in all": [
            stored.stored,
            stored.inlined,
            stored.stored - stored.inlined,
            stored.byte_size,
            max(source.largest for source in report.sources),
        ],
        "stored, and acknowledged as durable": [stored.stored],
        "kept in their rows": [stored.inlined],
        "uploaded as blobs": [stored.uploaded],
        "deduplicated: the content was there": [stored.deduplicated],
        "read back": [report.retrieved.found],
        "not equal to what was stored": [0],
        f"notes stored for {demo.NOTE_TTL_S} s": [demo.NOTES],
        "found at once": [demo.NOTES],
        "found after that time": [0],
        "expired entries cleaned up": [demo.NOTES],
        "blobs deleted with them": [demo.NOTES // 4],
        "verified: entries read and hashed": [report.verified.entries],
        "blobs among them": [report.verified.blobs],
        "disagreements of rows and blobs": [0],
        "left by a killed run, for a later collection": [0],
    }


def test_the_columns_of_the_table_end_below_each_other(runs: Runs) -> None:
    lines = demo.table(runs.first).splitlines()[2:-3]
    assert {len(line) for line in lines if line} == {63, 76}  # counts; seconds and the rules


def test_a_value_that_came_back_different_is_not_sound(runs: Runs) -> None:
    report = dataclasses.replace(runs.first, different=["a key"])
    assert not report.sound
    assert demo.table(report).endswith("not equal: a key")


@pytest.mark.parametrize(
    "entry",
    [
        {"key": "k", "value": "other", "metadata": {"kind": "a"}},
        {"key": "k", "value": "text", "metadata": {"kind": "b"}},
        {"key": "absent", "value": "text", "metadata": {"kind": "a"}},
    ],
)
async def test_value_and_metadata_are_compared(entry: dict[str, Any]) -> None:
    async with LTMBackend("memory:", "memory:") as ltm:
        await ltm.store("k", "text", metadata={"kind": "a"})
        read = await ltm.retrieve_batch(["k", "absent"])
    assert demo._equal({"key": "k", "value": "text", "metadata": {"kind": "a"}}, read)
    assert not demo._equal(entry, read)


def test_a_damaged_blob_is_not_sound(tmp_path: pathlib.Path) -> None:
    """The verdict depends on what verify() finds, among entries of earlier runs too."""

    async def store() -> None:
        async with LTMBackend(f"sqlite:///{tmp_path / demo.CATALOG}", tmp_path / demo.BLOBS) as ltm:
            await ltm.store("an entry of another run", "long text " * 1000)

    asyncio.run(store())
    (blob,) = [path for path in (tmp_path / demo.BLOBS).rglob("*") if path.is_file()]
    blob.write_bytes(b"damaged")
    report = run(tmp_path)
    assert not report.sound
    assert list(report.verified.problems) == ["an entry of another run"]
    assert "NOT SOUND" in demo.table(report)
    assert "an entry of another run: " in demo.table(report)


def test_starting_over_forgets_the_data_and_nothing_else(tmp_path: pathlib.Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    run(tmp_path)
    demo.forget(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


def test_forgetting_where_nothing_is_does_nothing(tmp_path: pathlib.Path) -> None:
    demo.forget(tmp_path / "absent")


def test_the_command_prints_the_table_and_says_when_it_cannot(tmp_path: pathlib.Path) -> None:
    def command(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "ltm_async.demo", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1"},
            check=False,
        )

    first, second, fresh = command(), command(), command("--fresh")
    assert [run.returncode for run in (first, second, fresh)] == [0, 0, 0], first.stderr
    assert first.stdout.endswith("so nothing will be uploaded.\n")
    assert second.stdout.endswith("were there already.\n")
    assert fresh.stdout.endswith("so nothing will be uploaded.\n")
    assert [path.name for path in tmp_path.iterdir()] == [".ltm-demo"]

    (tmp_path / "file").touch()
    refused = command("--path", "file/below")
    assert refused.returncode == 1
    assert refused.stderr.startswith("ltm_async.demo: ")
    assert refused.stdout == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_can_show_the_table(tmp_path: pathlib.Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ltm_async.demo", "--path", str(tmp_path)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    assert "in all" in done.stdout.decode(encoding)
