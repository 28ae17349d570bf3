"""``python -m bench.report``: run the benchmarks, print a table, keep it as JSON.

The table says which budget a figure is over; arguments go to pytest (``-k import``).
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.workloads import Figure
from tests.servers import postgres

HERE = Path(__file__).parent


def run(arguments: list[str]) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "benchmark.json")
        command = [sys.executable, "-m", "pytest", str(HERE), "-q", "--benchmark-enable"]
        command += [f"--benchmark-json={found}", "--benchmark-columns=rounds", *arguments]
        subprocess.run(command, cwd=HERE.parent, check=True, stdout=sys.stderr)
        benchmarks = json.loads(found.read_text())["benchmarks"]
    return [Figure(**line) for one in benchmarks for line in one["extra_info"]["figures"]]


def circumstances() -> dict[str, Any]:
    load = os.getloadavg()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "-s") else ""),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": _server_version(),
        "asyncpg": importlib.metadata.version("asyncpg"),
        "load_before": round(load, 2),
    }


def table(figures: list[Figure]) -> str:
    lines = ["| what | median | quartiles | at most | ours / the other |", "|---|--:|---|--:|---|"]
    for figure in figures:
        over = figure.limit is not None and figure.value > figure.limit
        value = _plain(figure.value, figure.unit)
        spread = "" if figure.low is None else f"{figure.low:.3g} to {figure.high:.3g}"
        limit = "" if figure.limit is None else _plain(figure.limit, figure.unit)
        lines.append(
            f"| {figure.what} | {f'**{value}**' if over else value} | {spread} "
            f"| {limit}{' **over**' if over else ''} | {figure.detail} |"
        )
    return "\n".join(lines)


def _plain(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=HERE,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip()


def _server_version() -> str:
    """Of the server that the benchmarks start."""
    folder = postgres.programs()
    if folder is None:
        return "not here"
    said = subprocess.run([folder / "postgres", "--version"], check=True, stdout=subprocess.PIPE)
    return said.stdout.split()[2].decode()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    before = circumstances()
    figures = run(sys.argv[1:])
    print(", ".join(f"{name} {value}" for name, value in before.items()), end="\n\n")
    print(table(figures))
    target = HERE / "results" / f"{before['date'][:10]}-{before['commit'].rstrip('+')}.json"
    target.parent.mkdir(exist_ok=True)
    lines = [dataclasses.asdict(figure) for figure in figures]
    target.write_text(json.dumps({**before, "figures": lines}, indent=1, ensure_ascii=False) + "\n")
