"""Cold starts of the library and of a bare program, from new processes in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.figures import Figure, ratio, spread
from bench.processes import IN_ALL, alternately

Runs = Mapping[str, Sequence[Mapping[str, float]]]
"""Of each side, the milliseconds of the phases of each process."""
COLD_START = "cold start"
OVER_BUDGET_MS = 100.0


def runs_of(ours: str, bare: str, arguments: Callable[[int], Sequence[str]], rounds: int) -> Runs:
    """Of two programs with the same arguments in a round."""
    return alternately({"ours": (ours, arguments), "bare": (bare, arguments)}, rounds)


def figures_of(store: str, runs: Runs, *, title: str = "") -> list[Figure]:
    """Every phase of both sides, and what ours takes over the bare program."""
    begin = f"{COLD_START}, {title}" if title else COLD_START
    figures = [
        spread(store, f"{begin}, {side}: {phase}", [run[phase] for run in side_runs])
        for side, side_runs in runs.items()
        for phase in side_runs[-1]
    ]
    totals = {side: [run[IN_ALL] for run in side_runs] for side, side_runs in runs.items()}
    over_ms = [ours - bare for ours, bare in zip(totals["ours"], totals["bare"], strict=True)]
    return [
        *figures,
        spread(store, f"{begin}: ours less bare", over_ms, limit=OVER_BUDGET_MS),
        ratio(store, f"{begin}: all of it", totals, "bare"),
    ]


def init_of(
    store: str, what: str, runs: Runs, wanted: Iterable[str], *, limit: float | None = None
) -> Figure:
    """Ours from its constructor to a catalog that answers: the phases that are *wanted*."""
    names = set(wanted)
    spent_ms = [sum(run[name] for name in names) for run in runs["ours"]]
    return spread(store, what, spent_ms, limit=limit)
