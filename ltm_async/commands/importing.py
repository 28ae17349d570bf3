"""``ltm import``: an export into a memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from .. import exits, jsonl
from ..backend import LTMBackend
from ..errors import LTMError
from .output import channel, emit, progress, say, stdin
from .session import Session, UsageError


def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="- is stdin.")] = "-",
    skip: Annotated[int, typer.Option(min=0, help="Pass over so many lines of the file.")] = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="Keep in this file how far it came, and go on from there."),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Report lines that are bad, and go on.")
    ] = False,
) -> int:
    """Store the entries of an export, but the expired."""
    if skip and resume is not None:
        raise UsageError("--skip and --resume exclude each other")
    skip, fingerprint = (skip, "") if resume is None else jsonl.load_progress(resume)
    done = jsonl.Imported(lines=skip)

    async def work(ltm: LTMBackend) -> None:
        with progress("importing") as advance:

            async def passed(now: jsonl.Imported) -> None:
                nonlocal done
                advance(now.lines - done.lines)
                done = dataclasses.replace(now)
                if resume is not None:
                    await asyncio.to_thread(jsonl.save_progress, resume, done)

            async with channel(source) as lines:
                await jsonl.import_entries(
                    ltm,
                    lines.lines(),
                    skip=skip,
                    fingerprint=fingerprint,
                    on_invalid=(lambda exc: say(str(exc))) if keep_going else None,
                    on_progress=passed,
                )

    with _source(file) as source:
        try:
            session.call(work)
        except (KeyboardInterrupt, LTMError):
            say(f"imported {done.imported} entries; continue with --skip {done.lines}")
            raise
    if resume is not None:
        resume.unlink(missing_ok=True)
    counts = dataclasses.asdict(done)
    del counts["fingerprint"]
    emit({"success": not done.invalid, **counts})
    return exits.WRONG_USE if done.invalid else exits.DONE


@contextlib.contextmanager
def _source(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield stdin()
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115  # closed below; only this may fail
    except OSError as exc:
        raise UsageError(f"FILE cannot be read: {exc.strerror}") from None
    with opened:
        yield opened
