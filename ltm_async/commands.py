"""The commands of ``ltm``, in Typer and Rich; see :mod:`ltm_async.cli` for how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import inspect
import io
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar, cast, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import doctor as doctors
from . import jsonl
from .backend import LTMBackend
from .errors import InvalidEntryError, LTMError
from .jsonl import Channel, to_iso
from .results import Result, VerifyResult

T = TypeVar("T")

PAGE = 500
MAX_INPUT_BYTES = 4 * jsonl.MAX_LINE_BYTES

UsageError: type[Exception] = typer.BadParameter.__mro__[1]

EPILOG = (
    "Exit codes: 0 done; 1 no such key (get, delete), or verify or doctor found problems; "
    "2 wrong usage or bad input; 3 a store failed; 4 conflict (--if-version, --if-absent); "
    "130 interrupted; 141 whoever read the output has stopped."
)


@dataclasses.dataclass(slots=True)
class Session:
    """What one run of ``ltm`` has been told, and its ways to the outside."""

    catalog: str | None = None
    storage: str | None = None
    namespace: str | None = None
    timeout: float | None = None

    @contextlib.asynccontextmanager
    async def memory(self, *, patient: bool = False) -> AsyncIterator[LTMBackend]:
        """The memory that is meant; calls that read all of it are *patient*."""
        if self.catalog is None:
            raise UsageError("no catalog: --catalog or LTM_CATALOG, as sqlite:///memory.db")
        if self.storage is None:
            raise UsageError("no storage: --storage or LTM_STORAGE, such as ./blobs")
        limits: dict[str, Any] = {}
        if self.timeout is not None or patient:
            limits["timeout"] = self.timeout
        ltm = LTMBackend(
            self.catalog,
            self.storage,
            namespace=self.namespace or "",
            on_unavailable="raise",
            **limits,
        )
        try:
            yield ltm  # opened by its first call, so that bad input makes no file
        finally:
            await ltm.aclose()

    def call(
        self, work: Callable[[LTMBackend], Coroutine[Any, Any, T]], *, patient: bool = False
    ) -> T:
        async def run() -> T:
            async with self.memory(patient=patient) as ltm:
                return await work(ltm)

        return asyncio.run(run())

    def hide(self, text: str) -> str:
        return doctors.Hider(self.catalog, self.storage)(text)


def say(text: str) -> None:
    sys.stderr.write(f"ltm: {text}\n")


def emit(result: object) -> None:
    sys.stdout.write(to_text(result) + "\n")


def to_text(result: object) -> str:
    """JSON in one line, as people read it where the terminal can show it and is not fooled."""
    text = json.dumps(_plain(result), ensure_ascii=False)
    if text.isprintable():
        with contextlib.suppress(UnicodeEncodeError):
            text.encode(sys.stdout.encoding or "utf-8")
            return text
    return json.dumps(_plain(result), ensure_ascii=True)


def _plain(result: object) -> object:
    if isinstance(result, Result):
        fields = result.to_dict()
        if result.exception is None:
            for name in ("degraded", "error", "error_type"):
                del fields[name]
        return _plain(fields)
    if isinstance(result, datetime):
        return to_iso(result)
    if isinstance(result, Mapping):
        return {name: _plain(value) for name, value in result.items()}
    if isinstance(result, (list, tuple)):
        return [_plain(item) for item in result]
    return result


@contextlib.contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else nothing; moved by as much as is done."""
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda _count: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


# How commands are made

CatalogOption = Annotated[
    str | None, typer.Option(help="The catalog, such as sqlite:///memory.db; else LTM_CATALOG.")
]
StorageOption = Annotated[
    str | None, typer.Option(help="The blob store, such as ./blobs; else LTM_STORAGE.")
]
NamespaceOption = Annotated[
    str | None, typer.Option(help="The part of the memory to use; else LTM_NAMESPACE, else ''.")
]
TimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds for each call; else 30, and no limit for verify, gc.")
]
SHARED: Mapping[str, object] = {
    "catalog": CatalogOption,
    "storage": StorageOption,
    "namespace": NamespaceOption,
    "timeout": TimeoutOption,
}

app = typer.Typer(
    help="Long-term memory for agents: JSON on stdout, words on stderr. The options below may "
    "come before or after the command.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def invoke(session: Session, argv: Sequence[str]) -> int:
    """Do what *argv* says and return the exit code.

    Typer's own ``main`` is passed by: it turns some exceptions into exit codes of its own.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("ltm", list(argv), obj=session) as ctx:
            return int(command.invoke(ctx) or 0)
    except typer.Exit as exc:
        return exc.exit_code


@app.callback()
def _before(
    ctx: typer.Context,
    catalog: CatalogOption = None,
    storage: StorageOption = None,
    namespace: NamespaceOption = None,
    timeout: TimeoutOption = None,
) -> None:
    session = cast("Session", ctx.obj)
    session.catalog = catalog or os.environ.get("LTM_CATALOG") or None
    session.storage = storage or os.environ.get("LTM_STORAGE") or None
    session.namespace = os.environ.get("LTM_NAMESPACE") if namespace is None else namespace
    session.timeout = timeout


def command(name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a function of the session and its own options a command, with the shared options."""

    def register(do: Callable[..., int]) -> Callable[..., int]:
        hints = get_type_hints(do, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in list(inspect.signature(do).parameters.values())[1:]
        ]
        context = inspect.Parameter(
            "ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
        )
        shared = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
            for option, annotation in SHARED.items()
        ]

        def run(ctx: typer.Context, **given: Any) -> int:
            if ctx.args:  # the parser would repeat them, and they may be a value
                raise UsageError("too many arguments: a VALUE with spaces needs quotes")
            for option in SHARED:
                if (value := given.pop(option)) is not None:
                    setattr(ctx.obj, option, value)
            return do(ctx.obj, **given)

        parameters = [context, *own, *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        settings = {"allow_extra_args": True}
        app.command(name, help=inspect.getdoc(do), context_settings=settings)(run)
        return do

    return register


KeyArgument = Annotated[str, typer.Argument(metavar="KEY", show_default=False)]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Report what is bad, and go on.")]
IfVersion = Annotated[
    int | None, typer.Option(min=1, help="Only over the live entry with this version.")
]


# One entry


@command("store")
def store(
    session: Session,
    key: KeyArgument,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE|-]", help="JSON; - reads it from stdin.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="VALUE is plain text, not JSON.")] = False,
    file: Annotated[Path | None, typer.Option(help="Read the value from this file.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds until it expires.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object.")] = None,
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Only where there is no live entry.")
    ] = False,
    if_version: IfVersion = None,
) -> int:
    """Store a value under a key, replacing what was there."""
    given = _value_given(value, file)
    parsed = _as_text(given) if text else _as_json("VALUE", given)
    more = None if metadata is None else _as_json("--metadata", metadata.encode(errors="replace"))
    emit(
        session.call(
            lambda ltm: ltm.store(
                key,
                parsed,
                metadata=more,
                ttl=ttl,
                if_absent=if_absent,
                if_version=if_version,
            )
        )
    )
    return 0


def _value_given(value: str | None, file: Path | None) -> bytes:
    if (value is None) == (file is None):
        raise UsageError("give one of VALUE, - for stdin, and --file PATH")
    if file is not None:
        try:
            with file.open("rb") as opened:
                return _limited(opened)
        except OSError as exc:
            raise UsageError(f"--file cannot be read: {exc.strerror}") from None
    if value == "-":
        return _limited(sys.stdin.buffer)
    return cast("str", value).encode(errors="surrogateescape")


def _limited(file: BinaryIO) -> bytes:
    data = file.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"the input has more than {MAX_INPUT_BYTES} bytes")
    return data


def _as_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("the text is not UTF-8") from None


def _as_json(what: str, data: bytes) -> Any:
    try:
        return jsonl.parse_json(data)
    except InvalidEntryError as exc:
        hint = "; plain text needs --text" if what == "VALUE" else ""
        raise UsageError(f"{what} is {exc}{hint}") from None


@command("get")
def get(
    session: Session,
    key: KeyArgument,
    full: Annotated[
        bool, typer.Option("--full", help="Print all that is known of it, not the value alone.")
    ] = False,
) -> int:
    """Print the value under a key as JSON."""
    hit = session.call(lambda ltm: ltm.retrieve(key))
    if full:
        emit(hit)
    elif hit.found:
        emit(hit.value)
    return 0 if hit.found else _no_such_key()


@command("delete")
def delete(session: Session, key: KeyArgument, if_version: IfVersion = None) -> int:
    """Delete the entry under a key."""
    done = session.call(lambda ltm: ltm.delete(key, if_version=if_version))
    emit(done)
    return 0 if done.deleted else _no_such_key()


def _no_such_key() -> int:
    say("no such key")
    return 1


# Many entries


@command("list")
def list_(
    session: Session,
    prefix: Annotated[str, typer.Argument(help="What the keys start with; no pattern.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; else all.")] = None,
    after: Annotated[str | None, typer.Option(help="Only keys above this one.")] = None,
) -> int:
    """Print entries by key, one a line, without values."""

    async def pages(ltm: LTMBackend) -> None:
        cursor, left = after, limit
        async with _output(_stdout()) as out:
            while left is None or left > 0:
                size = PAGE if left is None else min(PAGE, left)
                page = await ltm.list_entries(prefix, cursor=cursor, limit=size)
                lines = [to_text(entry.to_dict()) + "\n" for entry in page.entries]
                await out.write("".join(lines).encode(sys.stdout.encoding or "utf-8"))
                left = None if left is None else left - size
                if (cursor := page.cursor) is None:
                    return

    session.call(pages)
    return 0


@command("stats")
def stats(session: Session) -> int:
    """Count the entries and blobs of the namespace."""
    emit(session.call(lambda ltm: ltm.stats()))
    return 0


# Keeping house


@command("cleanup")
def cleanup(
    session: Session,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; else all.")] = None,
) -> int:
    """Delete expired entries, and their blobs."""

    async def clean_up(ltm: LTMBackend) -> dict[str, Any]:
        deleted = blobs_deleted = 0
        errors: list[str] = []
        expired = (await ltm.stats()).expired if sys.stderr.isatty() else None
        with progress("cleaning up", expired) as advance:
            while limit is None or deleted < limit:
                page = PAGE if limit is None else min(PAGE, limit - deleted)
                done = await ltm.cleanup_expired(page)
                deleted += done.deleted
                blobs_deleted += done.blobs_deleted
                errors += done.errors
                advance(done.deleted)
                if done.deleted < page:
                    break
        return {
            "success": True,
            "deleted": deleted,
            "blobs_deleted": blobs_deleted,
            "errors": errors,
        }

    emit(session.call(clean_up))
    return 0


@command("gc")
def gc(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="List the storage too, and delete what this catalog does not know. "
            "No other catalog may keep the namespace there.",
        ),
    ] = False,
    stray_age_days: Annotated[
        float, typer.Option(min=0.0, help="How old those must be, for --audit.")
    ] = 7.0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 10_000,
) -> int:
    """Delete blobs that no entry has any more."""

    async def collect(ltm: LTMBackend) -> Result:
        with progress("collecting"):
            return await ltm.collect_garbage(
                limit=limit,
                dry_run=dry_run,
                audit=audit,
                stray_age=_days(stray_age_days),
            )

    emit(session.call(collect, patient=True))
    return 0


def _days(days: float) -> timedelta:
    try:
        return timedelta(days=days)
    except (OverflowError, ValueError):
        raise UsageError("--stray-age-days is beyond all calendars") from None


@command("verify")
def verify(session: Session) -> int:
    """Read everything, and prove that all agrees."""

    async def prove(ltm: LTMBackend) -> VerifyResult:
        with progress("verifying"):
            return await ltm.verify()

    found = session.call(prove, patient=True)
    emit(found)
    if not found.sound:
        say(f"{len(found.problems)} problems were found")
    return 0 if found.sound else 1


# Files


@contextlib.asynccontextmanager
async def _output(file: BinaryIO, *, timeout_s: float = 1.0) -> AsyncIterator[Channel]:
    channel = Channel(file)
    try:
        yield channel
    finally:
        await channel.aclose(timeout_s=timeout_s)


def _stdout() -> BinaryIO:
    """Without Python's buffer, whose lock a thread that is stuck in a write would keep."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return sys.stdout.buffer
    return open(descriptor, "wb", buffering=0, closefd=False)


def _stdin() -> BinaryIO:
    try:
        descriptor = sys.stdin.fileno()
    except io.UnsupportedOperation:
        return sys.stdin.buffer
    return open(descriptor, "rb", closefd=False)


@command("export")
def export(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="- is stdout.")] = "-",
    prefix: Annotated[str, typer.Option(help="Only keys that start with it.")] = "",
    after: Annotated[str | None, typer.Option(help="Only keys above this one.")] = None,
    append: Annotated[
        bool,
        typer.Option("--append", help="Continue FILE after its last complete line."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    keep_going: KeepGoing = False,
) -> int:
    """Write entries as JSON Lines, in the order of keys."""
    if append and overwrite:
        raise UsageError("--append and --overwrite exclude each other")
    target = _stdout() if file == "-" else _open_export(file, append=append, overwrite=overwrite)
    with contextlib.nullcontext() if file == "-" else target:
        begun, last = (append, None) if file == "-" or not append else _continue(target)
        done = Exported(last_key=after if after is not None else last)
        try:
            session.call(
                lambda ltm: _export(
                    ltm, target, done, prefix, with_header=not begun, keep_going=keep_going
                )
            )
        except (KeyboardInterrupt, LTMError):
            more = f"; continue with: ltm export {shlex.quote(file)} --append"
            say(f"exported {done.exported} entries so far{'' if file == '-' else more}")
            raise
        if file != "-":
            os.fsync(target.fileno())
    if file == "-":
        say(f"exported {done.exported} entries")
    else:
        emit({"success": not done.damaged, **dataclasses.asdict(done)})
    return 3 if done.damaged else 0


@dataclasses.dataclass(slots=True, kw_only=True)
class Exported:
    """How far an export has come."""

    exported: int = 0
    damaged: int = 0
    """Left out, since they could not be read."""
    last_key: str | None = None


async def _export(
    ltm: LTMBackend,
    target: BinaryIO,
    done: Exported,
    prefix: str,
    *,
    with_header: bool,
    keep_going: bool,
) -> None:
    def damaged(key: str, why: str) -> None:
        done.damaged += 1
        say(f"left out {key!r}: {why}")

    chunks = jsonl.export_entries(
        ltm,
        prefix=prefix,
        after=done.last_key,
        with_header=with_header,
        on_damaged=damaged if keep_going else None,
    )
    total = (await ltm.stats()).entries if sys.stderr.isatty() else None
    with progress("exporting", total) as advance:
        # A disk takes what was begun, so that the file ends with a line; a pipe may not.
        async with _output(target, timeout_s=60.0 if target.seekable() else 1.0) as out:
            async for chunk in chunks:
                await out.write(chunk.data)
                done.exported += len(chunk.keys)
                done.last_key = chunk.keys[-1] if chunk.keys else done.last_key
                advance(len(chunk.keys))


def _open_export(file: str, *, append: bool, overwrite: bool) -> BinaryIO:
    """Readable by its owner only, as what it holds."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    flags |= 0 if append else os.O_TRUNC if overwrite else os.O_EXCL
    try:
        return open(os.open(file, flags, 0o600), "r+b", buffering=0)
    except FileExistsError:
        raise UsageError(
            "FILE is there already: --append continues it, --overwrite replaces it"
        ) from None
    except OSError as exc:
        raise UsageError(f"FILE cannot be written: {exc.strerror}") from None


def _continue(file: BinaryIO) -> tuple[bool, str | None]:
    """Cut off what follows the last complete line: is there a header, and which key is last?"""
    end, last = jsonl.end_of_export(file)
    file.truncate(end)
    file.seek(end)
    return end > 0, last


@contextlib.contextmanager
def _source(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield _stdin()
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115  # closed below; only this may fail
    except OSError as exc:
        raise UsageError(f"FILE cannot be read: {exc.strerror}") from None
    with opened:
        yield opened


@command("import")
def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="- is stdin.")] = "-",
    skip: Annotated[int, typer.Option(min=0, help="Pass over so many lines of the file.")] = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="Keep in this file how far it came, and go on from there."),
    ] = None,
    keep_going: KeepGoing = False,
) -> int:
    """Store the entries of an export, but the expired."""
    if skip and resume is not None:
        raise UsageError("--skip and --resume exclude each other")
    skip, fingerprint = (skip, "") if resume is None else jsonl.load_progress(resume)
    done = jsonl.Imported(lines=skip)

    async def work(ltm: LTMBackend) -> None:
        with progress("importing") as advance:

            async def passed(now: jsonl.Imported) -> None:
                nonlocal done
                advance(now.lines - done.lines)
                done = dataclasses.replace(now)
                if resume is not None:
                    await asyncio.to_thread(jsonl.save_progress, resume, done)

            async with _output(source) as lines:
                await jsonl.import_entries(
                    ltm,
                    lines.lines(),
                    skip=skip,
                    fingerprint=fingerprint,
                    on_invalid=(lambda exc: say(str(exc))) if keep_going else None,
                    on_progress=passed,
                )

    with _source(file) as source:
        try:
            session.call(work)
        except (KeyboardInterrupt, LTMError):
            say(f"imported {done.imported} entries; continue with --skip {done.lines}")
            raise
    if resume is not None:
        resume.unlink(missing_ok=True)
    counts = dataclasses.asdict(done)
    del counts["fingerprint"]
    emit({"success": not done.invalid, **counts})
    return 2 if done.invalid else 0


# About the memory itself


class Schema(enum.StrEnum):
    SQLITE = "sqlite"


@command("schema")
def schema(
    session: Session,  # noqa: ARG001  # as every command has it
    catalog_type: Annotated[Schema, typer.Argument(metavar="sqlite", show_default=False)],
) -> int:
    """Print the SQL that makes a catalog."""
    match catalog_type:
        case Schema.SQLITE:
            from .catalogs.sqlite.database import MIGRATIONS

            statements = "\n".join(script.strip() for script in MIGRATIONS)
            sys.stdout.write(f"{statements}\nPRAGMA user_version = {len(MIGRATIONS)};\n")
    return 0


@command("doctor")
def doctor(session: Session) -> int:
    """Check what can go wrong, and say what to do."""

    async def checks() -> bool:
        sound = True
        async for check in doctors.examine(
            session.catalog,
            session.storage,
            namespace=session.namespace or "",
            timeout=session.timeout,
        ):
            emit(check._asdict())
            sys.stdout.flush()
            sound = sound and check.ok
        return sound

    if asyncio.run(checks()):
        return 0
    say("not all is well: see what is not ok, and its advice")
    return 1


@command("demo")
def demo(
    session: Session,  # noqa: ARG001  # as every command has it
    path: Annotated[Path | None, typer.Option(help="The folder of the data.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier runs first.")] = False,
) -> int:
    """Remember real texts, read them back, prove it."""
    from . import demo as demonstration

    argv = [] if path is None else ["--path", str(path)]
    return demonstration.main([*argv, "--fresh"] if fresh else argv)
