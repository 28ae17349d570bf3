"""Charts of a result as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from bench.cold_start import COLD_START
from bench.figures import Figure
from bench.peers import PROMISES
from bench.tables import CATALOGS, PEER_CELLS, Found, peer_row

COLOURS = ["#3b6fb6", "#d1741c", "#3a9a5b", "#b5446e", "#7a5bb5", "#5c6670", "#a08a2e"]
OURS_COLOUR = "#3b6fb6"
BUDGET_COLOUR = "#c62828"
RATIO_ROWS = {
    "one store": "one store",
    "store 100, new": "store_batch 100 new",
    "store 100, existing": "store_batch 100 existing",
    "store 500, new": "store_batch 500 new",
    "store 500, existing": "store_batch 500 existing",
    "store 10,000 by 500, new": "store_batch 10,000 by 500 new",
    "one retrieve": "one retrieve",
    "retrieve 100": "retrieve_batch 100",
    "retrieve 500": "retrieve_batch 500",
    "retrieve 10,000 by 500": "retrieve_batch 10,000 by 500",
}
SIZES = {1: "one store", 100: "store_batch 100 new", 500: "store_batch 500 new"}
LARGEST = "store_batch 10,000 by 500 new"
ROWS = (10_000, 100_000, 1_000_000)
GROWTH = {
    "store 500": "store_batch 500 existing",
    "retrieve 500": "retrieve_batch 500",
    "clean up 500": "cleanup_expired(500)",
    "page of changes": "a page of 500 changes",
    "search": "search of a word of 100 entries",
}
STARTS = {
    "SQLite": "existing file",
    "PostgreSQL": "existing schema",
    "Supabase": "",
    "Firestore, light": "",
    "Firestore, official": "",
    "S3": "",
    "S3 by obstore": "",
    "GCS": "",
    "Azure": "",
    "DuckDB": "DuckDB's import in it",
}
STEPS = ["interpreter", "imports", "construct", "open, connect", "first write", "first read"]
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "svg.hashsalt": "ltm_async",
    "svg.fonttype": "none",
}


def draw_all(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """One file for each chart whose figures are there."""
    found = Found(figures)
    draw = {
        "ratios": ratios,
        "cost-by-size": cost_by_size,
        "cold-start": cold_start,
        "peers": peers,
    }
    folder.mkdir(exist_ok=True)
    made = []
    with mpl.rc_context(_STYLE):
        for name, make in draw.items():
            target = folder / f"{name}.svg"
            # Without the date, so that the same figures make the same file.
            make(found).savefig(target, metadata={"Date": None}, facecolor="white")
            made.append(target)
    return made


def ratios(found: Found) -> Canvas:
    """A point for each catalog and operation, with its quartiles."""
    canvas = Canvas(figsize=(8, 7.5), layout="constrained")
    axes = canvas.subplots()
    titles = list(RATIO_ROWS)
    for number, store in enumerate(CATALOGS):
        points = [
            (row + (number - 2) * 0.14, figure)
            for row, title in enumerate(titles)
            if (figure := found.first(store, RATIO_ROWS[title])) is not None
        ]
        values = [figure.value for _, figure in points]
        axes.errorbar(
            values,
            [place for place, _ in points],
            xerr=[
                [figure.value - (figure.low or figure.value) for _, figure in points],
                [(figure.high or figure.value) - figure.value for _, figure in points],
            ],
            fmt="o",
            markersize=4,
            linewidth=1.2,
            color=COLOURS[number],
            label=store,
        )
    axes.axvline(1, color="#888888", linewidth=0.8)
    axes.axvline(1.5, color=BUDGET_COLOUR, linewidth=0.8, linestyle="--", label="budget")
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("time over that of the bare driver (median and quartiles of paired rounds)")
    axes.set_title("How much longer than the bare driver")
    canvas.legend(loc="outside lower center", ncols=3, frameon=False)
    return canvas


def cost_by_size(found: Found) -> Canvas:
    """Time for an entry by the size of the call, and time of a call by the size of the table."""
    canvas = Canvas(figsize=(10, 8), layout="constrained")
    top, bottom = canvas.subplots(2, 2)
    for axes, side in zip(top, ("ours", "bare driver"), strict=True):
        for number, store in enumerate(CATALOGS):
            points = [
                (size, _time(figure, side) / size * 1e3)
                for size, what in {**SIZES, 10_000: LARGEST}.items()
                if (figure := found.first(store, what)) is not None
            ]
            _line(axes, points, COLOURS[number], store)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="entries stored in a call",
            title=f"Cost of an entry: {side}",
        )
        axes.set_ylabel("microseconds for an entry")
    limits = [axes.get_ylim() for axes in top]
    for axes in top:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    _legend(top[0])
    for axes, store in zip(bottom, ("SQLite", "PostgreSQL"), strict=True):
        for number, (title, what) in enumerate(GROWTH.items()):
            for side, style in (("ours", "-"), ("bare driver", ":")):
                points = [
                    (rows, _time(figure, side))
                    for rows in ROWS
                    if (figure := found.first(store, f"{what} in {rows:,} rows")) is not None
                ]
                label = title if side == "ours" else None
                _line(axes, points, COLOURS[number], label, style)
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="rows in the table",
            title=f"{store}: growth (dotted: bare driver)",
        )
        axes.set_ylabel("milliseconds for a call")
    _legend(bottom[0])
    return canvas


def cold_start(found: Found) -> Canvas:
    """Bars of phases, ours above bare."""
    canvas = Canvas(figsize=(9, 7.5), layout="constrained")
    axes = canvas.subplots()
    labels: list[str] = []
    for store, title in STARTS.items():
        for side in ("ours", "bare"):
            begin = f"{COLD_START}, {title}" if title else COLD_START
            phases = found.beginning(store, f"{begin}, {side}: ")
            if phases:
                _stack(axes, len(labels), phases, alpha=1.0 if side == "ours" else 0.55)
                labels.append(f"{store}, {side}")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds from the start of a new process (medians of each phase)")
    axes.set_title("Cold start by phase: ours, and a bare program (pale)")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    handles = [mpl.patches.Patch(color=COLOURS[n], label=step) for n, step in enumerate(STEPS)]
    canvas.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    return canvas


def peers(found: Found) -> Canvas:
    """Time for an entry, of ours and each peer."""
    canvas = Canvas(figsize=(10, 9), layout="constrained")
    for axes, (kind, names) in zip(canvas.subplots(3, 1), PROMISES.items(), strict=True):
        cells = [
            (
                f"{verb}\n{count} of\n{'64 KiB' if large else '200 B'}",
                peer_row(verb, count, large=large),
                count,
            )
            for verb in ("store", "retrieve")
            for count, large in PEER_CELLS
            if found.first(kind, peer_row(verb, count, large=large)) is not None
        ]
        width = 0.8 / (len(names) + 1)
        for number, name in enumerate(("ltm_async", *names)):
            heights = [
                _peer_time(found, kind, what, name) / count * 1e3 for _, what, count in cells
            ]
            places = [n + (number - len(names) / 2) * width for n in range(len(cells))]
            axes.bar(places, heights, width, color=COLOURS[number], label=name)
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        # Whole powers of ten, or bars would look more apart than they are.
        axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
        axes.set_xticks(range(len(cells)), [title for title, _, _ in cells])
        axes.set_ylabel("microseconds for an entry")
        axes.set_title(kind)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return canvas


def _time(figure: Figure, side: str) -> float:
    spent_ms = figure.ours_ms if side == "ours" else figure.theirs_ms
    return spent_ms or figure.value


def _peer_time(found: Found, kind: str, what: str, name: str) -> float:
    if name == "ltm_async":
        figure = found.first(kind, what)
        return 0.0 if figure is None else _time(figure, "ours")
    figure = found.over(kind, what, name)
    return 0.0 if figure is None else _time(figure, name)


def _line(
    axes: Any, points: Sequence[tuple[int, float]], colour: str, label: str | None, style: str = "-"
) -> None:
    if points:
        sizes, times = zip(*points, strict=True)
        axes.plot(sizes, times, style, marker="o", markersize=3, color=colour, label=label)
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:  # none where a run was of a part only
        axes.legend(frameon=False, fontsize=8)


def _stack(axes: Any, row: int, phases: Mapping[str, float], alpha: float) -> None:
    left = 0.0
    for name, spent_ms in phases.items():
        step = _step(name)
        if step is not None:
            axes.barh(row, spent_ms, left=left, color=COLOURS[step], alpha=alpha, height=0.75)
            left += spent_ms
    axes.annotate(f" {left:.0f}", (left, row), va="center", fontsize=8)


def _step(phase: str) -> int | None:
    """Which of the steps a phase belongs to; None for the sum of all."""
    if phase == "in all":
        return None
    for step, words in (
        (0, ("interpreter",)),
        (5, ("first retrieve", "first query")),
        (4, ("first store", "first put")),
        (1, ("import",)),
        (2, ("loop", "constructor", "client")),
    ):
        if phase.startswith(words):
            return step
    return 3
