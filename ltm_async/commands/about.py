"""What is about the memory itself: its schema, its health, a demonstration."""

from __future__ import annotations

import asyncio
import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import doctor as doctors
from .. import exits
from .output import emit, say
from .session import Session


class Schema(enum.StrEnum):
    SQLITE = "sqlite"
    POSTGRES = "postgres"
    FIRESTORE = "firestore"
    SUPABASE = "supabase"


def schema(
    session: Session,  # noqa: ARG001  # as every command has it
    catalog_type: Annotated[
        Schema, typer.Argument(metavar="sqlite|postgres|supabase|firestore", show_default=False)
    ],
    in_schema: Annotated[
        str,
        typer.Option("--schema", help="PostgreSQL, Supabase: where the tables and functions go."),
    ] = "public",
    collection_prefix: Annotated[
        str, typer.Option(help="Firestore: what its collections begin with.")
    ] = "",
    dimensions: Annotated[
        int | None,
        typer.Option(min=1, max=2048, help="Firestore: with the index for vectors of this length."),
    ] = None,
) -> int:
    """Print the SQL that makes a catalog, or the indexes that Firestore need not keep."""
    match catalog_type:
        case Schema.SQLITE:
            from ..catalogs.sqlite.database import MIGRATIONS

            statements = "\n".join(script.strip() for script in MIGRATIONS)
            sys.stdout.write(f"{statements}\nPRAGMA user_version = {len(MIGRATIONS)};\n")
        case Schema.POSTGRES:
            from ..schema import postgres_script

            sys.stdout.write(f"BEGIN;\n{postgres_script(in_schema)}COMMIT;\n")
        case Schema.SUPABASE:
            from ..schema import supabase_script

            sys.stdout.write(f"BEGIN;\n{supabase_script(in_schema)}COMMIT;\n")
        case Schema.FIRESTORE:
            from ..catalogs.firestore.indexes import indexes
            from ..catalogs.firestore.options import check_options

            check_options(collection_prefix=collection_prefix)
            sys.stdout.write(f"{indexes(collection_prefix, dimensions=dimensions)}\n")
    return exits.DONE


def doctor(session: Session) -> int:
    """Check what can go wrong, and say what to do."""

    async def checks() -> bool:
        sound = True
        async for check in doctors.examine(
            session.catalog,
            session.storage,
            namespace=session.namespace or "",
            timeout=session.timeout,
        ):
            emit(check._asdict())
            sys.stdout.flush()
            sound = sound and check.ok
        return sound

    if asyncio.run(checks()):
        return exits.DONE
    say("not all is well: see what is not ok, and its advice")
    return exits.NOT_FOUND


def demo(
    session: Session,  # noqa: ARG001  # as every command has it
    path: Annotated[Path | None, typer.Option(help="The folder of the data.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier runs first.")] = False,
) -> int:
    """Remember real texts, read them back, prove it."""
    from .. import demo as demonstration

    argv = [] if path is None else ["--path", str(path)]
    return demonstration.main([*argv, "--fresh"] if fresh else argv)
