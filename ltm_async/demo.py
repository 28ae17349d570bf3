"""``python -m ltm_async.demo``: the main job on real input, ending in a table.

It remembers what Python knows about itself: of every distribution installed in this environment
the metadata, the README, the licences and the list of files, and of the standard library the
licence and the source texts. It reads all of it back and compares, lets some notes expire, cleans
up, and proves that rows and blobs agree.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import csv
import dataclasses
import importlib.metadata
import platform
import re
import shutil
import sqlite3
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .backend import LTMBackend
from .catalogs.sqlite import SQLiteCatalog
from .clock import system_clock
from .errors import LTMError
from .results import (
    CleanupResult,
    EntryInfo,
    RetrieveBatchResult,
    StoreBatchResult,
    VerifyResult,
)

DATA = Path(".ltm-demo")
CATALOG, BLOBS = "demo.db", "demo-blobs"
NOTES = 40
NOTE_TTL_S = 0.5
TIMEOUT_S = 300.0
"""For each call; a slow disk syncs a file in some tens of milliseconds."""

_TEXTS = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*", re.IGNORECASE)
_CODE = frozenset({".py", ".pyc", ".pyi", ".so"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one kind of input came to."""

    name: str
    entries: int
    inlined: int
    byte_size: int
    largest: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did, as the library's own results say it."""

    path: Path
    sources: Sequence[Source]
    stored: StoreBatchResult
    retrieved: RetrieveBatchResult
    different: Sequence[str]
    """Keys whose value or metadata did not come back equal."""
    notes: StoreBatchResult
    notes_before: int
    """Found right after they were stored."""
    notes_after: int
    """Found after their TTL."""
    cleaned: CleanupResult
    verified: VerifyResult
    seconds: dict[str, float]
    """What each step took."""

    @property
    def sound(self) -> bool:
        """Everything came back equal, what expired is gone, rows and blobs agree."""
        return (
            self.stored.success
            and self.retrieved.found == self.stored.stored
            and not self.different
            and self.notes_after == 0
            and self.cleaned.success
            and self.verified.sound
        )

    @property
    def left_over(self) -> int:
        """Blobs that a run which was killed has left to the collector."""
        return self.verified.pending_blobs + self.verified.dead_blobs + self.verified.strays


async def run(
    path: Path,
    *,
    clock: Callable[[], int] = system_clock,
    wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Report:
    """Do the main job with a catalog and blobs in the folder *path*, made if need be."""
    entries = await asyncio.to_thread(_gather, path)
    notes = [_note(number) for number in range(NOTES)]
    note_keys = [note["key"] for note in notes]
    watch = Stopwatch()
    catalog = SQLiteCatalog(str(path / CATALOG), clock=clock)
    try:
        async with LTMBackend(
            catalog, path / BLOBS, on_unavailable="raise", timeout=TIMEOUT_S
        ) as ltm:
            watch.lap("open")
            stored = await ltm.store_batch(entries)
            watch.lap("store")
            retrieved = await ltm.retrieve_batch([entry["key"] for entry in entries])
            different = [entry["key"] for entry in entries if not _equal(entry, retrieved)]
            watch.lap("retrieve")
            kept_notes = await ltm.store_batch(notes)
            before = await ltm.retrieve_batch(note_keys)
            await wait(NOTE_TTL_S * 1.1)
            after = await ltm.retrieve_batch(note_keys)
            watch.lap("expire")
            cleaned = await ltm.cleanup_expired(limit=10_000)
            watch.lap("clean up")
            verified = await ltm.verify()
            watch.lap("verify")
            return Report(
                path=path,
                sources=await _sources(ltm, {entry["key"] for entry in entries}),
                stored=stored.raise_for_error(),
                retrieved=retrieved.raise_for_error(),
                different=different,
                notes=kept_notes.raise_for_error(),
                notes_before=before.raise_for_error().found,
                notes_after=after.raise_for_error().found,
                cleaned=cleaned,
                verified=verified,
                seconds=watch.laps,
            )
    finally:
        await catalog.aclose()


class Stopwatch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._since
        self._since = now


# The input


def _gather(path: Path) -> list[dict[str, Any]]:
    path.mkdir(parents=True, exist_ok=True)
    entries = [*_packages(), *_standard_library()]
    return list({entry["key"]: entry for entry in reversed(entries)}.values())


def _packages() -> Iterator[dict[str, Any]]:
    """The texts of each distribution; an import takes the first of a name, and so do we."""
    for dist in importlib.metadata.distributions():
        fields = dict(dist.metadata.json)
        if "name" not in fields:
            continue  # what an interrupted installation left
        about = {"package": str(fields["name"]), "version": dist.version}
        description = fields.pop("description", None)
        yield _entry("package metadata", about, fields)
        if description:
            yield _entry("package READMEs", about, description)
        if record := dist.read_text("RECORD"):
            yield _entry("package file lists", about, list(csv.reader(record.splitlines())))
        for file in dist.files or ():
            text = Path(str(file.locate()))
            if _TEXTS.fullmatch(file.name) and file.suffix not in _CODE and text.is_file():
                yield _entry("package licences", about, _read(text), f"/{file}")


def _standard_library() -> Iterator[dict[str, Any]]:
    folder = Path(sysconfig.get_path("stdlib"))
    about = {"package": "python", "version": platform.python_version()}
    for file in sorted(folder.glob("LICENSE*")):
        yield _entry("Python's licence", about, _read(file), f"/{file.name}")
    for file in sorted(folder.glob("*.py")):
        yield _entry("Python's modules", about, _read(file), f"/{file.name}")


def _entry(kind: str, about: dict[str, str], value: object, part: str = "") -> dict[str, Any]:
    key = f"{kind}: {about['package']} {about['version']}{part}"
    return {"key": key, "value": value, "metadata": {"kind": kind, **about}}


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _note(number: int) -> dict[str, Any]:
    """Every fourth is large enough to be a blob."""
    text = f"note {number} " * (300 if number % 4 == 0 else 3)
    return {"key": f"note: {number}", "value": {"text": text}, "ttl": NOTE_TTL_S}


def _equal(entry: dict[str, Any], retrieved: RetrieveBatchResult) -> bool:
    found = retrieved.results.get(entry["key"])
    return (
        found is not None and found.value == entry["value"] and found.metadata == entry["metadata"]
    )


async def _sources(ltm: LTMBackend, keys: set[str]) -> list[Source]:
    """The entries of this run by kind, as the catalog lists them."""
    kinds: dict[str, list[EntryInfo]] = collections.defaultdict(list)
    cursor = None
    while True:
        page = await ltm.list_entries(cursor=cursor, limit=1000)
        for entry in page.entries:
            if entry.key in keys:
                kinds[str(entry.metadata["kind"])].append(entry)
        if (cursor := page.cursor) is None:
            break
    return [
        Source(
            name=kind,
            entries=len(entries),
            inlined=sum(entry.inlined for entry in entries),
            byte_size=sum(entry.byte_size for entry in entries),
            largest=max(entry.byte_size for entry in entries),
        )
        for kind, entries in sorted(kinds.items())
    ]


# The table


def table(report: Report) -> str:
    """*report* for people, 76 columns wide."""
    stored, verified, seconds = report.stored, report.verified, report.seconds
    inputs = [
        ("What was remembered", "entries", "inlined", "as blobs", "bytes", "largest"),
        *(_source_row(source) for source in report.sources),
        None,
        _source_row(_total(report.sources)),
    ]
    steps: list[tuple[str, str, str] | None] = [
        ("What was done", "count", "seconds"),
        ("catalog and blob store opened", "", _s(seconds["open"])),
        ("stored, and acknowledged as durable", f"{stored.stored:,}", _s(seconds["store"])),
        ("    kept in their rows", f"{stored.inlined:,}", ""),
        ("    uploaded as blobs", f"{stored.uploaded:,}", ""),
        ("    deduplicated: the content was there", f"{stored.deduplicated:,}", ""),
        ("read back", f"{report.retrieved.found:,}", _s(seconds["retrieve"])),
        ("    not equal to what was stored", f"{len(report.different):,}", ""),
        (f"notes stored for {NOTE_TTL_S} s", f"{report.notes.stored:,}", _s(seconds["expire"])),
        ("    found at once", f"{report.notes_before:,}", ""),
        ("    found after that time", f"{report.notes_after:,}", ""),
        ("expired entries cleaned up", f"{report.cleaned.deleted:,}", _s(seconds["clean up"])),
        ("    blobs deleted with them", f"{report.cleaned.blobs_deleted:,}", ""),
        ("verified: entries read and hashed", f"{verified.entries:,}", _s(seconds["verify"])),
        ("    blobs among them", f"{verified.blobs:,}", ""),
        ("    disagreements of rows and blobs", f"{len(verified.problems):,}", ""),
        ("    left by a killed run, for a later collection", f"{report.left_over:,}", ""),
    ]
    title = (
        f"ltm_async on {platform.python_implementation()} {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, data in {report.path}"
    )
    return "\n".join(
        [
            title,
            "",
            *_lines(inputs, (26, 9, 9, 9, 12, 11)),
            "",
            *_lines(steps, (50, 13, 13)),
            "",
            _verdict(report),
        ]
    )


def _verdict(report: Report) -> str:
    if not report.sound:
        problems = [f"not equal: {key}" for key in report.different]
        problems += [f"{key}: {why}" for key, why in report.verified.problems.items()]
        return "\n".join(["NOT SOUND: rows, blobs and what was stored do not agree.", *problems])
    said = "Sound: everything came back equal, and rows and blobs agree."
    if report.stored.deduplicated == 0:
        return f"{said}\nRun it again: the content is there, so nothing will be uploaded."
    return f"{said}\n{report.stored.deduplicated:,} of {report.stored.stored:,} were there already."


def _source_row(source: Source) -> tuple[str, ...]:
    blobs = source.entries - source.inlined
    numbers = (source.entries, source.inlined, blobs, source.byte_size, source.largest)
    return (source.name, *(f"{number:,}" for number in numbers))


def _total(sources: Sequence[Source]) -> Source:
    return Source(
        name="in all",
        entries=sum(source.entries for source in sources),
        inlined=sum(source.inlined for source in sources),
        byte_size=sum(source.byte_size for source in sources),
        largest=max((source.largest for source in sources), default=0),
    )


def _lines(rows: Sequence[tuple[str, ...] | None], widths: Sequence[int]) -> Iterator[str]:
    """The first row is the heading, None a rule; the first column is text, the others figures."""
    rule = "─" * sum(widths)
    for number, row in enumerate(rows):
        if row is None:
            yield rule
            continue
        name, *figures = row
        cells = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True)]
        yield f"{name:<{widths[0]}}{''.join(cells)}".rstrip()
        if number == 0:
            yield rule


def _s(seconds: float) -> str:
    return f"{seconds:.2f}"


# The command


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 sound, 1 not sound or not done."""
    parser = argparse.ArgumentParser(prog="python -m ltm_async.demo", description=_about())
    parser.add_argument("--path", type=Path, default=DATA, help="folder of the data (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs first")
    args = parser.parse_args(argv)
    try:
        if args.fresh:
            forget(args.path)
        report = asyncio.run(run(args.path))
    except (LTMError, OSError) as exc:
        print(f"ltm_async.demo: {exc}", file=sys.stderr)
        return 1
    encoding = sys.stdout.encoding or "utf-8"  # a terminal may know no box-drawing characters
    print(table(report).encode(encoding, "replace").decode(encoding))
    return 0 if report.sound else 1


def _about() -> str:
    return (__doc__ or "").partition("\n\n")[2]


def forget(path: Path) -> None:
    """Delete what runs left in *path*, and nothing else."""
    for name in (CATALOG, f"{CATALOG}-wal", f"{CATALOG}-shm"):
        (path / name).unlink(missing_ok=True)
    if (path / BLOBS).exists():
        shutil.rmtree(path / BLOBS)


if __name__ == "__main__":
    raise SystemExit(main())
