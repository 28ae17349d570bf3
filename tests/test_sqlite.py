"""What is SQLite's own: the file, its locks, its plans, several processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    ClosedError,
    ConfigError,
    DeadlineError,
    LTMBackend,
    SQLiteCatalog,
    StoreError,
    UnavailableError,
)
from ltm_async.catalogs.sqlite import database, feed, statements
from ltm_async.protocols import MAX_COUNTED
from ltm_async.testing.writes import SPACE, new_write_id, small

LARGE = "x" * 5_000


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "ltm.db")


@pytest.fixture
async def catalog(path: str) -> AsyncIterator[SQLiteCatalog]:
    catalog = SQLiteCatalog(path)
    await catalog.open()
    yield catalog
    await catalog.aclose()


@contextlib.contextmanager
def locked(path: str) -> Iterator[sqlite3.Connection]:
    """Hold the write lock as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield db
        if db.in_transaction:
            db.execute("ROLLBACK")


# The file


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
async def test_the_file_is_set_up_as_promised(path: str, synchronous: str, level: int) -> None:
    catalog = SQLiteCatalog(path, synchronous=synchronous)
    found = await catalog._write(
        lambda conn, _now: [
            conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
        ]
    )
    assert found == ["wal", level, 1, len(database.MIGRATIONS)]
    await catalog.aclose()


async def test_readers_cannot_write(catalog: SQLiteCatalog) -> None:
    with pytest.raises(AccessDeniedError):
        await catalog._read(lambda conn, _now: conn.execute("DELETE FROM ltm_entries"))


async def test_closing_leaves_one_file_and_no_thread(path: str, tmp_path: pathlib.Path) -> None:
    before = threading.enumerate()  # other tests' may be ending
    catalog = SQLiteCatalog(path)
    await catalog.track_entry(SPACE, small("k"), write_id=new_write_id())
    await catalog.get_entry(SPACE, "k")
    ending = [thread for thread in threading.enumerate() if thread not in before]
    assert {thread.name for thread in ending} == {"ltm-sqlite-writer", "ltm-sqlite-reader"}
    await catalog.aclose()
    for thread in ending:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
    assert [file.name for file in await asyncio.to_thread(lambda: [*tmp_path.iterdir()])] == [
        "ltm.db"
    ]


async def test_a_newer_schema_is_refused(path: str) -> None:
    def prepare() -> None:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 99")

    await asyncio.to_thread(prepare)
    catalog = SQLiteCatalog(path)
    with pytest.raises(ConfigError, match="schema version 99"):
        await catalog.get_entries_batch(SPACE, ["k"])
    await catalog.aclose()


async def test_an_older_schema_is_brought_up_to_date(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SQLiteCatalog(path)
    await old.track_entry(SPACE, small("k", '"kept"'), write_id=new_write_id())
    await old.aclose()
    newer = (*database.MIGRATIONS, "CREATE TABLE ltm_more (a INTEGER) STRICT;")
    monkeypatch.setattr(database, "MIGRATIONS", newer)
    new = SQLiteCatalog(path)
    row = await new.get_entry(SPACE, "k")
    assert row is not None and row.inlined_value == '"kept"'
    assert await new._read(lambda conn, _now: list(conn.execute("SELECT * FROM ltm_more"))) == []
    await new.aclose()


async def test_snapshots_of_an_older_schema_are_kept(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr(database, "MIGRATIONS", database.MIGRATIONS[:2])
        old = SQLiteCatalog(path)
        made = await old.create_snapshot(SPACE, "0" * 32, "before")
        await old.aclose()
    new = SQLiteCatalog(path)
    assert await new.get_snapshot(SPACE, made.id) == made
    await new.aclose()


async def test_a_migration_that_fails_changes_nothing(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = database.MIGRATIONS
    monkeypatch.setattr(database, "MIGRATIONS", (*good, "CREATE TABLE ltm_more (a);\nNONSENSE;"))
    broken = SQLiteCatalog(path)
    with pytest.raises(StoreError, match="NONSENSE"):
        await broken.open()
    await broken.aclose()
    monkeypatch.setattr(database, "MIGRATIONS", good)
    catalog = SQLiteCatalog(path)
    assert await catalog.get_entries_batch(SPACE, ["k"]) == []
    await catalog.aclose()


async def test_a_catalog_in_memory_stays_in_its_process(path: str) -> None:
    catalog = SQLiteCatalog(":memory:")
    await catalog.track_entry(SPACE, small("k"), write_id=new_write_id())
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            with contextlib.suppress(ClosedError):
                catalog._open_lanes()
                os._exit(2)
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0
    await catalog.aclose()


# Round trips


async def test_a_batch_has_one_statement_for_each_step_and_entry(path: str) -> None:
    statements_seen: list[str] = []
    async with LTMBackend(f"sqlite:///{path}", "memory:") as ltm:
        await ltm.store("k", 0)
        catalog: Any = ltm._runner.stores().catalog
        await catalog._write(lambda conn, _: conn.set_trace_callback(statements_seen.append))
        statements_seen.clear()  # its own commit
        await ltm.store("k", 1)
        one = [statement.split()[0] for statement in statements_seen]
        statements_seen.clear()
        await ltm.store_batch({"key": f"k{n}", "value": n} for n in range(100))
        many = [statement.split()[0] for statement in statements_seen]
    assert one == ["BEGIN", "SELECT", "UPDATE", "INSERT", "COMMIT"]
    assert many == ["BEGIN", "SELECT", "UPDATE", *["INSERT"] * 100, "COMMIT"]


# Plans


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (statements.GET, "USING PRIMARY KEY (namespace=? AND key=?)"),
        (statements.PRESENT, "USING PRIMARY KEY (namespace=? AND key=?)"),
        (statements.LIST, "USING PRIMARY KEY (namespace=? AND key>? AND key<?)"),
        (statements.EXPIRED, "INDEX ltm_entries_expiry (namespace=? AND expires_at<?)"),
        (statements.DELETE, "USING PRIMARY KEY (namespace=? AND key=?)"),
        (statements.TOUCH, "USING PRIMARY KEY (namespace=? AND key=?)"),
        (statements.GO_LIVE, "USING PRIMARY KEY (namespace=? AND blob_id=?)"),
        (statements.RETIRE_OTHERS, "USING INDEX ltm_blobs_live (namespace=? AND key=?)"),
        (statements.DUE, "ltm_blobs_due (namespace=? AND due_at<?)"),
        (statements.ABANDON, "USING PRIMARY KEY (namespace=? AND blob_id=?)"),
        (statements.COMMITTED, "USING PRIMARY KEY (namespace=? AND blob_id=?)"),
        (statements.FORGET, "USING PRIMARY KEY (namespace=? AND blob_id=?)"),
        (statements.PRUNE_DELETIONS, "ltm_deletions_age (namespace=? AND deleted_at<?)"),
        (statements.LOOK, "USING PRIMARY KEY (namespace=? AND key>? AND key<?)"),
        (statements.DELETE_SNAPSHOT, "USING PRIMARY KEY (namespace=? AND id=?)"),
        (statements.SNAPSHOT, "USING PRIMARY KEY (namespace=? AND id=?)"),
    ],
)
async def test_every_statement_uses_its_index(catalog: SQLiteCatalog, sql: str, index: str) -> None:
    def plan(conn: sqlite3.Connection, _now: int) -> str:
        names = {"namespace", "keys", "key", "start", "end", "now", "limit", "version"}
        names |= {"write_id", "metadata", "new_expiry", "expires_at"}
        bound: Any = dict.fromkeys(names, 1) if ":namespace" in sql else (1,) * sql.count("?")
        return "\n".join(row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", bound))

    steps = await catalog._write(plan)
    assert index in steps
    assert "SCAN ltm" not in steps
    assert "SCAN e" not in steps
    assert "ORDER BY" not in steps


async def test_a_page_of_changes_is_found_by_indexes_and_merged_in_their_order(
    catalog: SQLiteCatalog,
) -> None:
    bound = dict.fromkeys(("namespace", "version", "after", "upper", "now", "limit"), 1)
    steps = await catalog._read(
        lambda conn, _now: [
            row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statements.CHANGES}", bound)
        ]
    )
    text = "\n".join(steps)
    for table in ("entries", "deletions AS d"):
        index = f"ltm_{table.split()[0]}_changed"
        assert re.search(rf"SEARCH .*{index} \(namespace=\? AND .*version", text), text
    assert "PRIMARY KEY (namespace=? AND key=?)" in text
    assert not [step for step in steps if "SCAN ltm" in step], text


async def test_statements_do_not_grow_with_the_batch(catalog: SQLiteCatalog) -> None:
    """One row at a time would be thousands."""
    counted: list[str] = []

    async def traced(call: Any) -> int:
        await catalog._write(lambda conn, _now: conn.set_trace_callback(counted.append))
        await catalog._read(lambda conn, _now: conn.set_trace_callback(counted.append))
        counted.clear()
        await call
        distinct = {statement.split("VALUES")[0] for statement in counted}
        return len(distinct)

    writes = [small(f"k{n}") for n in range(500)]
    keys = [write.key for write in writes]
    stored = await traced(catalog.track_entries_batch(SPACE, writes, write_id=new_write_id()))
    assert stored <= 8  # begin, rows present, version, upsert, retire, commit
    assert await traced(catalog.get_entries_batch(SPACE, keys)) == 1
    deleted = await traced(catalog.delete_entries_batch(SPACE, keys, write_id=new_write_id()))
    assert deleted <= 9


async def test_a_snapshot_visits_a_bounded_number_of_rows(catalog: SQLiteCatalog) -> None:
    """Of which it counts the live ones, unless there are more."""
    steps: list[None] = []
    watch = sqlite3.Connection.set_progress_handler
    await catalog._read(lambda conn, _now: watch(conn, lambda: steps.append(None), 100))

    async def snapshot(rows: int) -> tuple[int | None, int | None]:
        fill = f"""
            WITH RECURSIVE n (n) AS (
                SELECT count(*) FROM ltm_entries UNION ALL SELECT n + 1 FROM n LIMIT {rows})
            INSERT INTO ltm_entries SELECT '{SPACE}', 'k' || n, 1, 'w', 'h', 2, '12', NULL, '{{}}',
                CASE WHEN n < 10 THEN 1 END, 1, 1 FROM n"""
        await catalog._write(lambda conn, _now: conn.execute(fill))
        steps.clear()
        made = await catalog.create_snapshot(SPACE, new_write_id(), "n")
        assert await catalog.get_snapshot(SPACE, made.id) == made
        return made.entry_count, made.total_bytes

    assert await snapshot(MAX_COUNTED) == (MAX_COUNTED - 10, 2 * (MAX_COUNTED - 10))
    counted = len(steps)
    assert await snapshot(1) == (None, None)
    assert await snapshot(50_000) == (None, None)
    assert counted / 10 < len(steps) <= counted + 10


# Locks


async def test_a_lock_held_elsewhere_is_waited_for(catalog: SQLiteCatalog, path: str) -> None:
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            released.wait(10)

    holding = asyncio.create_task(asyncio.to_thread(hold))
    assert await asyncio.to_thread(held.wait, 10)
    storing = asyncio.create_task(ltm.store("k", 1))
    await asyncio.sleep(0.3)
    assert not storing.done()
    assert not (await ltm.retrieve("k")).found  # readers never wait
    released.set()
    assert (await storing).stored
    await holding


async def test_a_write_whose_time_is_up_never_happens(catalog: SQLiteCatalog, path: str) -> None:
    """It waits for a lock, its caller goes, the lock is released: nothing is written."""
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            released.wait(10)

    holding = asyncio.create_task(asyncio.to_thread(hold))
    assert await asyncio.to_thread(held.wait, 10)
    with pytest.raises(DeadlineError):
        await ltm.store("k", 1, timeout=0.2)
    released.set()
    await holding
    await ltm.store("behind", 1)
    assert not (await ltm.retrieve("k")).found


async def test_a_snapshot_is_of_the_moment_it_was_counted_at(
    catalog: SQLiteCatalog, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is committed before it is written down comes with the changes since."""
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    await ltm.store("k", 1)
    counted, read_moment = threading.Event(), feed.read_moment

    def read_and_say_so(*arguments: Any) -> tuple[int, int | None, int | None]:
        moment = read_moment(*arguments)
        counted.set()
        return moment

    monkeypatch.setattr(feed, "read_moment", read_and_say_so)
    taken = threading.Event()

    def change() -> None:
        with locked(path) as db:
            taken.set()
            assert counted.wait(10)
            version, *_ = db.execute(statements.NEXT_VERSION).fetchone()
            db.execute("UPDATE ltm_entries SET version = ?", (version,))
            db.execute("COMMIT")

    changing = asyncio.create_task(asyncio.to_thread(change))
    assert await asyncio.to_thread(taken.wait, 10)
    snapshot = await ltm.create_snapshot("before")
    await changing
    page = await ltm.get_changed_entries(snapshot.id)
    assert [change.key for change in page.changes] == ["k"]


async def test_a_read_only_file_is_said_to_be_so(path: str) -> None:
    async with LTMBackend(f"sqlite:///{path}", "memory:") as ltm:
        await ltm.store("k", 1)
    catalog = SQLiteCatalog(path)
    await catalog._write(lambda conn, _now: None)
    await catalog._write(_stop_writing)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    with pytest.raises(AccessDeniedError):
        await ltm.store("k", 2)
    assert (await ltm.retrieve("k")).value == 1
    await catalog.aclose()


def _stop_writing(conn: sqlite3.Connection, _now: int) -> None:
    conn.execute("COMMIT")
    conn.execute("PRAGMA query_only = ON")
    conn.execute("BEGIN")


async def test_a_full_disk_is_reported_and_survived(path: str) -> None:
    catalog = SQLiteCatalog(path)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise", timeout=2)
    await ltm.store("before", "x" * 900)

    def limit_pages(conn: sqlite3.Connection, extra: int) -> None:
        (pages,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {pages + extra}")

    await catalog._write(lambda conn, _now: limit_pages(conn, 2))
    done = await ltm.store_batch({"key": f"k{n}", "value": "x" * 900} for n in range(400))
    assert (done.stored, done.failed, done.error_type) == (0, 400, "UnavailableError")
    assert "full" in str(done.error)
    assert (await ltm.retrieve("before")).found
    assert (await ltm.stats()).entries == 1
    await catalog._write(lambda conn, _now: limit_pages(conn, 100_000))
    assert (await ltm.store("after", 1)).stored
    await catalog.aclose()


# Processes

WORKER = """
import asyncio, sys
from ltm_async import LTMBackend

async def main(url, blobs, name):
    async with LTMBackend(url, blobs, on_unavailable="raise") as ltm:
        async def work(task):
            for turn in range(4):
                await ltm.update("counter", lambda n: n + 1, default=0)
                await ltm.store(f"{name}/{task}/{turn}", [name, task, "x" * (3000 * (task % 2))])
                await ltm.store_batch(
                    {"key": f"{name}/{task}/{turn}/{n}", "value": [turn, n]} for n in range(5)
                )
        async with asyncio.TaskGroup() as group:
            for task in range(25):
                group.create_task(work(task))
    print("done")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_two_processes_and_fifty_tasks_lose_nothing(
    path: str, tmp_path: pathlib.Path
) -> None:
    url, blobs = f"sqlite:///{path}", str(tmp_path / "blobs")
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, url, blobs, name,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for worker in workers:
        assert await worker.communicate() == (b"done\n", b"")
    async with LTMBackend(url, blobs, on_unavailable="raise") as ltm:
        assert (await ltm.retrieve("counter")).value == 200
        found = await ltm.verify()
        assert (found.sound, found.entries, found.blobs) == (True, 1_201, 96)
        assert (found.pending_blobs, found.dead_blobs, found.strays) == (0, 0, 0)


async def test_a_killed_writer_leaves_the_file_usable(path: str, tmp_path: pathlib.Path) -> None:
    url, blobs = f"sqlite:///{path}", str(tmp_path / "blobs")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, url, blobs, "killed",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    async with LTMBackend(url, blobs, on_unavailable="raise") as ltm:
        while (await ltm.stats()).entries < 50:
            assert worker.returncode is None
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        counted = (await ltm.retrieve("counter")).value
        assert (await ltm.update("counter", lambda n: n + 1)).stored
        assert (await ltm.retrieve("counter")).value == counted + 1
        assert (await ltm.verify()).problems == {}


def test_a_forked_child_works_with_the_parents_backend(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", on_unavailable="raise")
    asyncio.run(_append(ltm, "parent"))
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            asyncio.run(_append(ltm, "child"))
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert asyncio.run(_append(ltm, "parent again")) == ["parent", "child", "parent again"]
    asyncio.run(ltm.aclose())


async def _append(ltm: LTMBackend, name: str) -> list[str]:
    await ltm.update("names", lambda names: [*names, name], default=[])
    await ltm.store(name, LARGE)
    assert (await ltm.retrieve(name)).value == LARGE
    return list((await ltm.retrieve("names")).value)


def test_two_threads_with_a_loop_each(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs", on_unavailable="raise")

    async def count(name: str) -> None:
        for turn in range(10):
            await ltm.update("n", lambda n: n + 1, default=0)
            await ltm.store(f"{name}{turn}", LARGE)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(count(n))) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(_value(ltm)) == 20
    asyncio.run(ltm.aclose())


async def _value(ltm: LTMBackend) -> Any:
    assert (await ltm.verify()).sound
    return (await ltm.retrieve("n")).value


def test_exiting_without_closing_is_quiet(tmp_path: pathlib.Path) -> None:
    code = f"""
import asyncio
from ltm_async import LTMBackend
ltm = LTMBackend("sqlite:///{tmp_path}/ltm.db", "{tmp_path}/blobs")
print(asyncio.run(ltm.store("k", "x" * 5000)).stored)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


# Commits that are shared


async def test_writes_that_wait_together_share_a_commit(catalog: SQLiteCatalog) -> None:
    statements: list[str] = []
    all_wait = threading.Event()

    def hold(conn: sqlite3.Connection, _now: int) -> None:
        conn.set_trace_callback(statements.append)
        all_wait.wait(10)

    holding = asyncio.create_task(catalog._write(hold))
    writes = [
        asyncio.create_task(
            catalog.track_entry(SPACE, small(f"k{n}", str(n)), write_id=new_write_id())
        )
        for n in range(40)
    ]
    await asyncio.sleep(0)
    all_wait.set()
    await holding
    outcomes = await asyncio.gather(*writes)
    assert len({written.version for written in outcomes}) == 40
    assert statements.count("COMMIT") <= 2
    rows = await catalog.get_entries_batch(SPACE, [f"k{n}" for n in range(40)])
    assert {row.key: row.inlined_value for row in rows} == {f"k{n}": str(n) for n in range(40)}


async def test_one_that_fails_in_a_shared_commit_is_undone_alone(catalog: SQLiteCatalog) -> None:
    def breaks(conn: sqlite3.Connection, _now: int) -> None:
        conn.execute("DELETE FROM ltm_entries")
        raise ZeroDivisionError

    await catalog.track_entry(SPACE, small("before"), write_id=new_write_id())
    conflicting = [small("beside", "1"), small("before", "2", if_version=0)]
    outcomes = await asyncio.gather(
        catalog.track_entry(SPACE, small("a"), write_id=new_write_id()),
        catalog.track_entries_batch(SPACE, conflicting, write_id=new_write_id()),
        catalog._write(breaks),
        catalog.track_entry(SPACE, small("b"), write_id=new_write_id()),
        return_exceptions=True,
    )
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == ["Written", "ConflictError", "ZeroDivisionError", "Written"]
    rows = await catalog.list_entries(SPACE, limit=10)
    assert [row.key for row in rows] == ["a", "b", "before"]


async def test_a_commit_that_fails_fails_all_that_share_it(catalog: SQLiteCatalog) -> None:
    """And none of them is there afterwards, nor is one told of a conflict with another."""

    def fill_up(conn: sqlite3.Connection, _now: int) -> None:
        (pages,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {pages + 1}")

    await catalog._write(fill_up)
    first, *others = [
        asyncio.create_task(
            catalog.track_entry(SPACE, small(f"k{n}", f'"{"x" * 900}"'), write_id=new_write_id())
        )
        for n in range(30)
    ]
    outcomes = await asyncio.gather(first, *others, return_exceptions=True)
    stored = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert all(isinstance(o, UnavailableError) for o in outcomes if isinstance(o, BaseException))
    assert len(await catalog.list_entries(SPACE, limit=100)) == stored < 30


async def test_one_that_is_withdrawn_leaves_the_others_alone(
    catalog: SQLiteCatalog, path: str
) -> None:
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            released.wait(10)

    holding = asyncio.create_task(asyncio.to_thread(hold))
    assert await asyncio.to_thread(held.wait, 10)
    tasks = [
        asyncio.create_task(catalog.track_entry(SPACE, small(f"k{n}"), write_id=new_write_id()))
        for n in range(6)
    ]
    await asyncio.sleep(0.1)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)
    released.set()
    await asyncio.gather(holding, *tasks, return_exceptions=True)
    await catalog.track_entry(SPACE, small("last"), write_id=new_write_id())
    rows = await catalog.list_entries(SPACE, limit=10)
    assert [row.key for row in rows] == ["k1", "k3", "k5", "last"]
