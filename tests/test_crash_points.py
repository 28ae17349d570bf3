"""Every operation, stopped at each of its steps in each way, and recovered from.

``LTM_CRASH_REPORT=path`` keeps the table of what was tried; ``pytest -s`` shows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from ltm_async.errors import OutcomeUnknownError
from ltm_async.testing import Faults, ManualClock, Mode

from .crash import buckets
from .crash.child import LOGGED, STORES, Children, Job, logged_store
from .crash.invariants import (
    Fresh,
    Look,
    check_agreement,
    check_recovery,
    check_rest,
    look_at,
    opened,
)
from .crash.operations import (
    AGAIN,
    BY_NAME,
    ONCE,
    OPERATIONS,
    Attempt,
    BucketPlace,
    Files,
    InMemory,
    OnServers,
    Operation,
    Pair,
    Places,
    ProjectPlace,
    Told,
    attempt,
    large,
    prepare,
)
from .databases import Console, Database
from .projects import Project
from .servers.firestore import Firestore, new_project, raw_documents, write_raw
from .servers.postgres import Postgres
from .servers.postgrest import PostgREST

KILLS = (Mode.KILL_BEFORE.value, Mode.KILL_AFTER.value)
CANCELS = (Mode.CANCEL_BEFORE.value, Mode.CANCEL_AFTER.value)
LOST_REQUEST = "lost request"
"""The outcome is unknown to the caller, as after a lost reply, but there was no effect."""
MODES = (LOST_REQUEST, *(mode.value for mode in Mode))
FEWER = (
    MODES
    if os.environ.get("LTM_CRASH_MODES") == "all"
    else (Mode.LOST_REPLY.value, Mode.CANCEL_AFTER.value, Mode.KILL_AFTER.value)
)
"""On stores that take long: those that leave most behind, unless all are asked for."""
SLOW = FEWER if FEWER is MODES else (Mode.KILL_AFTER.value,)
"""On stores that have been tried with others: a catalog, or blobs, with slow ones."""
IN_PROCESS = tuple(mode for mode in MODES if mode not in KILLS)


class Setting(NamedTuple):
    """On what, and how, operations are broken."""

    name: str
    modes: Sequence[str]
    retries: bool
    stores: str = "files"
    """``files``, ``memory`` or a pair with a server."""
    reply_lost: bool = False
    """One step loses its reply, and then each step that follows is broken as well."""


SETTINGS = (
    Setting("files", MODES, retries=False),
    Setting("files, retries", IN_PROCESS, retries=True),
    Setting("files, reply lost", MODES, retries=False, reply_lost=True),
    Setting("files, retries, reply lost", MODES, retries=True, reply_lost=True),
    Setting("memory", IN_PROCESS, retries=False, stores="memory"),
    Setting("memory, retries", IN_PROCESS, retries=True, stores="memory"),
    Setting("postgres+local", MODES, retries=False, stores="postgres+local"),
    Setting("postgres+local, retries", IN_PROCESS, retries=True, stores="postgres+local"),
    Setting("postgres+s3", SLOW, retries=False, stores="postgres+s3"),
    Setting("supabase+local", FEWER, retries=False, stores="supabase+local"),
    Setting("supabase+s3", SLOW, retries=False, stores="supabase+s3"),
    Setting("firestore+local", SLOW, retries=False, stores="firestore+local"),
    Setting("firestore+gcs", FEWER, retries=False, stores="firestore+gcs"),
    Setting("sqlite+azure", SLOW, retries=False, stores="sqlite+azure"),
)


class Step(NamedTuple):
    operation: str
    lost: str
    """The step that lost its reply before, or nothing."""
    name: str


class Cell(NamedTuple):
    step: Step
    mode: str


class LostRequest(Faults):
    """One step never takes effect, and the caller hears that its outcome is unknown."""

    async def _before(self, name: str) -> None:
        raise OutcomeUnknownError(f"{name} was lost on its way in a test", store="faults")


class LostReply(Faults):
    """One step loses its reply."""

    begun = 0
    """The steps that had begun by then."""

    def __init__(self, at: int) -> None:
        super().__init__(at=at, mode=Mode.LOST_REPLY)

    async def _after(self, name: str) -> None:
        self.begun = len(self.steps)
        await super()._after(name)


class Row(NamedTuple):
    """What was tried with one operation in one setting: the cells that held, and those that not."""

    held: list[Cell]
    broken: list[tuple[Cell, str]]


class Scene(Protocol):
    """One prepared state, and what can be seen in it."""

    now_us: int
    look: Look

    def copy(self) -> contextlib.AbstractContextManager[Pair]:
        """The stores in that state, for one run."""
        ...


class MemoryScene(Scene):
    @contextlib.contextmanager
    def copy(self) -> Iterator[Pair]:
        clock = ManualClock()
        pair = InMemory(clock)
        asyncio.run(prepare(pair, clock))
        self.look, self.now_us = look_at(pair), clock()
        yield pair


class ServerScene(Scene):
    """A template on servers, of which each run gets a copy."""

    def __init__(
        self, folder: Path, stores: str, rows: Rows, server: buckets.Server | None
    ) -> None:
        self._folder = folder
        self._stores = stores
        self._rows = rows
        self._server = server
        self._numbers = itertools.count()
        template = OnServers(self._places("template", rows.template))
        clock = rows.clock()
        asyncio.run(prepare(template, clock))
        rows.keep()
        self.now_us = clock()
        self._objects = buckets.objects(template.places)

    @contextlib.contextmanager
    def copy(self) -> Iterator[Pair]:
        places = self._places(str(next(self._numbers)), self._rows.copied())
        if self._server is None:
            shutil.copytree(self._folder / "template", places.folder)
        else:
            buckets.fill(BucketPlace(*places.bucket), self._objects)
        pair = OnServers(places)
        self.look = look_at(pair)  # versions may be times, so each copy may have its own
        yield pair
        shutil.rmtree(places.folder, ignore_errors=True)

    def _places(self, name: str, catalog: Sequence[Any]) -> Places:
        bucket = () if self._server is None else self._server.place()
        return Places(self._stores, str(self._folder / name), catalog, bucket)


class Rows(Protocol):
    """The rows of a template, and copies of them."""

    template: Sequence[Any]

    def clock(self) -> ManualClock: ...

    def keep(self) -> None:
        """The template is filled."""
        return

    def copied(self) -> Sequence[Any]:
        """The place of a copy."""
        ...


class PostgresRows(Rows):
    """In one schema, copied into another."""

    def __init__(self, server: Postgres, console: Console) -> None:
        self._template, self._used = (Database(server, console) for _ in range(2))
        self.template = self._template.place

    def clock(self) -> ManualClock:
        return self._template.clock_at(None)

    def copied(self) -> Sequence[Any]:
        self._used.fill_from(self._template)
        return self._used.place


class SupabaseRows(Rows):
    """The same behind PostgREST."""

    def __init__(self, api: PostgREST, console: Console) -> None:
        self._template, self._used = (Project(api, console) for _ in range(2))
        self.template = self._template.rest_place

    def clock(self) -> ManualClock:
        return self._template.clock_at(None)

    def copied(self) -> Sequence[Any]:
        self._used.fill_from(self._template)
        return self._used.rest_place


class FirestoreRows(Rows):
    """In one project, copied into a new one."""

    def __init__(self, server: Firestore) -> None:
        self._host = server.host
        self.template = ProjectPlace(server.host, new_project())

    def clock(self) -> ManualClock:
        return ManualClock()

    def keep(self) -> None:
        self._documents = {
            collection: raw_documents(*self.template, collection)
            for collection in ("ltm_entries", "ltm_blobs", "ltm_deletions")
        }

    def copied(self) -> Sequence[Any]:
        project = new_project()
        for collection, documents in self._documents.items():
            write_raw(self._host, project, collection, documents)
        return ProjectPlace(self._host, project)


class SQLiteRows(Rows):
    """In one file, copied into another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.template = [str(folder / "template.db")]

    def clock(self) -> ManualClock:
        return ManualClock()

    def copied(self) -> Sequence[Any]:
        path = self._folder / f"{next(self._numbers)}.db"
        shutil.copyfile(self.template[0], path)
        return [str(path)]


class FileScene(Scene):
    """Copies of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._template = Files(folder / "template")
        self._template.folder.mkdir()
        clock = ManualClock()
        asyncio.run(prepare(self._template, clock))
        self.now_us = clock()
        self.look = look_at(self._template)

    @contextlib.contextmanager
    def copy(self) -> Iterator[Files]:
        with self.folder() as folder:
            shutil.copytree(self._template.folder, folder, dirs_exist_ok=True)
            yield Files(folder)

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> FileScene:
    return FileScene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="session")
def scene_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Scene]:
    """The scene of a setting's stores, prepared when first asked for."""
    made: dict[str, Scene] = {}

    def make(stores: str) -> Scene:
        if stores == "files":
            scene: Scene = request.getfixturevalue("scene")
            return scene
        of_catalog, of_blobs = stores.split("+")
        folder = tmp_path_factory.mktemp("scene")
        rows: Rows
        if of_catalog == "sqlite":
            rows = SQLiteRows(folder)
        elif of_catalog == "postgres":
            server = request.getfixturevalue("postgres_server")
            rows = PostgresRows(server, request.getfixturevalue("console"))
        elif of_catalog == "supabase":
            api = request.getfixturevalue("supabase_server")
            rows = SupabaseRows(api, request.getfixturevalue("console"))
        else:
            rows = FirestoreRows(request.getfixturevalue("firestore_server"))
        if of_blobs == "s3":
            buckets.known["s3"] = buckets.S3Buckets(request.getfixturevalue("s3_server"))
        elif of_blobs == "gcs":
            buckets.known["gs"] = buckets.GcsBuckets(request.getfixturevalue("gcs_server"))
        elif of_blobs == "azure":
            buckets.known["az"] = buckets.AzureContainers(request.getfixturevalue("azure_server"))
        scheme = {"s3": "s3", "gcs": "gs", "azure": "az"}.get(of_blobs)
        return ServerScene(folder, stores, rows, buckets.known[scheme] if scheme else None)

    def find(stores: str) -> Scene:
        if stores == "memory":
            return MemoryScene()
        if stores not in made:
            made[stores] = make(stores)
        return made[stores]

    return find


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    with Children() as running:
        yield running


class Matrix:
    """The rows of all cells, each run once however many tests and test processes ask for it."""

    def __init__(self, folder: Path, scene_of: Callable[[str], Scene], children: Children) -> None:
        self._folder = folder
        self._scene_of = scene_of
        self._children = children

    def row(self, operation: Operation, setting: Setting) -> Row:
        kept = self._folder / f"{operation.name}, {setting.name}.json"
        try:
            kept.with_suffix(".claimed").touch(exist_ok=False)
        except FileExistsError:
            return _load(kept)
        row = Row([], [])
        try:
            self._fill(row, operation, setting)
        except BaseException as exc:
            row.broken.append((Cell(Step(operation.name, "", ""), ""), repr(exc)))
            raise
        finally:
            _keep(kept, row)
        return row

    def _fill(self, row: Row, operation: Operation, setting: Setting) -> None:
        whole = self._run(operation, setting, [Faults()])
        assert whole.told is Told.DONE
        if not setting.reply_lost:
            self._break_each(row, operation, setting, whole.steps, range(len(whole.steps)))
            return
        for lost_at in range(len(whole.steps)):
            lost = LostReply(lost_at)
            longer = self._run(operation, setting, [lost, Faults()])
            # What ran beside it is cancelled by the failure, where nothing is tried again.
            later = range(lost_at + 1 if setting.retries else lost.begun, len(longer.steps))
            self._break_each(row, operation, setting, longer.steps, later, lost_at)

    def _break_each(
        self,
        row: Row,
        operation: Operation,
        setting: Setting,
        steps: Sequence[str],
        numbers: Sequence[int],
        lost_at: int | None = None,
    ) -> None:
        names = [f"{number} {name}" for number, name in enumerate(steps)]
        lost = "" if lost_at is None else names[lost_at]
        for mode, at in itertools.product(setting.modes, numbers):
            cell = Cell(Step(operation.name, lost, names[at]), mode)
            try:
                self._break(operation, setting, at, mode, lost_at)
                row.held.append(cell)
            except AssertionError as exc:
                row.broken.append((cell, str(exc)))

    def _break(
        self, operation: Operation, setting: Setting, at: int, mode: str, lost_at: int | None
    ) -> None:
        if mode in KILLS:
            self._kill(operation, setting, at, mode, lost_at)
            return
        fault = LostRequest(at=at) if mode == LOST_REQUEST else Faults(at=at, mode=Mode(mode))
        faults = [fault] if lost_at is None else [LostReply(lost_at), fault]
        ended = self._run(operation, setting, faults)
        assert fault.reached, "the step was not reached"
        if mode in CANCELS:
            assert ended.told is Told.CANCELLED, f"cancelled, and told {ended.told.value}"
        elif setting.retries and lost_at is None and _is_made_up_for(operation, mode, ended):
            assert ended.told is Told.DONE, f"{mode} once, and told {ended.told.value}"

    def _run(self, operation: Operation, setting: Setting, faults: Sequence[Faults]) -> Attempt:
        retry = AGAIN if setting.retries else ONCE
        scene = self._scene_of(setting.stores)
        with scene.copy() as pair:
            ended = asyncio.run(attempt(pair, operation, faults, scene.now_us, retry))
            check_recovery(pair, scene.look, operation, ended, scene.now_us)
        return ended

    def _kill(
        self, operation: Operation, setting: Setting, at: int, mode: str, lost_at: int | None
    ) -> None:
        scene = self._scene_of(setting.stores)
        with scene.copy() as pair:
            assert isinstance(pair, Files | OnServers)
            job = Job(
                operation=operation.name,
                folder=str(pair.folder) if isinstance(pair, Files) else "",
                now_us=scene.now_us,
                at=at,
                mode=mode,
                lost_at=lost_at,
                retries=setting.retries,
                places=() if isinstance(pair, Files) else pair.places,
            )
            assert self._children.run(job).killed, "the step was not reached"
            _check_killed(scene, pair, operation)


def _is_made_up_for(operation: Operation, mode: str, ended: Attempt) -> bool:
    """Trying again, or settling it by the blobs' reservations, leads to success."""
    if mode == LOST_REQUEST:
        return "blobs.put" in ended.steps
    if mode == Mode.LOST_REPLY.value:
        return not operation.keeps_house
    return mode == Mode.ERROR.value


def _check_killed(scene: Scene, pair: Pair, operation: Operation) -> None:
    check_recovery(pair, scene.look, operation, Attempt(Told.KILLED), scene.now_us)


def _keep(path: Path, row: Row) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(row))
    aside.rename(path)


def _load(path: Path) -> Row:
    """A row that another test has run, or is running."""
    give_up = time.monotonic() + 50
    while not path.exists():
        assert time.monotonic() < give_up, f"nobody finished {path.stem}"
        time.sleep(0.02)
    held, broken = json.loads(path.read_text())
    return Row(list(map(_cell, held)), [(_cell(cell), why) for cell, why in broken])


def _cell(loaded: tuple[tuple[str, str, str], str]) -> Cell:
    step, mode = loaded
    return Cell(Step(*step), mode)


@pytest.fixture(scope="session")
def matrix(
    tmp_path_factory: pytest.TempPathFactory,
    scene_of: Callable[[str], Scene],
    children: Children,
) -> Matrix:
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, in one that they share.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "crash-matrix"
    folder.mkdir(exist_ok=True)
    return Matrix(folder, scene_of, children)


def _named(param: Operation | Setting) -> str:
    return param.name


@pytest.mark.parametrize("setting", SETTINGS, ids=_named)
@pytest.mark.parametrize("operation", OPERATIONS, ids=_named)
def test_an_operation_stopped_at_any_step_leaves_the_old_or_the_new(
    operation: Operation, setting: Setting, matrix: Matrix
) -> None:
    assert matrix.row(operation, setting).broken == []


@pytest.mark.timeout(300)
def test_no_cell_of_operation_and_step_and_mode_is_empty(matrix: Matrix) -> None:
    rows = [matrix.row(operation, setting) for operation in OPERATIONS for setting in SETTINGS]
    held = Counter(cell for row in rows for cell in row.held)
    table = _table(held)
    sys.stdout.write(table)
    if path := os.environ.get("LTM_CRASH_REPORT"):
        Path(path).write_text(table)

    assert {cell.step.operation for cell in held} == set(BY_NAME)
    steps = {cell.step for row in rows for cell in [*row.held, *dict(row.broken)]}
    cells = (Cell(step, mode) for step in sorted(steps) for mode in MODES)
    assert [cell for cell in cells if not held[cell]] == []


def _table(held: Counter[Cell]) -> str:
    """How often each cell held, a line for each step."""
    lines = {"operation: step": list(MODES)}
    steps = {cell.step: None for cell in held}
    for step in sorted(steps, key=lambda step: step.lost != ""):
        title = f"{step.operation}: {step.name}" + (step.lost and f", after {step.lost} was lost")
        lines[title] = [str(held[Cell(step, mode)]) for mode in MODES]
    width = max(map(len, lines))
    text = [
        f"{title:<{width}}" + "".join(f"  {count:>17}" for count in counts)
        for title, counts in lines.items()
    ]
    after_loss = sum(count for cell, count in held.items() if cell.step.lost)
    text.append(
        f"{held.total()} runs held in {len(held)} cells, {after_loss} of them after a lost reply"
    )
    return "\n" + "\n".join(text) + "\n"


@pytest.mark.parametrize(
    ("trap", "every", "least", "name"),
    [
        ("file event", 1, 4, "store large"),
        ("file event", 1, 12, "batch of five"),
        ("file event", 1, 1, "delete large"),
        ("file event", 1, 2, "cleanup"),
        ("file event", 1, 4, "collect with audit"),
        ("line", 3, 60, "large over large"),
        ("line", 3, 60, "batch of five"),
        ("line", 3, 30, "delete large"),
        ("line", 3, 60, "cleanup"),
    ],
)
def test_a_process_killed_inside_an_adapter_leaves_the_old_or_the_new(
    trap: str, every: int, least: int, name: str, scene: FileScene, children: Children
) -> None:
    """Before each file operation, and every third line of the adapters, until a run completes."""
    for at in itertools.count(0, every):
        with scene.copy() as files:
            job = Job(
                operation=name, folder=str(files.folder), now_us=scene.now_us, at=at, trap=trap
            )
            killed = children.run(job).killed
            if not killed:
                break
            _check_killed(scene, files, BY_NAME[name])
    assert at >= least


@pytest.mark.parametrize("start", [0, 2])
def test_a_process_killed_during_its_first_store_leaves_stores_that_open(
    start: int, scene: FileScene, children: Children
) -> None:
    """Anywhere in making the schema, the folder and the first row: before every other line."""
    for at in itertools.count(start, 4):
        with scene.folder() as folder:
            job = Job(
                operation="store large",
                folder=str(folder),
                now_us=scene.now_us,
                at=at,
                trap="line",
            )
            if not children.run(job).killed:
                break
            _check_first_store(Files(folder), scene.now_us)
    assert at > 100


def _check_first_store(files: Files, now_us: int) -> None:
    with opened(files, now_us) as fresh:
        found = fresh.loop.run(fresh.ltm.retrieve("new large"))
        stored = BY_NAME["store large"].stores["new large"].value
        assert found.value == (stored if found.found else None)
        assert fresh.loop.run(fresh.ltm.verify()).sound
        check_agreement(look_at(files))
        fresh.loop.run(fresh.ltm.store("new large", large("after the kill")))
        check_rest(files, fresh, killed=True)
        value = fresh.loop.run(fresh.ltm.retrieve("new large")).value
        assert value == large("after the kill")


LOG_HEADER = 32
FRAME = 24 + 4096


@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_a_torn_log_loses_the_stores_behind_the_tear_and_no_other(
    damage: str, scene: FileScene, children: Children
) -> None:
    with scene.copy() as killed:
        verdict = children.run(
            Job(operation=LOGGED, folder=str(killed.folder), now_us=scene.now_us)
        )
        assert verdict.killed
        ends: list[int] = verdict.said
        assert len(ends) == STORES
        log = Path(f"{killed.catalog_path}-wal").read_bytes()
        assert len(log) == ends[-1]
        assert (len(log) - LOG_HEADER) % FRAME == 0
        for frame in range((ends[-4] - LOG_HEADER) // FRAME, (len(log) - LOG_HEADER) // FRAME):
            start = LOG_HEADER + frame * FRAME
            for offset in (start, start + 1, start + 24, start + 2000, start + FRAME - 1):
                with scene.folder() as folder:
                    shutil.copytree(killed.folder, folder, dirs_exist_ok=True)
                    torn = Files(folder)
                    Path(f"{torn.catalog_path}-shm").unlink()
                    rest = b"" if damage == "cut" else bytes(len(log) - offset)
                    Path(f"{torn.catalog_path}-wal").write_bytes(log[:offset] + rest)
                    _check_torn(torn, [end for end in ends if end <= offset], scene.now_us)


def _check_torn(files: Files, intact: Sequence[int], now_us: int) -> None:
    expected = dict(logged_store(number) for number in range(len(intact)))
    with opened(files, now_us) as fresh:
        _check_values(fresh, expected)
        check_agreement(look_at(files))
        check_rest(files, fresh, killed=True, reservations_lost=True)
        _check_values(fresh, expected)


def _check_values(fresh: Fresh, expected: dict[str, object]) -> None:
    found = fresh.loop.run(fresh.ltm.retrieve_batch(["key 0", "key 1"]))
    assert found.errors == {}
    assert {key: result.value for key, result in found.results.items()} == expected
    assert fresh.loop.run(fresh.ltm.verify()).sound
