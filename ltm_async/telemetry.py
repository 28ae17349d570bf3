"""OpenTelemetry spans and counters, where the program has imported its API package.

Spans are named ``ltm.<method>`` and carry the outcome, never a key or a value. Counters:
``ltm.catalog.calls``, ``ltm.blob.calls``, ``ltm.blob.bytes`` (with ``direction`` up or down),
``ltm.hits``, ``ltm.misses``, ``ltm.degraded`` and ``ltm.retries`` (with ``store``).
"""

from __future__ import annotations

import functools
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .errors import OutcomeUnknownError, StoreError, UnavailableError

_NO_SPAN = nullcontext()


class Telemetry:
    """The instruments; made once in a process, by :func:`find`."""

    def __init__(self, trace: Any, metrics: Any) -> None:
        self._trace = trace
        self._tracer = trace.get_tracer("ltm_async")
        meter = metrics.get_meter("ltm_async")
        self._catalog_calls = meter.create_counter("ltm.catalog.calls")
        self._blob_calls = meter.create_counter("ltm.blob.calls")
        self._blob_bytes = meter.create_counter("ltm.blob.bytes", unit="By")
        self._hits = meter.create_counter("ltm.hits")
        self._misses = meter.create_counter("ltm.misses")
        self._degraded = meter.create_counter("ltm.degraded")
        self._retries = meter.create_counter("ltm.retries")

    def span(self, method: str) -> AbstractContextManager[Any]:
        return self._tracer.start_as_current_span(  # type: ignore[no-any-return]
            f"ltm.{method}", record_exception=False, set_status_on_exception=False
        )

    def failed(self, error_type: str, *, degraded: bool) -> None:
        """Mark the current span; messages stay out of it."""
        span = self._trace.get_current_span()
        span.set_attribute("error.type", error_type)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))
        if degraded:
            self._degraded.add(1)

    def called(self, store: str) -> None:
        (self._catalog_calls if store == "catalog" else self._blob_calls).add(1)

    def retried(self, store: str) -> None:
        self._retries.add(1, {"store": store})

    def looked_up(self, *, found: int, missing: int) -> None:
        if found:
            self._hits.add(found)
        if missing:
            self._misses.add(missing)

    def transferred(self, direction: str, byte_size: int) -> None:
        self._blob_bytes.add(byte_size, {"direction": direction})


def span(method: str) -> AbstractContextManager[Any]:
    """A span for one public call, or nothing."""
    found = find()
    return _NO_SPAN if found is None else found.span(method)


def failed(exc: StoreError) -> None:
    """A public call met *exc*."""
    found = find()
    if found is not None:
        found.failed(
            type(exc).__name__, degraded=isinstance(exc, (UnavailableError, OutcomeUnknownError))
        )


def called(store: str) -> None:
    """A request to *store*, ``"catalog"`` or ``"blob store"``."""
    found = find()
    if found is not None:
        found.called(store)


def retried(store: str) -> None:
    """The last request to *store* is made again."""
    found = find()
    if found is not None:
        found.retried(store)


def looked_up(*, found: int, missing: int) -> None:
    """So many keys had an entry, and so many had none."""
    instruments = find()
    if instruments is not None:
        instruments.looked_up(found=found, missing=missing)


def transferred(direction: str, byte_size: int) -> None:
    """A blob went ``"up"`` or ``"down"``."""
    found = find()
    if found is not None:
        found.transferred(direction, byte_size)


def find() -> Telemetry | None:
    """The instruments, or None as long as nobody has imported OpenTelemetry's API.

    Who has not imported it has not configured it, and it takes longer to import than a catalog
    to open.
    """
    return _instruments() if sys.modules.get("opentelemetry.trace") is not None else None


@functools.cache
def _instruments() -> Telemetry | None:
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        return None
    return Telemetry(trace, metrics)
