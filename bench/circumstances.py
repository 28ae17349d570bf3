"""What figures depend on besides the code: machine, versions, how busy it was."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers import azurite, ministack, postgres, postgrest

HERE = Path(__file__).parent
PACKAGES = (
    "asyncpg",
    "httpx2",
    "google-cloud-firestore",
    "aiobotocore",
    "gcloud-aio-storage",
    "obstore",
    "duckdb",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "py-key-value-aio",
    "diskcache",
    "cashews",
)


def now() -> dict[str, Any]:
    """No names of hosts, no paths."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "-s") else ""),
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            **_servers(),
            **_packages(),
        },
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _servers() -> dict[str, str]:
    """Those that the benchmarks start, as far as they are here."""
    found = {}
    folder = postgres.programs()
    if folder is not None:
        found["PostgreSQL"] = _version_said([folder / "postgres", "--version"])
    program = postgrest.program()
    if program is not None:
        found["PostgREST"] = _version_said([program, "--version"])
    if azurite.PACKAGE.exists():
        package = json.loads((azurite.PACKAGE / "package.json").read_text())
        found["Azurite"] = package["version"]
    for info in ministack.ENVIRONMENT.glob("lib/python*/site-packages/ministack-*.dist-info"):
        found["MiniStack"] = info.name.removesuffix(".dist-info").partition("-")[2]
    if shutil.which("java"):
        found["Java"] = _version_said(["java", "--version"])
    return found


def _version_said(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    version = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return version[0] if version else "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=HERE,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
