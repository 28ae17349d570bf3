"""The programs of a PostgreSQL that has pgvector: Debian's, or those of a wheel."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from .ministack import ENVIRONMENT
from .need import missing
from .postgres import programs
from .process import new_folder

SHARED = pathlib.Path("/usr/share/postgresql")


@contextlib.contextmanager
def pgvector_programs() -> Iterator[pathlib.Path]:
    """The folder with them, which lasts as long as this context."""
    own = programs()
    if own is not None and (SHARED / own.parent.name / "extension/vector.control").exists():
        yield own
        return
    wheel = next(ENVIRONMENT.glob("lib/python*/site-packages/pgserver/pginstall"), None)
    if wheel is None:
        missing("pgvector", "make servers")
    copy = new_folder("pgvector")  # for the server's user, to whom the tree may be closed
    try:
        copy.chmod(0o755)
        shutil.copytree(wheel, copy / "pgserver/pginstall")
        shutil.copytree(wheel.parents[1] / "pgserver.libs", copy / "pgserver.libs")
        yield copy / "pgserver/pginstall/bin"
    finally:
        shutil.rmtree(copy)
