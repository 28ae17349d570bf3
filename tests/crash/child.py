"""Processes to be killed: forked, for speed, from one that has a single thread and every driver.

Run as a module it is that one: a job for each line of its input, a verdict for each of its output.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import ltm_async.blobs.gcs.client
import ltm_async.blobs.local
import ltm_async.blobs.obstore.requests
import ltm_async.blobs.s3.driver
import ltm_async.catalogs.firestore.documents
import ltm_async.catalogs.postgres.pool
import ltm_async.catalogs.sqlite.catalog
import ltm_async.catalogs.sqlite.committing
import ltm_async.catalogs.sqlite.database
import ltm_async.catalogs.sqlite.lane
import ltm_async.catalogs.supabase.client
from ltm_async import LTMBackend
from ltm_async.testing import Faults, Mode
from ltm_async.testing.crashing import AGAIN, NAMESPACE, ONCE, attempt, large, small

from .operations import BY_NAME
from .places import Folder, SQLiteFile, unpacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a child does, and what stops it."""

    operation: str
    pair: Sequence[Sequence[Any]]
    """The stores, packed."""
    now_us: int
    at: int | None = None
    """The step, event or line, from 0, at which it is killed; None: never."""
    mode: str = Mode.KILL_BEFORE.value
    lost_at: int | None = None
    """A step whose reply is lost before that."""
    retries: bool = False
    trap: str = "step"
    """What *at* counts: a key of ``TRAPS``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a child ended."""

    killed: bool
    said: Any
    """What it reported last, or None."""


class Children:
    """The process that forks them."""

    def __enter__(self) -> Self:
        self._parent = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parent.communicate()  # ends its input, and so itself

    def run(self, job: Job) -> Verdict:
        """Do *job* in a process of its own.

        Raises:
            AssertionError: The child failed by itself.
        """
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
        self._parent.stdin.flush()
        answer = json.loads(self._parent.stdout.readline())
        said = [json.loads(line) for line in answer["said"].splitlines()]
        assert answer["exit"] in {0, -signal.SIGKILL}, f"{job}: {said[-1]}"
        return Verdict(killed=answer["exit"] != 0, said=said[-1] if said else None)


def _serve() -> None:
    for line in sys.stdin:
        job = Job(**json.loads(line))
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _be_child(job, write_end)
        os.close(write_end)
        with open(read_end) as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        answer = {"exit": os.waitstatus_to_exitcode(status), "said": said}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _be_child(job: Job, pipe: int) -> None:
    def say(what: object) -> None:
        os.write(pipe, json.dumps(what).encode() + b"\n")

    code = 1
    try:
        asyncio.run(_perform(job, say))
        code = 0
    except BaseException:
        say(traceback.format_exc())
        raise
    finally:
        os._exit(code)  # what the parent has in its buffers is not this process's to write


async def _perform(job: Job, say: Callable[[object], None]) -> None:
    if job.operation == LOGGED:
        await _store_and_be_killed(job, say)
        return
    TRAPS[job.trap](job)
    at_step = job.at if job.trap == "step" else None
    faults = [Faults(at=at_step, mode=Mode(job.mode))]
    if job.lost_at is not None:
        faults.insert(0, Faults(at=job.lost_at, mode=Mode.LOST_REPLY))
    ended = await attempt(
        unpacked(*job.pair),
        BY_NAME[job.operation],
        faults,
        job.now_us,
        AGAIN if job.retries else ONCE,
    )
    say({**ended._asdict(), "told": ended.told.value})


LOGGED = "logged stores"
STORES = 8


def logged_store(number: int) -> tuple[str, Any]:
    """Small over large and large over small, under two keys in turn."""
    value = large(f"value {number}") if number % 4 in {1, 2} else small(f"value {number}")
    return f"key {number % 2}", value


async def _store_and_be_killed(job: Job, say: Callable[[object], None]) -> None:
    """Store value after value under two keys, saying how long the log is after each."""
    pair = unpacked(*job.pair)
    assert isinstance(pair.catalog, SQLiteFile)
    clock = pair.catalog.clock_at(job.now_us)
    catalog, blobs = pair.catalog.open(clock), pair.blobs.open(clock)
    ltm = LTMBackend(catalog, blobs, namespace=NAMESPACE, on_unavailable="raise")
    log = f"{pair.catalog.path}-wal"
    acknowledged: list[int] = []
    for number in range(STORES):
        await ltm.store(*logged_store(number))
        acknowledged.append(os.stat(log).st_size)
        say(acknowledged)
    os.kill(os.getpid(), signal.SIGKILL)


class _Countdown:
    """Kills this process when called for the n-th time, from 0."""

    def __init__(self, at: int | None) -> None:
        self._left = at
        self._lock = threading.Lock()

    def __call__(self) -> None:
        if self._left is None:
            return
        with self._lock:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


def _trap_file_events(job: Job) -> None:
    """Count what the interpreter is about to do with a path of the blob folder."""
    blobs = unpacked(*job.pair).blobs
    assert isinstance(blobs, Folder)
    folder = blobs.root
    count = _Countdown(job.at)

    def hook(event: str, args: tuple[object, ...]) -> None:
        if (event == "open" or event.startswith("os.")) and any(
            isinstance(arg, str) and arg.startswith(folder) for arg in args
        ):
            count()

    sys.addaudithook(hook)


_TRACED = frozenset(
    {
        ltm_async.blobs.local.__file__,
        ltm_async.catalogs.sqlite.catalog.__file__,
        ltm_async.catalogs.sqlite.committing.__file__,
        ltm_async.catalogs.sqlite.database.__file__,
        ltm_async.catalogs.sqlite.lane.__file__,
    }
)


def _trap_lines(job: Job) -> None:
    """Count lines of the adapters about to run on their own threads."""
    count = _Countdown(job.at)

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in _TRACED:
            return None
        if event == "line":
            count()
        return trace

    threading.settrace(trace)


TRAPS: dict[str, Callable[[Job], None]] = {
    "step": lambda job: None,
    "file event": _trap_file_events,
    "line": _trap_lines,
}

if __name__ == "__main__":
    _serve()
