"""What is stored and read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

BATCHES = [(100, 500), (500, 500), (10_000, 500), (10_000, 10_000)]
"""Entries of a call, and how many of them make one transaction on all sides."""
ROUNDS = {1: 400, 100: 150, 500: 80, 10_000: 12}
BLOB_BYTES = 64 * 1024


def titled(verb: str, count: int, batch_size: int) -> str:
    return f"{verb} {count:,}" + (f" by {batch_size:,}" if count > 500 else "")


def keys(start: int, count: int) -> list[str]:
    """Keys that spread over the whole table, as those of many agents do."""
    return [f"agent:{n * 7919 % 1000:03}:note:{n:08}" for n in range(start, start + count)]


def document(key: str, turn: int) -> dict[str, Any]:
    """About 200 bytes of JSON; another *turn* gives another text, so no write is skipped."""
    return {
        "agent": key[6:9],
        "kind": "observation",
        "turn": turn,
        "confidence": 0.25 + turn % 64 / 128,
        "tags": ["orders", "returns", f"t{turn % 10}"],
        "text": f"In turn {turn} the customer of {key} asked for a refund, and prefers e-mail.",
    }


def entries(names: Sequence[str], turn: int) -> list[dict[str, Any]]:
    return [{"key": key, "value": document(key, turn)} for key in names]


def large_entries(names: Sequence[str], byte_size: int) -> list[dict[str, Any]]:
    """Values of *byte_size* bytes as JSON."""
    room = byte_size - len('{"page":""}')
    return [
        {"key": key, "value": {"page": os.urandom(room // 2 + 1).hex()[:room]}} for key in names
    ]
