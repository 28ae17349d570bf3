"""What users would take instead, each in the form that its own documentation recommends for speed.

A peer is a :class:`bench.sides.Side` and says what its answer is worth.
"""

from __future__ import annotations

from typing import NamedTuple


class Promises(NamedTuple):
    """What a peer gives for its time, beside what the library gives."""

    package: str
    how: str
    """The form that is measured."""
    durable: str
    """Whether what it has answered outlives a loss of power."""
    batch: str
    """What a reader, or a process killed on the way, sees of one."""
    ttl: str


OURS = Promises(
    package="ltm-async",
    how="`store_batch`, `retrieve_batch`",
    durable="yes",
    batch="whole or not at all, blobs too",
    ttl="yes, removed by an indexed query",
)
