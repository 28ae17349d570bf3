"""Figures as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bench import results
from bench.figures import Figure

CATALOGS = ["SQLite", "PostgreSQL", "Supabase", "Firestore, light", "Firestore, official"]
BUCKETS = ["Local files", "S3", "S3 by obstore", "GCS", "Azure"]
SENTENCE = 60
PEER_CELLS = [(1, False), (100, False), (500, False), (1, True), (100, True)]
"""Entries of a call, and whether they are large."""


def peer_row(verb: str, count: int, *, large: bool) -> str:
    return f"{verb} {count} of {'64 KiB' if large else 'about 200 bytes'}"


PEER_ROWS = [
    peer_row(verb, count, large=large)
    for verb in ("store", "retrieve")
    for count, large in PEER_CELLS
]


class Found:
    """Figures by their store and what they measure."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self._found: dict[tuple[str, str], list[Figure]] = {}
        for figure in figures:
            self._found.setdefault((figure.store, figure.what), []).append(figure)

    def all(self, store: str, what: str) -> list[Figure]:
        """Over every rival, in their order: budgets are over the first."""
        return self._found.get((store, what), [])

    def first(self, store: str, what: str) -> Figure | None:
        return next(iter(self.all(store, what)), None)

    def over(self, store: str, what: str, rival: str) -> Figure | None:
        return next((one for one in self.all(store, what) if one.over == rival), None)

    def beginning(self, store: str, begin: str) -> dict[str, float]:
        """Medians of all that is named so and goes on, by how it does, in their order."""
        return {
            what.removeprefix(begin): figures[0].value
            for (at, what), figures in self._found.items()
            if at == store and what.startswith(begin)
        }


Cell = Callable[[Figure], str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Figures are on the right of their columns, sentences on the left.

    Rows without a figure are left out; a table without a row is empty.
    """
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return ""
    widest = [max((len(row[n]) for row in rows), default=0) for n in range(len(head))]
    rules = ["---" if n == 0 or width > SENTENCE else "--:" for n, width in enumerate(widest)]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rules)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def crossed(
    found: Found,
    corner: str,
    rows: Mapping[str, str],
    columns: Sequence[str],
    cell: Cell,
    suffix: str = "",
) -> str:
    """*rows* are titles and what they measure; a column is a store."""
    lines = []
    for title, what in rows.items():
        figures = [found.first(store, what + suffix) for store in columns]
        if any(figures):
            lines.append([title, *("" if one is None else cell(one) for one in figures)])
    return table([corner, *columns], lines)


def ratio_cell(figure: Figure) -> str:
    """``1.32 (1.28 to 1.40)``, bold where it is over its budget."""
    value = f"{figure.value:.2f}"
    marked = f"**{value}**" if figure.is_over else value
    if figure.low is None or figure.high is None:
        return marked
    return f"{marked} ({figure.low:.2f} to {figure.high:.2f})"


def times_cell(figure: Figure) -> str:
    """Both times and their ratio."""
    if figure.ours_ms is None or figure.theirs_ms is None:
        return value_cell(figure)
    return f"{short(figure.ours_ms)} / {short(figure.theirs_ms)} ms, {ratio_cell(figure)}"


def value_cell(figure: Figure) -> str:
    marked = f"**{short(figure.value)}**" if figure.is_over else short(figure.value)
    value = f"{marked} {figure.unit}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({short(figure.low)} to {short(figure.high)})"


def short(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def over_budget(figures: Iterable[Figure]) -> str:
    """What misses its budget, and why."""
    rows = [
        [
            figure.name,
            f"{short(figure.value)} {figure.unit}",
            f"{short(figure.limit or 0)} {figure.unit}",
            results.reason_for(figure) or "not known yet",
        ]
        for figure in figures
        if figure.is_over
    ]
    return (
        table(["what", "median", "at most", "why"], rows) if rows else "Nothing is over its budget."
    )


def every_figure(figures: Sequence[Figure]) -> str:
    rows = []
    for figure in figures:
        spread = "" if figure.low is None else f"{short(figure.low)} to {short(figure.high or 0)}"
        limit = "" if figure.limit is None else f"{short(figure.limit)} {figure.unit}"
        value = f"{short(figure.value)} {figure.unit}"
        sides = ""
        if figure.ours_ms is not None and figure.theirs_ms is not None:
            sides = f"{short(figure.ours_ms)} / {short(figure.theirs_ms)} ms"
        rows.append(
            [
                figure.name,
                f"**{value}**" if figure.is_over else value,
                spread,
                f"{limit} **over**" if figure.is_over else limit,
                sides,
                str(figure.rounds or ""),
                figure.note,
            ]
        )
    head = ["what", "median", "quartiles", "at most", "ours / the other", "rounds", "note"]
    return table(head, rows)
