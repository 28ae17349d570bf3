"""A result of the benchmarks with every figure that the report shows, none of them measured."""

from __future__ import annotations

from collections.abc import Iterator

from bench import charts, sections
from bench.cold_start import COLD_START
from bench.figures import Figure
from bench.peers import PROMISES
from bench.results import Result
from bench.tables import BUCKETS, CATALOGS, PEER_ROWS

PHASES = {"interpreter": 15.0, "import ltm_async": 2.0, "open": 9.0, "first store": 3.0}
RATIO = 1.25


def made_up_result(*, value: float = RATIO, date: str = "2026-11-01") -> Result:
    around = {
        "date": f"{date}T12:00:00+00:00",
        "commit": "abc1234",
        "processor": "A processor",
        "architecture": "x86_64",
        "cores": 2,
        "system": "Linux 6.1",
        "load_before": 0.1,
        "took_s": 900,
        "versions": {"Python": "3.11.7", "PostgreSQL": "15.1"},
    }
    return Result(around, [*_figures(value)])


def _figures(value: float) -> Iterator[Figure]:
    for number, store in enumerate(CATALOGS):
        for what in [*sections.ENTRIES.values(), *sections.CALLER_ROWS.values()]:
            yield _ratio(store, what, "bare", value + number / 10)
        for what in sections.ADDED.values():
            unit = "ms" if "stall" in what else "×"
            yield Figure(store=store, what=what, value=value, unit=unit)
        for what in sections.CALLER_ROWS.values():
            yield Figure(store=store, what=f"{what}, calls a second", value=4321, unit="/s")
        for what in sections.TARGET_ROWS.values():
            if what.startswith("warm"):
                yield Figure(store=store, what=what, value=2.5, unit="ms", limit=10)
        yield Figure(store=store, what=sections.INIT[store], value=12, unit="ms", limit=100)
    for store in CATALOGS[:2]:
        for what in sections.FEED_ROWS.values():
            yield _ratio(store, what, f"bare {sections.WITHOUT_FEED}", value + 0.3)
        for size in sections.SIZES:
            for what in sections.GROWTH_ROWS:
                yield _ratio(store, f"{what} in {size} rows", "bare", value)
                yield _ratio(store, f"{what} in {size} rows", "the same in 10,000", 1.02)
    for store in CATALOGS[2:]:
        for what in sections.SMALL_ROWS:
            yield _ratio(store, what, "the same in 1,000", 1.04)
    for store in BUCKETS:
        for what in sections.BLOB_ROWS.values():
            yield _ratio(store, what, "bare", 1.08)
    for kind, peers in PROMISES.items():
        for what in PEER_ROWS:
            for number, name in enumerate(peers):
                yield _ratio(kind, what, name, 0.5 + number / 10)
    for store, title in charts.STARTS.items():
        for side in ("ours", "bare"):
            begin = f"{COLD_START}, {title}" if title else COLD_START
            for phase, spent_ms in PHASES.items():
                yield Figure(
                    store=store, what=f"{begin}, {side}: {phase}", value=spent_ms, unit="ms"
                )
    for store in sections.REST:
        yield Figure(store=store, what="something", value=value, unit="ms", limit=1.0)


def _ratio(store: str, what: str, over: str, value: float) -> Figure:
    return Figure(
        store=store,
        what=what,
        over=over,
        value=value,
        unit="×",
        low=value * 0.95,
        high=value * 1.05,
        limit=1.5,
        ours_ms=4.0 * value,
        theirs_ms=4.0,
        rounds=20,
    )
