"""Entries as JSON Lines: out of one memory and into another, exactly and in bounded memory.

The first line names the format, and each other one is an entry, in the order of the keys::

    {"format":"ltm-async-export","version":1}
    {"key":"user:7","value":{"likes":["tea"]},"metadata":{},"expires_at":null}

An expiry is an instant in UTC, such as ``"2026-01-31T12:00:00.000000Z"``. Nothing here knows of
namespaces: a file goes into the one of the backend that imports it.
"""

from .exporting import Chunk, export_entries
from .files import Channel, end_of_export
from .importing import Imported, import_entries
from .lines import MAX_LINE_BYTES, InvalidLineError, header, parse_json, to_iso
from .progress import load_progress, save_progress

__all__ = [
    "MAX_LINE_BYTES",
    "Channel",
    "Chunk",
    "Imported",
    "InvalidLineError",
    "end_of_export",
    "export_entries",
    "header",
    "import_entries",
    "load_progress",
    "parse_json",
    "save_progress",
    "to_iso",
]
