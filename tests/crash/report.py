"""The matrix of crash points as a table and as JSON; ``python -m tests.crash.report file.json``."""

from __future__ import annotations

import json
import pathlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ltm_async.testing import Mode

from .matrix import Cell, Row, row_of

MODES = tuple(mode.value for mode in Mode)


def saved(rows: Sequence[Row]) -> str:
    return json.dumps([row._asdict() for row in rows], separators=(",", ":")) + "\n"


def loaded(text: str) -> list[Row]:
    return [row_of(list(fields.values())) for fields in json.loads(text)]


def summary(rows: Sequence[Row]) -> str:
    """Crash points by operation, and by pair and kind."""
    return (
        _table("operation", rows, lambda row: row.operation)
        + _table("stores, faults", rows, lambda row: f"{row.pair}, {row.kind}")
        + _total(rows)
    )


def whole(rows: Sequence[Row]) -> str:
    """The same, and a table of the operations for each pair and kind."""
    tables = []
    for title in dict.fromkeys((row.pair, row.kind) for row in rows):
        of_title = [row for row in rows if (row.pair, row.kind) == title]
        tables.append(_table(", ".join(title), of_title, lambda row: row.operation))
    return "".join(tables) + summary(rows)


def _table(title: str, rows: Sequence[Row], name_of: Callable[[Row], str]) -> str:
    """Crash points reached in each mode; with violations, as in ``12 !3``."""
    names = dict.fromkeys(map(name_of, rows))
    width = max(map(len, (title, *names)))
    lines = [f"{title:<{width}}" + "".join(f"  {mode:>18}" for mode in MODES) + "  seconds"]
    for name in names:
        found = [row for row in rows if name_of(row) == name]
        cells = [cell for row in found for cell in row.cells]
        counts = "".join(f"  {_count(cells, mode):>18}" for mode in MODES)
        lines.append(f"{name:<{width}}{counts}  {sum(row.seconds for row in found):7.1f}")
    return "\n".join(lines) + "\n\n"


def _count(cells: Iterable[Cell], mode: str) -> str:
    found = Counter(cell.violation is None for cell in cells if cell.mode == mode)
    return f"{found.total()} !{found[False]}" if found[False] else str(found.total())


def _total(rows: Sequence[Row]) -> str:
    cells = [cell for row in rows for cell in row.cells]
    broken = [(row, cell) for row in rows for cell in row.violations]
    lines = [
        f"{row.operation} on {row.pair}, {row.kind}: {cell.mode} at {cell.step}"
        f"{cell.first and f', after {cell.first}'}: {cell.violation}"
        for row, cell in broken
    ]
    pairs = len({row.pair for row in rows})
    lines.append(
        f"{len(cells)} crash points reached on {pairs} pairs of stores, {len(broken)} violations, "
        f"{sum(row.seconds for row in rows):.0f} s"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(whole(loaded(pathlib.Path(sys.argv[1]).read_text())))
