"""Spans and counters through the OpenTelemetry SDK, and nothing without it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ltm_async import telemetry
from ltm_async.testing import Mode

from .backends import make_rig


class Seen:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def counts(self) -> dict[tuple[str, ...], int]:
        """By name and the values of the attributes."""
        data = self.reader.get_metrics_data()
        counts: dict[tuple[str, ...], int] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        labels = [str(value) for value in (point.attributes or {}).values()]
                        counts[metric.name, *labels] = int(getattr(point, "value", 0))
        return counts


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    seen = Seen()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(seen.exporter))
    metering = MeterProvider(metric_readers=[seen.reader])
    monkeypatch.setattr(trace, "get_tracer", tracing.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", metering.get_meter)
    telemetry._instruments.cache_clear()
    yield seen
    telemetry._instruments.cache_clear()
    metering.shutdown()
    tracing.shutdown()


async def test_every_public_call_is_a_span(seen: Seen, tmp_path: pathlib.Path) -> None:
    rig = make_rig("memory+memory", tmp_path)
    ltm = rig.ltm
    await ltm.store("key-canary", "value-canary")
    await ltm.retrieve("key-canary")
    await ltm.touch("key-canary")
    await ltm.update("key-canary", str)
    await ltm.delete("key-canary")
    await ltm.store_batch([])
    await ltm.retrieve_batch([])
    await ltm.delete_batch([])
    await ltm.list_entries()
    await ltm.cleanup_expired()
    await ltm.collect_garbage()
    await ltm.stats()
    await ltm.verify()
    names = [span.name for span in seen.spans]
    assert names == [
        "ltm.store", "ltm.retrieve", "ltm.touch", "ltm.update", "ltm.delete",
        "ltm.store_batch", "ltm.retrieve_batch", "ltm.delete_batch", "ltm.list_entries",
        "ltm.cleanup_expired", "ltm.collect_garbage", "ltm.stats", "ltm.verify",
    ]  # fmt: skip
    assert "canary" not in " ".join(span.to_json() for span in seen.spans)


async def test_calls_bytes_hits_and_misses_are_counted(seen: Seen, tmp_path: pathlib.Path) -> None:
    rig = make_rig("memory+memory", tmp_path)
    await rig.ltm.store("large", "x" * 4_998)
    await rig.ltm.retrieve("large")
    await rig.ltm.retrieve("absent")
    await rig.ltm.retrieve_batch(["large", "absent", "absent too"])
    assert seen.counts() == {
        ("ltm.catalog.calls",): 5,
        ("ltm.blob.calls",): 3,
        ("ltm.blob.bytes", "up"): 5_000,
        ("ltm.blob.bytes", "down"): 10_000,
        ("ltm.hits",): 2,
        ("ltm.misses",): 3,
    }


async def test_failures_are_marked_and_counted(seen: Seen, tmp_path: pathlib.Path) -> None:
    rig = make_rig("memory+memory", tmp_path, on_unavailable="degrade")
    rig.faults.at, rig.faults.mode = 0, Mode.DOWN
    await rig.ltm.retrieve("k")
    await rig.ltm.store_batch([{"key": "key-canary", "value": "value-canary"}])
    spans = seen.spans
    assert [dict(span.attributes or {}) for span in spans] == [
        {"error.type": "UnavailableError"}
    ] * 2
    assert all(not span.status.is_ok and not span.events for span in spans)
    assert "canary" not in " ".join(span.to_json() for span in spans)
    counts: Any = seen.counts()
    assert (counts["ltm.degraded",], counts["ltm.retries", "catalog"]) == (2, 6)


def test_without_the_package_nothing_is_loaded_and_everything_works() -> None:
    code = """
import asyncio, sys
sys.modules["opentelemetry"] = None
from ltm_async import LTMBackend
from ltm_async.telemetry import find
ltm = LTMBackend("memory:", "memory:")
assert asyncio.run(ltm.store("k", 1)).stored
assert find() is None
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_program_has_not_imported_is_not_imported_for_it() -> None:
    """Until it does, be it after the first call: it is found then."""
    code = """
import asyncio, sys
from ltm_async import LTMBackend
from ltm_async.telemetry import find
ltm = LTMBackend("memory:", "memory:")
assert asyncio.run(ltm.store("k", 1)).stored
assert find() is None and not [name for name in sys.modules if name.startswith("opentelemetry")]
import opentelemetry.trace
assert find() is not None
"""
    subprocess.run([sys.executable, "-c", code], check=True)
