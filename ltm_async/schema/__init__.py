"""The SQL of a catalog in PostgreSQL, for whoever installs it: the catalog itself, or a person."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ConfigError

VERSION = 4
"""Of tables and functions together; a catalog with a higher one is refused."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def check_schema(name: object) -> None:
    """Refuse what is no plain identifier: it becomes part of SQL, in double quotes."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            "schema must be 1 to 63 of a to z, 0 to 9 and _, and not begin with a digit"
        )


def postgres_script(schema: str) -> str:
    """What installs or updates the catalog in *schema*, sent as one query; reads a file."""
    return _filled("postgres.sql", schema, within="true")


def supabase_script(schema: str) -> str:
    """The same with the roles, grants and policies that Supabase needs; reads two files."""
    # A policy keeps the index of words from being asked first, so the namespace has to be.
    within = "namespace = in_namespace"
    return _filled("postgres.sql", schema, within) + _filled("supabase.sql", schema, within)


def _filled(name: str, schema: str, within: str) -> str:
    """*within* is a condition that finds the texts of one namespace, or true."""
    check_schema(schema)
    script = (Path(__file__).parent / name).read_text(encoding="utf-8")
    filled = {"@schema@": f'"{schema}"', "@version@": str(VERSION), "@within@": within}
    return re.sub("@[a-z]+@", lambda found: filled[found[0]], script)
