"""The commands of ``ltm``, in Typer and Rich; see :mod:`ltm_async.cli` for how it ends."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from . import about, entries, exporting, housekeeping, importing
from .making import make_app
from .session import Session, UsageError

__all__ = ["Session", "UsageError", "invoke"]

_APP = make_app(
    {
        "store": entries.store,
        "get": entries.get,
        "delete": entries.delete,
        "list": entries.list_,
        "search": entries.search,
        "stats": entries.stats,
        "cleanup": housekeeping.cleanup,
        "gc": housekeeping.gc,
        "verify": housekeeping.verify,
        "export": exporting.export,
        "import": importing.import_,
        "schema": about.schema,
        "doctor": about.doctor,
        "demo": about.demo,
    }
)


def invoke(session: Session, argv: Sequence[str]) -> int:
    """Do what *argv* says and return the exit code.

    Typer's own ``main`` is passed by: it turns some exceptions into exit codes of its own.
    """
    command = typer.main.get_command(_APP)
    try:
        with command.make_context("ltm", list(argv), obj=session) as ctx:
            return int(command.invoke(ctx) or 0)
    except typer.Exit as exc:
        return exc.exit_code
