"""What goes out: JSON on stdout, words and progress on stderr; and what comes in."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..entry import one_line
from ..jsonl import Channel, to_iso
from ..results import Result


def say(text: str) -> None:
    sys.stderr.write(f"ltm: {one_line(text)}\n")


def left_out(key: str, why: str) -> None:
    """An entry is damaged, and the command goes on without it."""
    say(f"left out {key!r}: {why}")


def emit(result: object) -> None:
    sys.stdout.write(to_text(result) + "\n")


def to_text(result: object) -> str:
    """JSON in one line, as people read it where the terminal can show it and is not fooled."""
    text = json.dumps(_plain(result), ensure_ascii=False)
    if text.isprintable():
        with contextlib.suppress(UnicodeEncodeError):
            text.encode(sys.stdout.encoding or "utf-8")
            return text
    return json.dumps(_plain(result), ensure_ascii=True)


def _plain(result: object) -> object:
    if isinstance(result, Result):
        fields = result.to_dict()
        if result.exception is None:
            for name in ("degraded", "error", "error_type"):
                del fields[name]
        return _plain(fields)
    if isinstance(result, datetime):
        return to_iso(result)
    if isinstance(result, Mapping):
        return {name: _plain(value) for name, value in result.items()}
    if isinstance(result, (list, tuple)):
        return [_plain(item) for item in result]
    return result


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else nothing; moved by as much as is done."""
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda _count: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.asynccontextmanager
async def channel(file: BinaryIO, *, timeout_s: float = 1.0) -> AsyncIterator[Channel]:
    opened = Channel(file)
    try:
        yield opened
    finally:
        await opened.aclose(timeout_s=timeout_s)


def stdout() -> BinaryIO:
    """Without Python's buffer, whose lock a thread that is stuck in a write would keep."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return sys.stdout.buffer
    return open(descriptor, "wb", buffering=0, closefd=False)


def stdin() -> BinaryIO:
    try:
        descriptor = sys.stdin.fileno()
    except io.UnsupportedOperation:
        return sys.stdin.buffer
    return open(descriptor, "rb", closefd=False)
