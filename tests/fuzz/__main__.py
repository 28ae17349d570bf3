"""``python -m tests.fuzz SECONDS [TARGET…]``: feed each target for so long and count."""

from __future__ import annotations

import json
import logging
import sys
import time

from . import targets  # noqa: F401  # fills TARGETS
from .running import TARGETS, limit_memory, run_for


def main(argv: list[str]) -> int:
    seconds = float(argv[0]) if argv else 30.0
    limit_memory()
    logging.disable()
    start = time.time_ns() % 2**32
    sys.stderr.write(f"seed {start}\n")
    counts: dict[str, int] = {}
    for name in argv[1:] or TARGETS:
        counts[name] = run_for(TARGETS[name], seconds, start=start)
        sys.stderr.write(f"{name:20} {counts[name]:>9,} executions, none failed\n")
    report = {"seed": start, "executions": counts, "total": sum(counts.values())}
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
