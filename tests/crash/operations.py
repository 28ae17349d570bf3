"""All operations that are stopped: those of the backend, and the import of an export."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from ltm_async import LTMBackend
from ltm_async.jsonl import Imported, header, import_entries
from ltm_async.testing.crashing import BEFORE, OPERATIONS, Entry, Operation, large, small

_IMPORTED = {
    "large": Entry(BEFORE["large"].value, {"imported": 1}),
    "small": Entry(large("imported, over small"), {"imported": 2}),
    "new small": Entry(small("imported"), {"imported": 3}),
}


async def _lines() -> AsyncIterator[bytes]:
    yield header()
    for key, (value, metadata, _) in _IMPORTED.items():
        line: dict[str, Any] = {"key": key, "value": value, "metadata": metadata}
        yield json.dumps({**line, "expires_at": None}).encode() + b"\n"


async def _import(ltm: LTMBackend) -> Imported:
    return await import_entries(ltm, _lines())


ALL = (*OPERATIONS, Operation("import", _import, _IMPORTED))
BY_NAME = {operation.name: operation for operation in ALL}
