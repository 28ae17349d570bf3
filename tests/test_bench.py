"""The benchmarks keep running, and what is made of their figures says what they say."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import pathlib
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from bench import charts, compare, results, sections
from bench.emulators import Emulators
from bench.figures import Figure, ratio
from bench.racing import LEAST_LONG_ROUNDS, LEAST_ROUNDS, by_callers, longest_stall_ms, race
from bench.results import Result
from bench.tables import every_figure, over_budget

from .made_up_result import made_up_result

ROOT = pathlib.Path(__file__).parents[1]
ONE_OF_EACH_KIND = [
    "test_batches.py::test_store_batch[sqlite-new-500-500]",
    "test_batches.py::test_many_callers[sqlite-store]",
    "test_batches.py::test_the_loop_while_a_large_batch_is_under_way[sqlite-store]",
    "test_blobs.py::test_a_batch_of_local_files[100]",
    "test_cache.py::test_a_hit[wrap-sqlite]",
    "test_cold_start.py::test_sqlite[new]",
    "test_engine.py::test_aggregate",
    "test_growth.py::test_entries[SQLite]",
    "test_memory.py::test_memory_of_a_batch[store-40000-200-8-rss]",
    "test_search.py::test_search_on_sqlite",
    "test_sync.py::test_a_blocking_call[store-memory]",
]
ALWAYS_HERE = sorted(
    path.stem
    for path in (ROOT / "bench").glob("*.py")
    if path.stem not in {"__init__", "test_peers"}  # these need the peers, which are not here
)


@pytest.mark.parametrize("name", ALWAYS_HERE)
def test_a_module_of_the_benchmarks_can_be_imported(name: str) -> None:
    importlib.import_module(f"bench.{name}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_small_round_of_each_kind_runs() -> None:
    nodes = [f"bench/{node}" for node in ONE_OF_EACH_KIND]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *nodes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{len(nodes)} passed" in done.stdout, done.stdout + done.stderr


# What is kept of a run


BENCHMARKS = """
import pytest
from bench.collecting import report_figure
from bench.figures import Figure

@pytest.fixture(autouse=True)
def told(request):
    report_figure(request.node, Figure(store="S3", what=request.node.name, value=1, unit="ms"))

@pytest.fixture
def broken():
    raise OSError("/root/of/127.0.0.1")

def test_measured(): pass
def test_failed(): assert False
def test_without_its_server(): pytest.skip("no server")
def test_without_its_fixture(broken): pass
def test_interrupted(): raise KeyboardInterrupt
def test_never(): pass
"""
RUN = """
import json, sys, pytest
from bench.collecting import Collector
seen = []
collector = Collector(lambda: seen.append(len(collector.figures)))
code = pytest.main([sys.argv[1], "-q", "-p", "no:cacheprovider"], [collector])
told = [[one.what for one in collector.figures], collector.missing, seen, int(code)]
print("told", json.dumps(told))
"""


def test_what_was_measured_is_kept_when_others_fail_or_the_run_is_interrupted(
    tmp_path: pathlib.Path,
) -> None:
    file = tmp_path / "test_made_up.py"
    file.write_text(BENCHMARKS, encoding="utf-8")
    command = [sys.executable, "-c", RUN, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    figures, missing, seen, code = json.loads(done.stdout.rpartition("told ")[2])
    ended = ["failed", "without_its_server", "without_its_fixture", "interrupted"]
    assert figures == ["test_measured", *(f"test_{name}" for name in ended)]
    assert {name.rpartition("::test_")[2]: why for name, why in missing.items()} == {
        "failed": "failed: AssertionError",
        "without_its_server": "was skipped",
        "without_its_fixture": "failed: OSError",
        "interrupted": "was interrupted",
        "never": "not reached",
    }
    assert seen == [1, 2, 3, 4]
    assert code == pytest.ExitCode.INTERRUPTED


def test_an_emulator_that_is_full_gives_way_to_an_empty_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Emulators() as emulators:
        first = emulators.with_room()
        assert emulators.with_room() is first
        monkeypatch.setattr("bench.emulators.FULL_MIB", 0)
        second = emulators.with_room()
        assert second is not first
        assert not first.is_running()
        assert second.is_running()
    assert not second.is_running()


# What is measured


async def test_all_sides_of_a_race_do_the_same_work_in_every_round_and_take_turns_to_begin() -> (
    None
):
    done: list[tuple[str, int]] = []

    async def side(name: str, work: int) -> None:
        done.append((name, work))

    sides = {name: (lambda work, name=name: side(name, work)) for name in "abc"}
    run = await race(sides, lambda turn: turn, rounds=4)
    rounds = [done[start : start + 3] for start in range(0, len(done), 3)]
    assert all({name for name, _ in one} == {*"abc"} for one in rounds)
    assert [{work for _, work in one} for one in rounds] == [{n} for n in range(len(rounds))]
    assert [one[0][0] for one in rounds[:4]] == ["a", "b", "c", "a"]
    assert {len(times) for times in run.wall_ms.values()} == {4}


class Clock:
    """In seconds; time passes where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = process_time = monotonic


@pytest.mark.parametrize(
    ("round_s", "rounds"), [(1.0, LEAST_ROUNDS), (4.0, LEAST_ROUNDS), (6.0, LEAST_LONG_ROUNDS)]
)
async def test_a_race_ends_when_its_time_is_up_but_not_before_five_rounds_or_three_long_ones(
    monkeypatch: pytest.MonkeyPatch, round_s: float, rounds: int
) -> None:
    clock = Clock()
    monkeypatch.setattr("bench.racing.time", clock)

    async def side(_: int) -> None:
        clock.now += round_s

    run = await race({"ours": side}, lambda turn: turn, rounds=1_000, at_most_s=10.0, warmup=0)
    fitting = math.ceil(10.0 / round_s)
    assert run.wall_ms["ours"] == [round_s * 1e3] * max(rounds, fitting)


async def test_callers_share_the_work_and_are_as_many_at_once_as_they_are_said_to_be() -> None:
    running, most, seen = 0, 0, []

    async def call(one: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.append(one)
        running -= 1

    await by_callers(4, call)([*range(40)])
    assert sorted(seen) == [*range(40)]
    assert most == 4


async def test_a_stall_of_the_loop_is_as_long_as_what_blocks_it() -> None:
    async def block() -> None:
        until = asyncio.get_running_loop().time() + 0.05
        while asyncio.get_running_loop().time() < until:
            pass

    assert await longest_stall_ms(block()) > 40


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_times() -> None:
    spent_ms = {"ours": [2.0, 30.0, 8.0], "bare": [1.0, 10.0, 8.0]}
    figure = ratio("SQLite", "store", spent_ms, "bare", limit=1.5)
    assert (figure.value, figure.ours_ms, figure.theirs_ms) == (2.0, 8.0, 8.0)
    assert figure.is_over
    assert figure.name == "SQLite: store, over bare"


# What is made of it


def test_a_result_comes_back_from_its_file_to_four_digits(tmp_path: pathlib.Path) -> None:
    result = replace(made_up_result(), missing={"test_a.py::test_b": "failed: OSError"})
    target = tmp_path / "results" / result.file_name()
    results.write(result, target)
    read = results.read(target)
    assert read.around == result.around
    assert read.missing == result.missing
    assert [one.name for one in read.figures] == [one.name for one in result.figures]
    assert [one.value for one in read.figures] == pytest.approx(
        [one.value for one in result.figures], rel=1e-3
    )
    assert read.figures[0].limit == result.figures[0].limit
    assert len(target.read_text().splitlines()) < len(result.figures) + 40
    assert target.name == "2026-11-01-abc1234-x86_64-2-cores.json"


def test_the_report_names_the_benchmarks_that_failed_and_counts_those_that_were_not_reached() -> (
    None
):
    whole = made_up_result()
    missing = {"a::one": "failed: OSError", "b::two": "not reached", "b::three": "not reached"}
    text = sections.report(replace(whole, missing=missing))
    assert "- `a::one` failed: OSError\n- 2 were not reached, from `b::two` on" in text
    assert "no figures" not in sections.report(whole)


def test_a_kept_result_says_nothing_of_where_it_was_made() -> None:
    for path, result in results.stored():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|tmp|work|usr)/|127\.0\.0\.1|localhost", text)
        names = [figure.name for figure in result.figures]
        assert len(names) == len(set(names))


def test_the_report_has_every_table_and_marks_what_is_over_its_budget() -> None:
    text = sections.report(made_up_result())
    heads = [line for line in text.splitlines() if line.startswith("| ")]
    assert "1.25 (1.19 to 1.31)" in text
    assert "**1.65** (1.57 to 1.73)" in text
    assert "LangGraph's AsyncPostgresStore" in text
    assert "4,321/s" in text
    assert all(len(line.split(" | ")) > 1 for line in heads)
    for chart in ("cold-start", "ratios", "cost-by-size", "peers"):
        assert f"bench/results/{chart}.svg" in text


def test_what_is_over_its_budget_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure(store="S3", what="put 100", value=1.4, unit="×", limit=1.15)
    monkeypatch.setattr(results, "reason_for", lambda one: f"the reason of {one.store}")
    assert "| S3: put 100 | 1.4 × | 1.15 × | the reason of S3 |" in over_budget([figure])
    assert "**over**" in every_figure([figure])
    assert over_budget([replace(figure, value=1.1)]) == "Nothing is over its budget."


def test_the_reasons_that_are_written_down_can_be_read() -> None:
    figure = Figure(store="nothing", what="of the kind", value=1, unit="×")
    assert results.reason_for(figure) == ""


def test_only_what_the_spread_does_not_explain_has_changed() -> None:
    old = made_up_result()

    def with_factor(factor: float) -> Result:
        figures = [
            replace(one, value=one.value * factor, low=(one.low or one.value) * factor,
                    high=(one.high or one.value) * factor)
            for one in old.figures
        ]  # fmt: skip
        return Result({**old.around, "date": "2026-11-02"}, figures)

    assert compare.changes(old, with_factor(1.09)) == []
    wide = Figure(store="S3", what="put", value=1.0, unit="×", low=0.5, high=2.0)
    moved = replace(wide, value=1.3, low=0.6, high=2.5)
    assert compare.changes(Result(old.around, [wide]), Result(old.around, [moved])) == []
    slower = compare.changes(old, with_factor(1.3))
    assert len(slower) == len({figure.name for figure in old.figures})
    rates = {change.name for change in slower if not change.is_worse}
    assert rates == {one.name for one in old.figures if one.unit == "/s"}
    assert "| worse |" in compare.told(old, with_factor(1.3))
    assert "0 changed" in compare.told(old, old)


def test_charts_are_drawn_with_the_names_of_what_they_show(tmp_path: pathlib.Path) -> None:
    files = charts.draw_all(made_up_result().figures, tmp_path)
    words = {file.stem: file.read_text(encoding="utf-8") for file in files}
    assert "store 10,000 by 500, new" in words["ratios"]
    assert "rows in the table" in words["cost-by-size"]
    assert "first write" in words["cold-start"]
    assert "AsyncSqliteStore" in words["peers"]


def test_figures_are_kept_as_json_with_what_they_depend_on() -> None:
    for path, _ in results.stored():
        found = json.loads(path.read_text(encoding="utf-8"))
        assert {"commit", "date", "processor", "cores", "load_before", "versions"} <= found.keys()
