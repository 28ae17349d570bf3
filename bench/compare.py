"""``python -m bench.compare [OLD [NEW]]``: what changed from one result to another.

NEW is the last run, if there was one, else the newest result that is kept; OLD the newest one
before it of the same kind of machine. Exits with 1 where something got worse.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from bench import results
from bench.figures import Figure
from bench.results import Result
from bench.tables import table

WORTH_SAYING = 0.10
"""Of a difference that the spreads do not explain."""


class Change(NamedTuple):
    name: str
    before: Figure
    after: Figure

    @property
    def factor(self) -> float:
        return self.after.value / self.before.value

    @property
    def is_worse(self) -> bool:
        return (self.factor < 1) if self.after.unit == "/s" else (self.factor > 1)


def changes(old: Result, new: Result) -> list[Change]:
    """Figures that differ by a tenth and more, and whose quartiles do not overlap; worst first."""
    before = {figure.name: figure for figure in old.figures}
    found = [
        Change(figure.name, before[figure.name], figure)
        for figure in new.figures
        if figure.name in before and _differ(before[figure.name], figure)
    ]
    return sorted(found, key=lambda change: (not change.is_worse, -abs(change.factor - 1)))


def told(old: Result, new: Result) -> str:
    found = changes(old, new)
    both = {figure.name for figure in old.figures} & {figure.name for figure in new.figures}
    rows = [
        [
            change.name,
            _value(change.before),
            _value(change.after),
            f"{change.factor:.2f}",
            "worse" if change.is_worse else "better",
        ]
        for change in found
    ]
    lines = [
        f"from {_moment(old)} to {_moment(new)}, {len(both)} figures in both, {len(found)} changed"
    ]
    if old.machine != new.machine:
        lines.append(f"other machines, {old.machine} and {new.machine}: only ratios compare")
    if rows:
        lines += ["", table(["what", "before", "after", "factor", ""], rows)]
    return "\n".join(lines)


def _moment(result: Result) -> str:
    return f"{result.around['commit']} of {result.date[:10]}"


def _differ(before: Figure, after: Figure) -> bool:
    if not before.value or abs(after.value / before.value - 1) < WORTH_SAYING:
        return False
    return _low(after) > _high(before) or _high(after) < _low(before)


def _low(figure: Figure) -> float:
    return figure.value if figure.low is None else figure.low


def _high(figure: Figure) -> float:
    return figure.value if figure.high is None else figure.high


def _value(figure: Figure) -> str:
    return f"{figure.value:.3g} ({_low(figure):.3g} to {_high(figure):.3g}) {figure.unit}"


def _choose(arguments: list[str]) -> tuple[Result, Result] | None:
    kept = [found for _, found in results.stored()]
    if len(arguments) > 1:
        new = results.read(Path(arguments[1]))
    elif results.LAST.exists():
        new = results.read(results.LAST)
    elif kept:
        new = kept[-1]
    else:
        return None
    if arguments:
        return results.read(Path(arguments[0])), new
    older = [one for one in kept if one.date < new.date and one.machine == new.machine]
    return (older[-1], new) if older else None


def main(arguments: list[str]) -> int:
    chosen = _choose(arguments)
    if chosen is None:
        print("there are no two results of this kind of machine: run make bench", file=sys.stderr)
        return 2
    print(told(*chosen))
    return int(any(change.is_worse for change in changes(*chosen)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
