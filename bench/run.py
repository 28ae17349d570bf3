"""``python -m bench.run``: run the benchmarks, print what is over its budget, keep all as JSON.

Arguments go to pytest (``-k import``). The figures of every run are in ``.benchmarks/last.json``;
those of a run of everything, in which nothing failed, are kept in ``bench/results`` besides.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import circumstances, results
from bench.figures import Figure
from bench.tables import every_figure

HERE = Path(__file__).parent


def run(arguments: list[str]) -> tuple[list[Figure], int]:
    """The figures, and pytest's exit code; of what failed there are none."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "benchmark.json")
        command = [sys.executable, "-m", "pytest", str(HERE), "-q", "--benchmark-enable"]
        command += [f"--benchmark-json={found}", "--benchmark-columns=rounds"]
        command += ["-p", "no:xdist", "--durations=10", *arguments]
        done = subprocess.run(command, cwd=HERE.parent, check=False, stdout=sys.stderr)
        if not found.exists() or not found.read_text():
            return [], done.returncode or 1
        benchmarks = json.loads(found.read_text())["benchmarks"]
    figures = [
        Figure(**line) for one in benchmarks for line in one["extra_info"].get("figures", [])
    ]
    return figures, done.returncode


def main(arguments: list[str]) -> int:
    before, began = circumstances.now(), time.monotonic()
    figures, code = run(arguments)
    result = results.Result({**before, "took_s": round(time.monotonic() - began)}, figures)
    print(every_figure(figures))
    print("\n" + result.told())
    results.write(result, results.LAST)
    if not arguments and code == 0:
        target = results.HOME / result.file_name()
        results.write(result, target)
        print(f"kept as {target.relative_to(HERE.parent)}; make bench-report puts it into README")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
