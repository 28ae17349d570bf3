"""Results as files, one for each commit and kind of machine."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.figures import Figure

ROOT = Path(__file__).parents[1]
HOME = ROOT / "bench" / "results"
LAST = ROOT / ".benchmarks" / "last.json"
BUDGETS = ROOT / "bench" / "budgets.toml"
NOT_REACHED = "not reached"
DIGITS = 4
_NOTHING = {field.name: field.default for field in dataclasses.fields(Figure)}


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """One run: what it depended on, and its figures."""

    around: dict[str, Any]
    figures: list[Figure]
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    """The benchmarks of which there are no figures, or not all, and why."""

    @property
    def machine(self) -> str:
        """Figures of two runs are comparable where this is the same."""
        return f"{self.around['processor']}, {self.around['cores']} cores"

    @property
    def date(self) -> str:
        return str(self.around["date"])

    def file_name(self) -> str:
        kind = f"{self.around['architecture']}-{self.around['cores']}-cores"
        return f"{self.date[:10]}-{self.around['commit'].rstrip('+')}-{kind}.json"

    def told(self) -> str:
        """One sentence for people."""
        around = self.around
        versions = ", ".join(f"{name} {found}" for name, found in around["versions"].items())
        return (
            f"{self.date[:10]}, commit {around['commit']}, {self.machine} "
            f"({around['architecture']}, {around['system']}), load {around['load_before']} before "
            f"it began, {around.get('took_s', 0) / 60:.0f} minutes; {versions}."
        )

    def told_missing(self) -> str:
        """Those that failed by name, those that an interruption left out by their number."""
        lines = [f"- `{name}` {why}" for name, why in self.missing.items() if why != NOT_REACHED]
        unreached = [name for name, why in self.missing.items() if why == NOT_REACHED]
        if unreached:
            lines.append(f"- {len(unreached)} were not reached, from `{unreached[0]}` on")
        head = "Of these benchmarks there are no figures, or not all:\n\n"
        return head + "\n".join(lines) if lines else ""


def write(result: Result, target: Path) -> None:
    """As a whole, or not at all: who is killed meanwhile leaves what was there before."""
    target.parent.mkdir(exist_ok=True)
    lines = ",\n  ".join(
        json.dumps(_compact(figure), ensure_ascii=False) for figure in result.figures
    )
    told = {**result.around, "missing": result.missing}
    head = json.dumps(told, indent=1, ensure_ascii=False).removesuffix("\n}")
    aside = target.with_suffix(".part")
    aside.write_text(f'{head},\n "figures": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
    aside.replace(target)


def read(source: Path) -> Result:
    found = json.loads(source.read_text(encoding="utf-8"))
    figures = [Figure(**line) for line in found.pop("figures")]
    return Result(found, figures, found.pop("missing", {}))


def stored() -> list[tuple[Path, Result]]:
    """Those that are kept, the newest last."""
    return sorted(
        ((path, read(path)) for path in HOME.glob("*.json")), key=lambda found: found[1].date
    )


def reason_for(figure: Figure) -> str:
    """Why it is over its budget, as ``budgets.toml`` says; empty where it does not."""
    known: Iterable[dict[str, str]] = tomllib.loads(BUDGETS.read_text(encoding="utf-8"))["over"]
    return next(
        (entry["reason"] for entry in known if fnmatch.fnmatchcase(figure.name, entry["rows"])), ""
    )


def _compact(figure: Figure) -> dict[str, Any]:
    fields = dataclasses.asdict(figure)
    return {
        name: _rounded(value) if isinstance(value, float) else value
        for name, value in fields.items()
        if value != _NOTHING[name]
    }


def _rounded(value: float) -> float:
    if not value or not math.isfinite(value):
        return value
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
