"""The catalog in one SQLite file."""

from .catalog import SQLiteCatalog

__all__ = ["SQLiteCatalog"]
