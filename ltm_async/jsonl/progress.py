"""How far an import has come, kept in a file."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InvalidEntryError
from .importing import Imported
from .lines import line_of, parse_json

_STATE = "ltm-async-import"


def save_progress(path: Path, done: Imported) -> None:
    """Keep in a file how far an import has come; whole or not at all."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    fields = {"format": _STATE, "version": 1, "lines": done.lines, "fingerprint": done.fingerprint}
    aside.write_bytes(line_of(fields))
    aside.replace(path)


def load_progress(path: Path) -> tuple[int, str]:
    """The lines and fingerprint of :func:`save_progress`; 0 and none if there is no file.

    Raises:
        InvalidEntryError: The file is something else.
    """
    try:
        fields = parse_json(path.read_bytes())
    except FileNotFoundError:
        return 0, ""
    except InvalidEntryError:
        fields = None
    match fields:
        case {
            "format": "ltm-async-import",
            "version": 1,
            "lines": int(lines),
            "fingerprint": str(p),
        }:
            return lines, p
    raise InvalidEntryError("the file with the state is not one that an import has written")
