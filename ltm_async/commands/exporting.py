"""``ltm export``: all that can be read, as JSON Lines."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
from typing import Annotated, BinaryIO

import typer

from .. import exits, jsonl
from ..backend import LTMBackend
from ..errors import LTMError
from .output import channel, emit, left_out, progress, say, stdout
from .session import Session, UsageError


def export(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="- is stdout.")] = "-",
    prefix: Annotated[str, typer.Option(help="Only keys that start with it.")] = "",
    after: Annotated[str | None, typer.Option(help="Only keys above this one.")] = None,
    append: Annotated[
        bool,
        typer.Option("--append", help="Continue FILE after its last complete line."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> int:
    """Write entries as JSON Lines, in the order of keys, without those that are damaged."""
    if append and overwrite:
        raise UsageError("--append and --overwrite exclude each other")
    target = stdout() if file == "-" else _open_export(file, append=append, overwrite=overwrite)
    with contextlib.nullcontext() if file == "-" else target:
        begun, last = (append, None) if file == "-" or not append else _continue(target)
        done = Exported(last_key=after if after is not None else last)
        try:
            session.call(lambda ltm: _export(ltm, target, done, prefix, with_header=not begun))
        except (KeyboardInterrupt, LTMError):
            more = f"; continue with: ltm export {shlex.quote(file)} --append"
            say(f"exported {done.exported} entries so far{'' if file == '-' else more}")
            raise
        if file != "-":
            os.fsync(target.fileno())
    if file == "-":
        damage = f", left out {done.damaged} that are damaged" if done.damaged else ""
        say(f"exported {done.exported} entries{damage}")
    else:
        emit({"success": not done.damaged, **dataclasses.asdict(done)})
    return exits.STORE_FAILED if done.damaged else exits.DONE


@dataclasses.dataclass(slots=True, kw_only=True)
class Exported:
    """How far an export has come."""

    exported: int = 0
    damaged: int = 0
    """Left out, since they could not be read."""
    last_key: str | None = None


async def _export(
    ltm: LTMBackend, target: BinaryIO, done: Exported, prefix: str, *, with_header: bool
) -> None:
    def damaged(key: str, why: str) -> None:
        done.damaged += 1
        left_out(key, why)

    chunks = jsonl.export_entries(
        ltm,
        on_damaged=damaged,
        prefix=prefix,
        after=done.last_key,
        with_header=with_header,
    )
    total = (await ltm.stats()).entries if sys.stderr.isatty() else None
    with progress("exporting", total) as advance:
        # A disk takes what was begun, so that the file ends with a line; a pipe may not.
        async with channel(target, timeout_s=60.0 if target.seekable() else 1.0) as out:
            async for chunk in chunks:
                await out.write(chunk.data)
                done.exported += len(chunk.keys)
                done.last_key = chunk.keys[-1] if chunk.keys else done.last_key
                advance(len(chunk.keys))


def _open_export(file: str, *, append: bool, overwrite: bool) -> BinaryIO:
    """Readable by its owner only, as what it holds."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    flags |= 0 if append else os.O_TRUNC if overwrite else os.O_EXCL
    try:
        return open(os.open(file, flags, 0o600), "r+b", buffering=0)
    except FileExistsError:
        raise UsageError(
            "FILE is there already: --append continues it, --overwrite replaces it"
        ) from None
    except OSError as exc:
        raise UsageError(f"FILE cannot be written: {exc.strerror}") from None


def _continue(file: BinaryIO) -> tuple[bool, str | None]:
    """Cut off what follows the last complete line: is there a header, and which key is last?"""
    end, last = jsonl.end_of_export(file)
    file.truncate(end)
    file.seek(end)
    return end > 0, last
