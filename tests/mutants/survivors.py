"""What mutmut's mutants came to, module by module, and what is known of those that survived.

``python -m tests.mutants.survivors [--json FILE]``, after ``mutmut run`` in the same folder. Exit
codes: 0 every survivor is explained in ``survivors.toml``, 1 one is not.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EXPLAINED = pathlib.Path(__file__).with_name("survivors.toml")
KILLED = ("killed", "timeout")
NOT_RUN = ("not checked", "skipped")


class Change(NamedTuple):
    """What a mutant does, in words that stay the same when others are added beside it."""

    function: str
    before: str
    after: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.survivors", description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="figures for a page")
    given = parser.parse_args(arguments)
    verdicts = dict(parsed(_mutmut("results", "--all", "true")))
    explained = read_explained()
    modules: dict[str, collections.Counter[str]] = {}
    unexplained: list[tuple[str, Change]] = []
    for name, verdict in verdicts.items():
        counts = modules.setdefault(name.split(".")[1], collections.Counter())
        if verdict in NOT_RUN:
            counts["not run"] += 1
            continue
        counts["killed" if verdict in KILLED else "survived"] += 1
        if verdict not in KILLED:
            change = changed(name, _mutmut("show", name))
            if change in explained:
                counts["explained"] += 1
            else:
                unexplained.append((f"{name} ({verdict})", change))
    print(table(modules))
    for name, change in unexplained:
        print(f"\n{name}\n- {change.before}\n+ {change.after}")
    if given.json is not None:
        given.json.write_text(json.dumps(modules, indent=2) + "\n")
    return int(bool(unexplained))


def parsed(results: str) -> Iterable[tuple[str, str]]:
    """The mutants that ``mutmut results`` lists, and what became of each."""
    for line in results.splitlines():
        name, colon, verdict = line.strip().rpartition(": ")
        if colon:
            yield name, verdict


def changed(name: str, diff: str) -> Change:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    after = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return Change(name.rpartition("__mutmut_")[0], before, after)


def read_explained() -> dict[Change, str]:
    data = tomllib.loads(EXPLAINED.read_text())
    return {
        Change(each["function"], each["before"], after): each["why"]
        for each in data["survivors"]
        for after in each["after"]
    }


def table(modules: dict[str, collections.Counter[str]]) -> str:
    columns = ("killed", "survived", "explained", "not run")
    whole = sum(modules.values(), collections.Counter[str]())
    lines = [f"{'module':12}" + "".join(f"{column:>11}" for column in columns) + "     share"]
    for module, counts in [*modules.items(), ("all", whole)]:
        run = counts["killed"] + counts["survived"]
        share = f"{counts['killed'] / run:10.1%}" if run else f"{'-':>10}"
        lines.append(f"{module:12}" + "".join(f"{counts[c]:>11}" for c in columns) + share)
    return "\n".join(lines)


def _mutmut(*arguments: str) -> str:
    mutmut = pathlib.Path(sys.executable).with_name("mutmut")
    return subprocess.run([mutmut, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
