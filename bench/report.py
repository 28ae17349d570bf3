"""``python -m bench.report [RESULT]``: a result as Markdown and charts.

It rewrites what is between the two marks in ``README.md``, the charts beside the results, and
``bench/results/README.md`` with every figure. Without an argument it takes the newest result.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench import charts, results
from bench.results import ROOT
from bench.sections import report
from bench.tables import every_figure

BEGIN, END = "<!-- figures begin -->", "<!-- figures end -->"


def put_between_marks(text: str, new: str) -> str:
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{new}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str]) -> int:
    kept = results.stored()
    if arguments:
        result = results.read(Path(arguments[0]))
    elif kept:
        result = kept[-1][1]
    else:
        print("there is no result yet: run make bench", file=sys.stderr)
        return 2
    charts.draw_all(result.figures, results.HOME)
    every = [
        "# Every figure",
        result.told(),
        result.told_missing(),
        every_figure(result.figures),
    ]
    text = "\n\n".join(part for part in every if part) + "\n"
    (results.HOME / "README.md").write_text(text, encoding="utf-8")
    readme = ROOT / "README.md"
    text = put_between_marks(readme.read_text(encoding="utf-8"), report(result))
    readme.write_text(text, encoding="utf-8")
    print(f"README.md and {results.HOME.relative_to(ROOT)} have the figures of {result.told()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
