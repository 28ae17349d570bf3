"""``python -m bench.run``: run the benchmarks, print what is over its budget, keep all as JSON.

Arguments go to pytest (``-k import``). What has been measured is in ``.benchmarks/last.json`` after
each benchmark, so also after a run that was interrupted; the result of a run of everything is kept
in ``bench/results`` besides, with the names of those that failed.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

import pytest

from bench import circumstances, results
from bench.collecting import Collector
from bench.tables import every_figure

HERE = Path(__file__).parent
OPTIONS = ["-q", "--benchmark-enable", "--benchmark-columns=rounds", "-p", "no:xdist"]
OPTIONS += ["--durations=40"]
AT_THE_END = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def main(arguments: list[str]) -> int:
    before, began = circumstances.now(), time.monotonic()

    def so_far() -> results.Result:
        around = {**before, "took_s": round(time.monotonic() - began)}
        return results.Result(around, collector.figures, collector.missing)

    collector = Collector(lambda: results.write(so_far(), results.LAST))
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, signal.default_int_handler)  # the first is ignored behind an &
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([str(HERE), *OPTIONS, *arguments], [collector])
    result = so_far()
    results.write(result, results.LAST)
    print(every_figure(result.figures))
    print("\n" + "\n\n".join(part for part in (result.told(), result.told_missing()) if part))
    if not arguments and code in AT_THE_END:
        target = results.HOME / result.file_name()
        results.write(result, target)
        print(f"kept as {target.relative_to(HERE.parent)}; make bench-report puts it into README")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
