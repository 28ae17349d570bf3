"""DuckDB's extensions, from a folder or an installed wheel of this machine: never a download.

An extension is a binary for one version of DuckDB, signed by its makers, which DuckDB checks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..entry import shown
from ..errors import ConfigError

if TYPE_CHECKING:
    import duckdb

FTS = "fts"


def check_extensions(given: object) -> tuple[str, ...]:
    """The names in *given*, refused unless they do something here."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ConfigError("extensions must be a list of names, such as ['fts']")
    for name in given:
        if name == "httpfs":
            raise ConfigError(
                "extensions has httpfs, which could do nothing here: SQL reaches no network, and"
                " export_parquet and import_parquet take storage URIs without it"
            )
        if name != FTS:
            raise ConfigError(f"extensions has {shown(name)}, it can have 'fts'")
    return tuple(dict.fromkeys(given))


def load_extensions(
    connection: duckdb.DuckDBPyConnection, names: Sequence[str], directory: str | None
) -> None:
    """Load *names* into the database of *connection*, whose settings are not locked yet.

    Raises:
        ConfigError: One is not there, or is not made for this DuckDB.
    """
    import duckdb

    for name in names:
        version = f"v{duckdb.__version__}"
        (platform,) = connection.execute("PRAGMA platform").fetchone() or ("",)
        file = _find(name, version, platform, directory)
        quoted = str(file).replace("'", "''")
        try:
            connection.execute(f"LOAD '{quoted}'")
        except duckdb.Error as exc:
            raise ConfigError(
                f"DuckDB {version} refuses its extension {name}, which may be damaged or of"
                " another version"
            ) from exc


def _find(name: str, version: str, platform: str, directory: str | None) -> Path:
    file = f"{name}.duckdb_extension"
    if directory is not None:
        found = Path(directory, version, platform, file)
        if not found.is_file():
            raise ConfigError(
                f"extension_directory has no {version}/{platform}/{file}, which is where INSTALL"
                f" of DuckDB {version} puts it"
            )
        return found
    wheel = f"duckdb_extension_{name}"
    spec = importlib.util.find_spec(wheel)
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = Path(root, "extensions", version, file)
        if found.is_file():
            return found
    package = wheel.replace("_", "-")
    raise ConfigError(
        f"extensions has {name}, of which there is none for DuckDB {version}: name a folder with it"
        f" as extension_directory, or install {package}=={version[1:]} if there is such a version"
    )
