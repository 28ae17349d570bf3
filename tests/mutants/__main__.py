"""Try every mutant, or those named: ``python -m tests.mutants [--json FILE] [NAME …]``.

Prints a table. Exit codes: 0 all were killed, 1 one survived, 2 one is broken or its test is.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import queue
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .mutant import Mutant, read_mutants
from .trying import NotRunError, Tree, Trial, Verdict

SOURCE = pathlib.Path(__file__).parents[2]
MOST_JOBS = 4
FEW_TESTS = 10
"""Done before several workers have begun."""
SAID_WIDTH = 70


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to try; all by default")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="figures for a page")
    given = parser.parse_args(arguments)
    mutants = [each for each in read_mutants() if not given.names or each.name in given.names]
    if unknown := set(given.names) - {mutant.name for mutant in mutants}:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    try:
        trials = try_all(SOURCE, mutants)
    except NotRunError as exc:
        print(f"the tests do not run on the code as it is:\n{exc}", file=sys.stderr)
        return 2
    print(table(trials))
    if given.json is not None:
        given.json.write_text(json.dumps(figures(trials), indent=2) + "\n")
    return exit_code(trials)


def try_all(source: pathlib.Path, mutants: Sequence[Mutant]) -> list[Trial]:
    """Try *mutants* of the tree *source*, which stays as it is, some at a time."""
    jobs = max(1, min(MOST_JOBS, os.cpu_count() or 1, len(mutants)))
    with tempfile.TemporaryDirectory(prefix="ltm-mutants-") as folder:
        trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for number in range(jobs):
            place = pathlib.Path(folder, str(number)).resolve()
            place.mkdir()
            trees.put(Tree(source, place))
        tests = sorted({mutant.test for mutant in mutants})
        tree = trees.get()
        if not tree.imports("ltm_async").is_relative_to(folder):
            raise RuntimeError("the tests would run on another package than the copied one")
        _say(f"{len(tests)} tests on the code as it is …")
        workers = jobs if len(tests) > FEW_TESTS else 0
        outcomes = dict(zip(tests, tree.run(tests, "-n", str(workers)), strict=True))
        trees.put(tree)

        def attempt(mutant: Mutant) -> Trial:
            outcome = outcomes[mutant.test]
            if outcome.kind != "passed":
                said = f"its test does not pass without it ({outcome.kind}): {outcome.message}"
                return Trial(mutant, Verdict.INVALID, said, 0.0)
            tree = trees.get()
            try:
                trial = tree.try_mutant(mutant)
            finally:
                trees.put(tree)
            _say(f"{trial.verdict.value:8} {trial.seconds:5.1f} s  {mutant.name}")
            return trial

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(attempt, mutants))


def table(trials: Sequence[Trial]) -> str:
    lines = []
    for trial in trials:
        mutant = trial.mutant
        head = f"{trial.verdict.value:8} {trial.seconds:5.1f} s  {mutant.breaks:4} {mutant.title}"
        lines += [head, f"{'':24}{mutant.test}"]
        if trial.said:
            width = SAID_WIDTH if trial.verdict is Verdict.KILLED else None
            lines.append(f"{'':24}{trial.said[:width]}")
    counted = figures(trials)
    lines.append(
        f"{counted['mutants']} mutants: {counted['killed']} killed, "
        f"{counted['survived']} survived, {counted['invalid']} invalid"
    )
    return "\n".join(lines)


def figures(trials: Sequence[Trial]) -> dict[str, object]:
    counts = {
        verdict.value: sum(trial.verdict is verdict for trial in trials) for verdict in Verdict
    }
    return {
        "mutants": len(trials),
        **counts,
        "trials": [
            {
                "name": trial.mutant.name,
                "title": trial.mutant.title,
                "breaks": trial.mutant.breaks,
                "test": trial.mutant.test,
                "verdict": trial.verdict.value,
                "seconds": round(trial.seconds, 1),
            }
            for trial in trials
        ],
    }


def exit_code(trials: Sequence[Trial]) -> int:
    verdicts = {trial.verdict for trial in trials}
    return 2 if Verdict.INVALID in verdicts else int(Verdict.SURVIVED in verdicts)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
