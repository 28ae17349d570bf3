"""What README says of a result."""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import Figure
from bench.peers import OURS, PROMISES, all_names
from bench.results import Result
from bench.tables import (
    BUCKETS,
    CATALOGS,
    PEER_ROWS,
    Found,
    crossed,
    over_budget,
    ratio_cell,
    short,
    table,
    times_cell,
    value_cell,
)

HOW_IT_IS_READ = """\
Each figure is the median of rounds in which both sides do the same work, one right after the other,
with its quartiles; bold is over its budget. The servers are on the same machine and take part of
its cores. Firestore is Google's emulator, which takes a millisecond for each entry: there a batch
of 10,000, which is twenty commits of 500, and tables of many rows are left out. Supabase's tables
stay small, too: it runs the functions of PostgreSQL."""
TARGETS = """\
The targets: opening a catalog takes 5 ms on SQLite, 50 ms on PostgreSQL, 100 ms on Supabase and
Firestore, and 10 ms where a process has one open; a batch of 100 is stored in 500 ms and read in
200 ms, one of blobs in 2 s and 1 s; the import takes 10 ms (it does {}), opening the query engine
50 ms ({})."""
RATIOS = """\
Time over that of the bare driver, which does the same work into a table with the same columns and
indexes and the same durability: `sqlite3` that blocks the loop, asyncpg on a connection it holds,
one httpx2 call, Google's AsyncClient. The budget is 1.5:"""
FEED = """\
The same over a bare table without the index that the change feed needs, which shows its price:"""
BLOBS = """\
Blobs of 64 KiB with a catalog in SQLite, 50 at once, over the bare driver with as many, which
verifies nothing. The budget is 1.15:"""
GROWTH = """\
From ten thousand to a million rows: ours and the bare driver, and how many times as long ours takes
in a million rows as in ten thousand (the budget is 1.2, for a cleanup 1.3). The bare cleanup keeps
no log of deletions, the bare search counts nothing and reads no entry:"""
CALLERS = """\
Callers at once, each with its next call when its last has returned: calls a second, and their time
over that of the bare driver (`sqlite3` in threads, asyncpg's pool):"""
OTHERS = "The event loop beside large batches, and what an entry takes in larger ones:"
FAR = "A PostgreSQL that is 30 ms away, where round trips decide:"
PEERS = """\
Beside what one would take instead, on the same server with the same payloads: ours, the peer's, and
the ratio, below 1 where ours is faster (bold where it is not):"""
AHEAD = "Where a peer is ahead, and why:"
MISSES = "What misses its budget, and why:"

ENTRIES = {
    "one `store`": "one store",
    "one `retrieve`": "one retrieve",
    "one `touch`": "one touch",
    "one `delete`": "one delete",
    **{
        f"`store_batch` of {count}, {kind}": f"store_batch {count} {kind}"
        for count in ("100", "500", "10,000 by 500", "10,000 by 10,000")
        for kind in ("new", "existing")
    },
    **{
        f"`retrieve_batch` of {count}": f"retrieve_batch {count}"
        for count in ("100", "500", "10,000 by 500", "10,000 by 10,000")
    },
}
BLOB_ROWS = {
    f"`{verb}_batch` of {count}{far}": f"{verb}_batch {count} blobs of 64 KiB{far}"
    for verb in ("store", "retrieve")
    for count, far in (("100", ""), ("500", ""), ("10,000", ""), ("100", ", 30 ms away"))
}
CALLER_ROWS = {
    f"`{verb}`, {callers}": f"{verb}, {callers} callers"
    for verb in ("store", "retrieve")
    for callers in (1, 4, 16, 64)
}
SIZES = ("10,000", "100,000", "1,000,000")
GROWTH_ROWS = (
    "store_batch 500 existing",
    "retrieve_batch 500",
    "cleanup_expired(500)",
    "a page of 500 changes",
    "search of a word of 100 entries",
    "search of a word of all",
)
SMALL_ROWS = ("store_batch 100 in 10,000 rows", "retrieve_batch 100 in 10,000 rows")
"""Of the catalogs whose tables stay small, over the same in 1,000."""
ADDED = {
    **{
        f"loop stall, `{verb}_batch` of {count}": f"longest loop stall in {verb}_batch {count}"
        for verb in ("store", "retrieve")
        for count in ("1,000", "10,000")
    },
    **{
        f"an entry of `{verb}_batch` of {count}, beside one of 100": (
            f"{verb}_batch, time for an entry in calls of {count}"
        )
        for verb in ("store", "retrieve")
        for count in ("500", "10,000")
    },
}
STALLS = {
    f"loop stall, `{verb}_batch` of 500": f"longest loop stall in {verb}_batch 500 blobs of 64 KiB"
    for verb in ("store", "retrieve")
}
FAR_ROWS = {
    f"`{verb}_batch` of {count}": f"{verb}_batch {count}, 30 ms away"
    for verb in ("store", "retrieve")
    for count in (1, 100)
}
INIT = {
    "SQLite": "init, existing file",
    "PostgreSQL": "init, existing schema",
    "Supabase": "init",
    "Firestore, light": "init",
    "Firestore, official": "init",
}
TARGET_ROWS = {
    "warm start, its first `retrieve` with it": "warm start: a new backend and its first retrieve",
    "`store_batch` of 100": "store_batch 100 new",
    "`retrieve_batch` of 100": "retrieve_batch 100",
}
REST = ("Sync", "Memory", "Cache", "Search", "DuckDB")
WITHOUT_FEED = "without the feed's index"
FEED_ROWS = {
    f"`store_batch` of {count}, {kind}": f"store_batch {count} {kind}"
    for count in ("100", "500")
    for kind in ("new", "existing")
}


def report(result: Result) -> str:
    """All of it."""
    found = Found(result.figures)
    parts = [
        f"Measured by `make bench`: {result.told()}",
        result.told_missing(),
        HOW_IT_IS_READ,
        *_targets(found),
        *_ratios(found),
        *_blobs(found),
        *_growth(found),
        *_callers(found),
        *_others(found, result.figures),
        *_peers(found),
        AHEAD,
        over_budget(figure for figure in result.figures if figure.over in all_names()),
        MISSES,
        over_budget(figure for figure in result.figures if figure.over not in all_names()),
    ]
    return "\n\n".join(part for part in parts if part)


def _under(title: str, *tables: str) -> list[str]:
    """*tables* that have rows, below what they are about; nothing where none has."""
    found = [one for one in tables if one]
    return [title, *found] if found else []


def _targets(found: Found) -> list[str]:
    init = ["init, to a catalog that answers"]
    init += [_cell(found, store, what, value_cell) for store, what in INIT.items()]
    rows = [
        [title, *(_cell(found, store, what, _ours) for store in CATALOGS)]
        for title, what in TARGET_ROWS.items()
    ]
    blobs = [
        [title, *(_cell(found, store, what, _ours) for store in BUCKETS)]
        for title, what in BLOB_ROWS.items()
        if "100 blobs" in what
    ]
    once = [
        _cell(found, "Import", "import ltm_async, over a bare process", value_cell),
        _cell(found, "DuckDB", "init, DuckDB's import before it", value_cell),
    ]
    return [
        TARGETS.format(*(one or "not measured" for one in once)),
        table(["", *CATALOGS], [init, *rows]),
        table(["", *BUCKETS], blobs),
        _image("cold-start", "Cold start by phase"),
    ]


def _ratios(found: Found) -> list[str]:
    rows = []
    for title, what in FEED_ROWS.items():
        figures = [
            next((one for one in found.all(store, what) if one.over.endswith(WITHOUT_FEED)), None)
            for store in CATALOGS[:2]
        ]
        rows.append([title, *("" if one is None else ratio_cell(one) for one in figures)])
    return [
        RATIOS,
        crossed(found, "", ENTRIES, CATALOGS, ratio_cell),
        _image("ratios", "Ratio to the bare driver"),
        _image("cost-by-size", "Cost against size"),
        FEED,
        table(["", *CATALOGS[:2]], rows),
    ]


def _blobs(found: Found) -> list[str]:
    return _under(BLOBS, crossed(found, "", BLOB_ROWS, BUCKETS, ratio_cell))


def _growth(found: Found) -> list[str]:
    rows = []
    few, *_, many = SIZES
    for store in CATALOGS[:2]:
        for what in GROWTH_ROWS:
            cells = [_cell(found, store, f"{what} in {size} rows", times_cell) for size in SIZES]
            last = found.over(store, f"{what} in {many} rows", f"the same in {few}")
            growth = "" if last is None else ratio_cell(last)
            rows.append([f"{store}, {what}", *cells, growth])
    for store in CATALOGS[2:]:
        for what in SMALL_ROWS:
            growth = _cell(found, store, what, ratio_cell)
            rows.append([f"{store}, {what} over 1,000", "", "", "", growth])
    return _under(GROWTH, table(["", *(f"{size} rows" for size in SIZES), "growth"], rows))


def _callers(found: Found) -> list[str]:
    rows = []
    for title, what in CALLER_ROWS.items():
        cells = []
        for store in CATALOGS:
            rate = _cell(found, store, f"{what}, calls a second", lambda one: short(one.value))
            cells.append(f"{rate}/s, {_cell(found, store, what, ratio_cell)}" if rate else "")
        rows.append([title, *cells])
    return _under(CALLERS, table(["callers", *CATALOGS], rows))


def _others(found: Found, figures: list[Figure]) -> list[str]:
    rest = [
        [f"{one.store}: {one.what}", value_cell(one), one.over]
        for one in figures
        if one.store in REST and not one.what.startswith(("cold start", "init"))
    ]
    return [
        *_under(
            OTHERS,
            crossed(found, "", ADDED, CATALOGS, value_cell),
            crossed(found, "", STALLS, BUCKETS[:1], value_cell),
        ),
        *_under(FAR, crossed(found, "", FAR_ROWS, ["PostgreSQL"], times_cell)),
        table(["", "median (quartiles)", "over"], rest),
    ]


def _peers(found: Found) -> list[str]:
    parts = [PEERS]
    promises = {"ltm_async": OURS}
    for kind, peers in PROMISES.items():
        rows = []
        for what in PEER_ROWS:
            figures = [found.over(kind, what, name) for name in peers]
            if any(figures):
                rows.append([what, *("" if one is None else times_cell(one) for one in figures)])
        parts.append(table([kind, *peers], rows))
        promises |= peers
    head = ["", "what is measured", "on the disk when it answers", "a batch is stored", "expiry"]
    lines = [[name, *said] for name, said in promises.items()]
    return [*parts, _image("peers", "Beside its peers"), table(head, lines)]


def _ours(figure: Figure) -> str:
    return f"{short(figure.value if figure.ours_ms is None else figure.ours_ms)} ms"


def _cell(found: Found, store: str, what: str, cell: Callable[[Figure], str]) -> str:
    figure = found.first(store, what)
    return "" if figure is None else cell(figure)


def _image(name: str, title: str) -> str:
    return f"![{title}](bench/results/{name}.svg)"
