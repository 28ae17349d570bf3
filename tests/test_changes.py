"""The change feed on every catalog: a copy that is fed by it equals the catalog."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any, NamedTuple

import asyncpg
import pytest
from google.cloud.firestore_v1 import DELETE_FIELD, AsyncClient

from ltm_async import (
    CorruptError,
    FirestoreCatalog,
    InvalidEntryError,
    LTMBackend,
    MemoryCatalog,
    PostgresCatalog,
    SQLiteCatalog,
    StoreError,
    SyncLTMBackend,
    UnavailableError,
    WatermarkExpiredError,
    feed,
)
from ltm_async.catalogs.firestore import layout
from ltm_async.catalogs.firestore.feed import MARGIN_US
from ltm_async.catalogs.firestore.layout import entry_name
from ltm_async.catalogs.sqlite import database as sqlite_database
from ltm_async.cursors import write_cursor
from ltm_async.entry import to_datetime
from ltm_async.protocols import Catalog
from ltm_async.results import ChangeInfo, ChangesResult, EntryInfo
from ltm_async.schema import postgres_script
from ltm_async.testing import Faults, ManualClock, Mode, faulty_catalog
from ltm_async.testing.writes import new_write_id, small

from .backends import QUICK
from .databases import Database, wait_for
from .feed_writer import KEYS
from .projects import Project
from .servers.firestore import Firestore, new_project
from .servers.pgbouncer import PgBouncer
from .servers.postgrest import PostgREST

WRITERS = 8


class World(NamedTuple):
    """One catalog, for as many adapters of it as are asked for."""

    connect: Callable[[], Catalog]
    clock: ManualClock
    config: dict[str, Any] | None
    """What another process reaches it by."""
    turns: int = 25
    """Of each writer."""


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer", "supabase", "firestore", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> World:
    match request.param:
        case "sqlite":
            clock, path = ManualClock(), str(tmp_path / "ltm.db")
            config = {"type": "sqlite", "path": path}
            return World(lambda: SQLiteCatalog(path, clock=clock), clock, config)
        case "postgres" | "pgbouncer":
            database: Database = request.getfixturevalue("database")
            dsn = database.dsn
            if request.param == "pgbouncer":
                pooler: PgBouncer = request.getfixturevalue("pgbouncer_server")
                dsn = pooler.dsn
            config = {"type": "postgres", "dsn": dsn, "schema": database.schema}
            clock = database.clock_at(None)
            schema = database.schema
            return World(lambda: PostgresCatalog(dsn, schema=schema), clock, config)
        case "supabase":
            project: Project = request.getfixturevalue("project")
            place = project.rest_place
            config = {
                "type": "supabase",
                "url": place.url,
                "key": PostgREST.anon_key,
                "access_token": place.access_token,
                "schema": place.schema,
                "rest_path": "/",
            }
            return World(project.catalog, project.clock_at(None), config, turns=8)
        case "firestore":
            request.getfixturevalue("firestore_server")
            clock, name = ManualClock(), new_project()
            config = {"type": "firestore", "project": name}
            connect = lambda: FirestoreCatalog(name, clock=lambda _: clock())  # noqa: E731
            return World(connect, clock, config, turns=6)
    clock = ManualClock()
    catalog = MemoryCatalog(clock=clock)
    return World(lambda: catalog, clock, None)


@contextlib.asynccontextmanager
async def backend(catalog: Catalog, **options: Any) -> AsyncIterator[LTMBackend]:
    options = {"on_unavailable": "raise", "retry": QUICK, **options}
    ltm = LTMBackend(catalog, "memory:", **options)
    yield ltm
    await ltm.aclose()
    if not isinstance(catalog, MemoryCatalog):
        await catalog.aclose()


class Copy:
    """What somebody knows of a catalog who sees its changes only."""

    def __init__(self) -> None:
        self.entries: dict[str, EntryInfo] = {}
        self.cursor: str | None = None
        self.kinds: set[str] = set()
        self.pages = 0

    async def feed(self, ltm: LTMBackend, *, limit: int) -> None:
        """One pass."""
        while True:
            page = await ltm.get_changed_entries(cursor=self.cursor, limit=limit)
            self.pages += 1
            for change in page.changes:
                self.apply(change)
            self.cursor = page.cursor
            if not page.more:
                return

    def apply(self, change: ChangeInfo) -> None:
        self.kinds.add(change.kind)
        if change.entry is not None:
            self.entries[change.key] = change.entry
        else:
            assert change.kind in {"deleted", "expired"}
            self.entries.pop(change.key, None)


async def all_entries(ltm: LTMBackend) -> dict[str, EntryInfo]:
    found: dict[str, EntryInfo] = {}
    cursor: str | None = None
    while True:
        page = await ltm.list_entries(cursor=cursor, limit=1000)
        found |= {entry.key: entry for entry in page.entries}
        if (cursor := page.cursor) is None:
            return found


async def write(world: World, writer: int) -> None:
    """Store, touch, delete and let expire, keys that others write too."""
    seeded = random.Random(writer)
    async with backend(world.connect(), timeout=None) as ltm:
        for turn in range(world.turns):
            with contextlib.suppress(UnavailableError):  # Firestore, of which all want the same
                await change_some(ltm, seeded, f"{writer}, {turn}")
            await ltm.store(f"of {writer}, {turn}", turn)


async def change_some(ltm: LTMBackend, seeded: random.Random, value: str) -> None:
    keys = seeded.sample(KEYS, seeded.randint(1, 12))
    match seeded.randrange(5):
        case 0:
            (await ltm.delete_batch(keys)).raise_for_error()
        case 1:
            await ltm.touch(keys[0], ttl=seeded.choice([1, 1_000]), metadata={"by": value})
        case 2:
            await ltm.cleanup_expired()
            await ltm.delete(keys[0])
        case _:
            ttl = seeded.choice([None, 1, 3, 1_000])
            batch = [{"key": key, "value": value, "ttl": ttl} for key in keys]
            (await ltm.store_batch(batch)).raise_for_error()


def start_writing(config: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A process that writes beside, and has begun."""
    command = [sys.executable, "-m", "tests.feed_writer", json.dumps(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"wrote\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """Amid what it does."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.timeout(120)
async def test_a_copy_fed_beside_eight_writers_and_a_killed_one_equals_the_catalog(
    world: World,
) -> None:
    copy, writing = Copy(), asyncio.Event()
    writing.set()
    process = None if world.config is None else await asyncio.to_thread(start_writing, world.config)

    async def follow(ltm: LTMBackend) -> None:
        for turn in itertools.count():
            if not writing.is_set():
                return
            await copy.feed(ltm, limit=1 + turn % 9)
            world.clock.advance(0.5)
            if process is not None and turn == 5:
                await asyncio.to_thread(kill, process)
            await asyncio.sleep(0)

    async with backend(world.connect(), timeout=None) as ltm:
        following = asyncio.create_task(follow(ltm))
        await asyncio.gather(*(write(world, writer) for writer in range(WRITERS)))
        writing.clear()
        await following
        if process is not None and process.returncode is None:
            await asyncio.to_thread(kill, process)
        await ltm.store("expires", 1, ttl=5)
        await ltm.delete(KEYS[0])
        for _ in range(2):  # at rest, and again after what has expired was removed
            await copy.feed(ltm, limit=7)
            now = world.clock()
            live = {
                key: entry
                for key, entry in copy.entries.items()
                if entry.expires_at is None or entry.expires_at.timestamp() * 1e6 > now
            }
            assert live == await all_entries(ltm)
            world.clock.advance(10)
            await ltm.cleanup_expired()
    assert copy.kinds == {"stored", "deleted", "expired"}
    assert len(live) > WRITERS * world.turns / 2
    assert copy.pages > 10


async def test_a_copy_that_was_away_catches_up_from_its_snapshot(world: World) -> None:
    async with backend(world.connect()) as ltm:
        await ltm.store_batch([{"key": f"k{n}", "value": n} for n in range(10)])
        snapshot = await ltm.create_snapshot("before")
        copy = Copy()
        copy.entries = await all_entries(ltm)
        if snapshot.entry_count is not None:
            assert (snapshot.entry_count, snapshot.total_bytes) == (10, 10)
        await ltm.delete_batch(["k1", "k2"])
        await ltm.store("k2", "back")
        await ltm.store("new", 1, ttl=5)
        await ltm.touch("k3", metadata={"a": 1})
        world.clock.advance(6)
        assert snapshot.id is not None
        async for change in ltm.changes(snapshot.id):
            copy.apply(change)
        assert copy.entries == await all_entries(ltm)
        page = await ltm.get_changed_entries(snapshot.id, limit=1000)
        kinds = {change.key: change.kind for change in page.changes}
        assert {key: kinds[key] for key in ("k1", "k2", "k3", "new")} == {
            "k1": "deleted",
            "k2": "stored",
            "k3": "stored",
            "new": "expired",
        }


async def test_a_change_says_from_where_to_go_on(world: World) -> None:
    """Whoever stops after any change and goes on by its cursor misses none."""
    async with backend(world.connect()) as ltm:
        await ltm.store_batch([{"key": f"k{n}", "value": n} for n in range(5)])
        page = await ltm.get_changed_entries(limit=2)
        assert page.more
        found = [change async for change in ltm.changes(cursor=page.cursor)]
        seen = {change.key for change in page.changes} | {change.key for change in found}
        assert seen == {f"k{n}" for n in range(5)}
        for place, change in enumerate(page.changes):
            again = [each.key async for each in ltm.changes(cursor=change.cursor)]
            missed = {each.key for each in page.changes[place + 1 :]} | {e.key for e in found}
            assert missed <= {*again}
        assert page.changes[-1].cursor == page.cursor


async def test_following_sees_what_comes_and_ends_when_it_is_cancelled(world: World) -> None:
    seen: list[tuple[str, str]] = []
    came = asyncio.Event()

    async def follow(ltm: LTMBackend) -> None:
        async for change in ltm.changes(follow=True, poll=0.1):
            seen.append((change.kind, change.key))
            came.set()

    async with backend(world.connect()) as ltm:
        await ltm.store("a", 1)
        following = asyncio.create_task(follow(ltm))
        for key, kind in (("a", "stored"), ("b", "stored"), ("a", "deleted")):
            if kind == "deleted":
                await ltm.delete(key)
            elif key == "b":
                await ltm.store(key, 2)
            while (kind, key) not in seen:
                came.clear()
                await came.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
    assert seen == [("stored", "a"), ("stored", "b"), ("deleted", "a")]


def change_of(key: str, version: int) -> ChangeInfo:
    return ChangeInfo(kind="deleted", key=key, version=version, entry=None, cursor=None)


async def test_the_wait_between_looks_that_find_nothing_doubles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [*[[]] * 5, [change_of("a", 1)], [change_of("a", 1)], [change_of("a", 2)]]
    pages = iter(ChangesResult(changes=changes, cursor="c") for changes in found)
    slept: list[float] = []

    async def get_page(cursor: str | None) -> ChangesResult:
        assert cursor == ("c" if slept else None)
        return next(pages)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("ltm_async.feed.asyncio.sleep", sleep)
    following = feed.follow(get_page, poll_s=1.0)
    seen = [await anext(following) for _ in found]
    assert [len(page.changes) for page in seen] == [0, 0, 0, 0, 0, 1, 0, 1]
    assert slept == [0.2, 0.4, 0.8, 1.0, 1.0, 0.1, 0.2]


async def test_the_first_wait_is_no_longer_than_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    pages = itertools.count()

    async def get_page(_: str | None) -> ChangesResult:
        number = next(pages)
        return ChangesResult(changes=[change_of("a", number)], cursor="c", more=number == 0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("ltm_async.feed.asyncio.sleep", sleep)
    following = feed.follow(get_page, poll_s=0.05)
    for _ in range(4):
        await anext(following)
    assert slept == [0.05, 0.05]


def test_what_was_seen_is_forgotten_from_the_oldest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "REMEMBERED", 2)
    recent = feed.Recent()
    assert [recent.is_new(change_of(key, 1)) for key in "aba"] == [True, True, False]
    assert recent.is_new(change_of("c", 1))  # and b is forgotten, which was seen before a
    assert [recent.is_new(change_of(key, 1)) for key in "acb"] == [False, False, True]
    assert recent.is_new(change_of("c", 2))
    assert recent.is_new(dataclasses.replace(change_of("c", 2), kind="stored"))


# What a caller may do wrong, and what a store may


BAD = [
    ("create_snapshot", {"name": ""}, "name is empty"),
    ("create_snapshot", {"name": 5}, "name must be str"),
    ("create_snapshot", {"name": "x" * 257}, "name has 257 bytes"),
    ("create_snapshot", {"name": "\0"}, "name has a NUL"),
    ("delete_snapshot", {"snapshot_id": ""}, "snapshot_id is empty"),
    ("delete_snapshot", {"snapshot_id": 5}, "snapshot_id must be str"),
    ("delete_snapshot", {"snapshot_id": "x" * 65}, "snapshot_id has 65 bytes"),
    ("get_changed_entries", {"since_snapshot_id": "a", "cursor": "b"}, "exclude each other"),
    ("get_changed_entries", {"since_snapshot_id": ""}, "since_snapshot_id is empty"),
    ("get_changed_entries", {"since_snapshot_id": 5}, "since_snapshot_id must be str"),
    ("get_changed_entries", {"cursor": "\ud800"}, "cursor has a lone surrogate"),
    ("get_changed_entries", {"cursor": "x" * 70_000}, "cursor has 70000 bytes"),
    ("get_changed_entries", {"cursor": "nonsense"}, "cursor is none"),
    ("get_changed_entries", {"limit": 0}, "limit is 0"),
    ("get_changed_entries", {"limit": 1001}, "limit is 1001"),
    ("changes", {"cursor": ""}, "cursor is empty"),
    ("changes", {"poll": 0}, "poll is 0"),
    ("changes", {"poll": True}, "poll is True"),
    ("changes", {"poll": float("nan")}, "poll is nan"),
    ("changes", {"poll": 3601}, "poll is 3601"),
]


def test_an_hour_is_the_longest_poll() -> None:
    feed.check_poll(3_600.0)
    with pytest.raises(InvalidEntryError):
        feed.check_poll(3_600.1)


@pytest.mark.parametrize(("method", "arguments", "said"), BAD)
async def test_bad_input_is_refused_before_anything_is_sent(
    method: str, arguments: dict[str, Any], said: str
) -> None:
    faults = Faults()
    catalog = faulty_catalog(MemoryCatalog(), faults)
    async with backend(catalog) as ltm:
        with pytest.raises(InvalidEntryError, match=said):
            await getattr(ltm, method)(**arguments)
    assert faults.steps == (["catalog.list_changes"] if said == "cursor is none" else [])


async def test_a_snapshot_says_what_it_is_of(world: World) -> None:
    async with backend(world.connect()) as ltm:
        await ltm.store("a", "x" * 10)
        await ltm.store("b", 1)
        made = await ltm.create_snapshot("first")
        assert (made.success, made.name) == (True, "first")
        # A catalog may leave them out.
        assert (made.entry_count, made.total_bytes) in [(2, 13), (None, None)]
        assert made.created_at == to_datetime(world.clock())


async def test_a_snapshot_that_is_not_there_is_bad_input(world: World) -> None:
    async with backend(world.connect(), on_unavailable="degrade") as ltm:
        for name in ("absent", "'; --", "../x"):
            with pytest.raises(InvalidEntryError, match="there is no such snapshot"):
                await ltm.get_changed_entries(name)


async def test_an_expired_watermark_raises_also_where_failures_degrade(world: World) -> None:
    async with backend(world.connect(), on_unavailable="degrade") as ltm:
        await ltm.store("k", 1)
        snapshot = await ltm.create_snapshot("old")
        await ltm.delete("k")
        world.clock.advance(8 * 86_400)
        await ltm.collect_garbage()
        with pytest.raises(WatermarkExpiredError, match="begin from the beginning"):
            await ltm.get_changed_entries(snapshot.id)
        with pytest.raises(WatermarkExpiredError):
            [change async for change in ltm.changes(snapshot.id, follow=True)]
        assert (await ltm.get_changed_entries()).changes == []


AHEAD = [
    write_cursor("v", 2**62),
    write_cursor("v", None, 2**62, 1, "k"),
    write_cursor("x", f"{10**17}:{10**17}:"),
    write_cursor("x", "1:1:", f"1:{10**17}:", "1", "k"),
    write_cursor("f", 10**16),
]


async def test_a_cursor_of_another_catalog_is_an_error(world: World) -> None:
    """It may be ahead of all that this one has, or of another kind."""
    raised: set[type[Exception]] = set()
    async with backend(world.connect()) as ltm:
        for cursor in AHEAD:
            with pytest.raises((InvalidEntryError, WatermarkExpiredError)) as caught:
                await ltm.get_changed_entries(cursor=cursor)
            raised.add(type(caught.value))
    assert raised == {InvalidEntryError, WatermarkExpiredError}


async def test_a_snapshot_whose_reply_is_lost_is_made_once() -> None:
    catalog, faults = MemoryCatalog(), Faults(at=0, mode=Mode.LOST_REPLY)
    async with backend(faulty_catalog(catalog, faults)) as ltm:
        made = await ltm.create_snapshot("n")
    assert faults.steps == ["catalog.create_snapshot"] * 2
    assert list(catalog._spaces[""].snapshots) == [made.id]


async def test_a_snapshot_that_was_deleted_is_none_to_begin_from(world: World) -> None:
    async with backend(world.connect()) as ltm:
        snapshot = await ltm.create_snapshot("n")
        assert snapshot.id is not None
        page = await ltm.get_changed_entries(snapshot.id)
        done = await ltm.delete_snapshot(snapshot.id)
        assert (done.id, done.deleted) == (snapshot.id, True)
        assert not (await ltm.delete_snapshot(snapshot.id)).deleted
        with pytest.raises(InvalidEntryError, match="there is no such snapshot"):
            await ltm.get_changed_entries(snapshot.id)
        assert (await ltm.get_changed_entries(cursor=page.cursor)).success


async def test_a_catalog_that_is_down_is_reported_and_followed_on() -> None:
    catalog = MemoryCatalog()
    down = Faults(at=0, mode=Mode.DOWN)
    async with backend(faulty_catalog(catalog, down), on_unavailable="degrade") as ltm:
        assert (await ltm.create_snapshot("n")).degraded
        assert (await ltm.delete_snapshot("n")).degraded
        page = await ltm.get_changed_entries()
        assert (page.degraded, page.changes, page.cursor) == (True, [], None)
        with pytest.raises(UnavailableError):
            [change async for change in ltm.changes()]
        await catalog.track_entry("", small("k"), write_id=new_write_id())
        seen: list[str] = []

        async def follow() -> None:
            async for change in ltm.changes(follow=True, poll=0.01):
                seen.append(change.key)  # noqa: PERF401  # it has no end

        following = asyncio.create_task(follow())
        steps = len(down.steps)
        await wait_for(lambda: len(down.steps) > steps + 5)
        down.at = None
        await wait_for(lambda: seen == ["k"])
        following.cancel()
    async with backend(faulty_catalog(catalog, Faults(at=0, mode=Mode.DOWN))) as ltm:
        with pytest.raises(UnavailableError):
            await anext(ltm.changes(follow=True))


async def test_a_damaged_row_hides_no_other(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "ltm.db")
    async with backend(SQLiteCatalog(path)) as ltm:
        await ltm.store_batch([{"key": key, "value": 1} for key in "abc"])

        def damage() -> None:
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("UPDATE ltm_entries SET metadata = '[]' WHERE key = 'b'")

        await asyncio.to_thread(damage)
        page = await ltm.get_changed_entries()
        assert [(change.kind, change.key) for change in page.changes] == [
            ("stored", "a"), ("damaged", "b"), ("stored", "c"),
        ]  # fmt: skip
        assert isinstance(page.exception, CorruptError)
        assert [change.kind async for change in ltm.changes()] == ["stored", "damaged", "stored"]


async def test_a_forged_snapshot_is_damage_and_not_the_callers_mistake(
    tmp_path: pathlib.Path,
) -> None:
    path = str(tmp_path / "ltm.db")
    async with backend(SQLiteCatalog(path)) as ltm:
        snapshot = await ltm.create_snapshot("n")

        def forge() -> None:
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("UPDATE ltm_snapshots SET watermark = 'x'' OR 1'")

        await asyncio.to_thread(forge)
        with pytest.raises(CorruptError, match="watermark"):
            await ltm.get_changed_entries(snapshot.id)


def test_blocking_code_iterates_too(tmp_path: pathlib.Path) -> None:
    with SyncLTMBackend("memory:", "memory:") as ltm:
        ltm.store("a", 1)
        snapshot = ltm.create_snapshot("n")
        ltm.store("b", 2, metadata={"x": 1})
        ltm.delete("a")
        found = list(ltm.changes(snapshot["id"]))
        assert [(change["kind"], change["key"]) for change in found] == [
            ("stored", "b"), ("deleted", "a"),
        ]  # fmt: skip
        assert found[0]["entry"]["metadata"] == {"x": 1}
        assert list(ltm.changes(cursor=found[-1]["cursor"])) == []
        following = ltm.changes(follow=True, poll=0.01)
        assert next(following)["key"] == "b"
        with pytest.raises(InvalidEntryError):
            ltm.changes(poll=0)


# SQLite


async def test_a_file_of_the_former_version_has_its_feed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "ltm.db")

    def prepare() -> None:
        with closing(sqlite3.connect(path)) as db:
            db.executescript(sqlite_database.MIGRATIONS[0] + "PRAGMA user_version = 1;")
            db.execute("UPDATE ltm_version SET last = 7")
            row = ("", "old", 3, "w", "sha256:0", 1, "1", None, "{}", None, 1, 1)
            db.execute(f"INSERT INTO ltm_entries VALUES ({', '.join('?' * 12)})", row)
            db.execute("INSERT INTO ltm_deletions VALUES ('', 'gone', 7, 'w', 1)")
            db.commit()

    await asyncio.to_thread(prepare)
    async with backend(SQLiteCatalog(path)) as ltm:
        page = await ltm.get_changed_entries()
        found = [(change.kind, change.key, change.version) for change in page.changes]
        assert found == [("stored", "old", 3), ("deleted", "gone", 7)]
        await ltm.store("new", 1)
        page = await ltm.get_changed_entries(cursor=page.cursor)
        assert [(change.key, change.version) for change in page.changes] == [("new", 8)]


# PostgreSQL


COMMIT = (
    "SELECT new_version FROM {}ltm_commit('', $1, $2, ARRAY['h'], ARRAY[1], ARRAY['1'], NULL, "
    "ARRAY['{{}}'], NULL, NULL, NULL, NULL, NULL)"
)


async def commit_by_hand(conn: asyncpg.Connection, database: Database, key: str) -> int:
    query = COMMIT.format(f"{database.schema}.")
    version = await conn.fetchval(query, new_write_id(), [key])
    assert isinstance(version, int)
    return version


@contextlib.asynccontextmanager
async def two_connections(
    database: Database,
) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    connections = [await asyncpg.connect(database.dsn) for _ in range(2)]
    yield connections[0], connections[1]
    for conn in connections:
        await conn.close()


async def keys_since(ltm: LTMBackend, cursor: str | None) -> tuple[dict[str, str], str]:
    page = await ltm.get_changed_entries(cursor=cursor)
    assert not page.more
    assert page.cursor is not None
    return {change.key: change.kind for change in page.changes}, page.cursor


async def test_what_took_its_version_early_and_committed_late_is_not_missed(
    database: Database,
) -> None:
    """A feed by versions, or by times, would be past it when it comes."""
    async with (
        two_connections(database) as (slow, quick),
        backend(PostgresCatalog(database.dsn, schema=database.schema)) as ltm,
    ):
        underway = slow.transaction()
        await underway.start()
        early = await commit_by_hand(slow, database, "late")
        assert await commit_by_hand(quick, database, "quick") > early
        found, cursor = await keys_since(ltm, None)
        assert found == {"quick": "stored"}
        snapshot = await ltm.create_snapshot("between")
        await underway.commit()
        assert (await keys_since(ltm, cursor))[0] == {"late": "stored"}
        page = await ltm.get_changed_entries(snapshot.id)
        assert [change.key for change in page.changes] == ["late"]


@pytest.mark.parametrize("behind", [False, True], ids=["passed", "ahead"])
async def test_what_is_committed_late_during_a_pass_is_in_the_next(
    database: Database, behind: bool
) -> None:
    """Whether or not the pass has gone by where it would have been."""
    async with (
        two_connections(database) as (slow, quick),
        backend(PostgresCatalog(database.dsn, schema=database.schema)) as ltm,
    ):
        if behind:
            await commit_by_hand(quick, database, "0")
        underway = slow.transaction()
        await underway.start()
        await commit_by_hand(slow, database, "late")
        for key in "abc":
            await commit_by_hand(quick, database, key)
        page = await ltm.get_changed_entries(limit=1)
        await underway.commit()
        first = {page.changes[0].key}
        while page.more:
            page = await ltm.get_changed_entries(cursor=page.cursor, limit=1)
            first |= {change.key for change in page.changes}
        assert first - {"0"} == {"a", "b", "c"}
        assert (await keys_since(ltm, page.cursor))[0] == {"late": "stored"}


async def test_a_key_stored_by_an_older_transaction_than_deleted_it_is_there(
    database: Database,
) -> None:
    async with (
        two_connections(database) as (older, _),
        backend(PostgresCatalog(database.dsn, schema=database.schema)) as ltm,
    ):
        await ltm.store("k", 1)
        _, cursor = await keys_since(ltm, None)
        underway = older.transaction()
        await underway.start()
        await older.fetchval("SELECT pg_current_xact_id()::text")
        await ltm.delete("k")
        await commit_by_hand(older, database, "k")
        await underway.commit()
        assert (await keys_since(ltm, cursor))[0] == {"k": "stored"}


async def test_rows_that_were_restored_from_another_cluster_are_an_error_until_installed_again(
    database: Database,
) -> None:
    async with backend(PostgresCatalog(database.dsn, schema=database.schema)) as ltm:
        await ltm.store("k", 1)
        _, cursor = await keys_since(ltm, None)
        database.run("UPDATE {}ltm_entries SET changed_by = '123456789012345'")
        for since in (cursor, None):
            with pytest.raises(StoreError, match="ltm schema postgres"):
                await ltm.get_changed_entries(cursor=since)
        script = await asyncio.to_thread(postgres_script, database.schema)
        database.run(script[: script.index("CREATE OR REPLACE")])  # the clock of tests stays
        for since in (cursor, None):
            assert (await keys_since(ltm, since))[0] == {"k": "stored"}


async def test_a_schema_of_the_former_version_has_its_feed(database: Database) -> None:
    catalog = PostgresCatalog(database.dsn, schema=database.schema)
    await catalog.track_entry("", small("old"), write_id=new_write_id())
    await catalog.track_entry("", small("gone"), write_id=new_write_id())
    await catalog.delete_entry("", "gone", write_id=new_write_id())
    database.run(
        "ALTER TABLE {}ltm_entries DROP COLUMN changed_by; ALTER TABLE {}ltm_deletions "
        "DROP COLUMN changed_by, DROP COLUMN expired; DROP TABLE {}ltm_pruned, {}ltm_snapshots"
    )
    script = await asyncio.to_thread(postgres_script, database.schema)
    database.run(script[: script.index("CREATE OR REPLACE")])
    async with backend(catalog) as ltm:
        found, cursor = await keys_since(ltm, None)
        assert found == {"old": "stored", "gone": "deleted"}
        await ltm.store("new", 1)
        assert (await keys_since(ltm, cursor))[0] == {"new": "stored"}


# Firestore


async def test_a_commit_that_was_a_minute_under_way_is_not_missed(
    firestore_server: Firestore,
) -> None:
    """The server enters when it was asked, which may be that much before others can see it."""
    catalog = FirestoreCatalog(new_project())
    async with backend(catalog) as ltm:
        await ltm.store("k", 1)
        page = await ltm.get_changed_entries()
        again = await ltm.get_changed_entries(cursor=page.cursor)
        assert [change.key for change in again.changes] == ["k"]
        assert MARGIN_US >= 60_000_000
        found = [change.key async for change in ltm.changes()]
        assert found == ["k"]


async def test_whatever_changes_a_document_has_the_server_enter_its_time(
    firestore_server: Firestore, transport: str
) -> None:
    project = new_project()
    catalog = FirestoreCatalog(project, transport=transport)

    async def changed_ns(collection: str) -> int:
        documents = await catalog._documents()
        found = await documents.read({collection: [entry_name("", "k")]})
        (document,) = found.documents.values()
        return layout.changed_ns(document, layout.space_of(""))

    async with backend(catalog) as ltm:
        seen = [0]
        await ltm.store("k", 1)
        for change in (
            lambda: ltm.store("k", 2),
            lambda: ltm.touch("k", ttl=5),
            lambda: ltm.store("k", 2),
        ):
            seen.append(await changed_ns("ltm_entries"))
            await asyncio.sleep(0.002)  # it counts milliseconds
            await change()
        seen.append(await changed_ns("ltm_entries"))
        await asyncio.sleep(0.002)
        await ltm.delete("k")
        seen.append(await changed_ns("ltm_deletions"))
    assert seen == sorted(set(seen))


async def test_entries_of_before_the_feed_are_in_the_first_pass(
    firestore_server: Firestore,
) -> None:
    project = new_project()
    async with backend(FirestoreCatalog(project)) as ltm:
        await ltm.store_batch([{"key": key, "value": 1} for key in "abc"])
        client = AsyncClient(project=project)
        old = client.collection("ltm_entries").document(entry_name("", "b"))
        await old.update({"changed": DELETE_FIELD})
        await client._firestore_api.transport.close()
        page = await ltm.get_changed_entries(limit=2)
        assert [change.key for change in page.changes] == ["a", "b"]
        await ltm.touch("b", metadata={"new": True})
        found, _ = await keys_since(ltm, (await ltm.get_changed_entries(cursor=page.cursor)).cursor)
        assert found["b"] == "stored"


@pytest.mark.parametrize("others", [0, 500])
async def test_a_look_at_nothing_new_costs_a_few_reads(
    firestore_server: Firestore, others: int
) -> None:
    """Of its own namespace alone, however much others change."""
    project = new_project()
    if others:
        async with backend(FirestoreCatalog(project), namespace="other") as ltm:
            await ltm.store_batch([{"key": f"k{n}", "value": n} for n in range(others)])
    catalog = FirestoreCatalog(project)
    async with backend(catalog) as ltm:
        page = await ltm.get_changed_entries()
        before = catalog.usage.requests, catalog.usage.reads
        assert (await ltm.get_changed_entries(cursor=page.cursor)).changes == []
        after = catalog.usage.requests, catalog.usage.reads
        assert (after[0] - before[0], after[1] - before[1]) == (3, 3)
