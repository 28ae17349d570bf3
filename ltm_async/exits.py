"""The exit codes of ``ltm``."""

from __future__ import annotations

DONE = 0
NOT_FOUND = 1
"""Or what was looked for are problems, and some were found."""
WRONG_USE = 2
STORE_FAILED = 3
"""Or an entry is damaged."""
CONFLICT = 4
INTERRUPTED = 130
READER_GONE = 141
