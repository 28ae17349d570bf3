"""The catalog in a PostgreSQL database."""

from .catalog import PostgresCatalog

__all__ = ["PostgresCatalog"]
