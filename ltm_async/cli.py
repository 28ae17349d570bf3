"""The command ``ltm``: how it starts and how it ends."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from .entry import one_line
from .errors import ConfigError, ConflictError, InvalidEntryError, LTMError, QueryError
from .exits import CONFLICT, INTERRUPTED, READER_GONE, STORE_FAILED, WRONG_USE


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ltm`` with *argv*, or the process's arguments, and return its exit code."""
    try:
        commands = _commands()
        if commands is None:
            return STORE_FAILED
        return _run(commands, sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return INTERRUPTED


def _commands() -> ModuleType | None:
    try:
        from . import commands
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in ("typer", "rich"):
            raise
        _say(f"ltm needs {exc.name}: pip install 'ltm-async[cli]'")
        return None
    return commands


def _run(commands: ModuleType, argv: Sequence[str]) -> int:
    logger = logging.getLogger(__package__)
    if not logger.handlers:  # what fails is told by the commands themselves
        logger.addHandler(logging.NullHandler())
    session = commands.Session()
    try:
        code = commands.invoke(session, argv)
        sys.stdout.flush()
    except commands.UsageError as exc:
        _say(f"ltm: {session.hide(exc.format_message())}\nTry: ltm --help")
        return WRONG_USE
    except BrokenPipeError:
        _discard_stdout()
        return READER_GONE
    except LTMError as exc:
        _say(f"ltm: {one_line(session.hide(str(exc)))}")
        return _code_of(exc)
    except OSError as exc:
        _discard_stdout()
        _say(f"ltm: {exc.strerror or type(exc).__name__}: {exc.filename or 'the output'}")
        return STORE_FAILED
    return int(code)


def _code_of(exc: LTMError) -> int:
    match exc:
        case ConflictError():
            return CONFLICT
        case ConfigError() | InvalidEntryError() | QueryError():
            return WRONG_USE
    return STORE_FAILED


def _discard_stdout() -> None:
    """Python flushes at its end what is left, and would complain again."""
    with contextlib.suppress(io.UnsupportedOperation):  # it may have been replaced
        stdout = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stdout)
        os.close(nowhere)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
