"""What every test runs under."""

from __future__ import annotations

import asyncio.constants
import gc
import linecache
import signal
import traceback
import types
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx

from ltm_async.catalogs.firestore.options import TRANSPORTS

pytest_plugins = [
    "tests.servers.fixtures",
    "tests.databases",
    "tests.projects",
    "tests.places",
    "tests.crash.templates",
    "tests.crash.scenes",
    "tests.crash.matrix",
]
pytest.register_assert_rewrite("ltm_async.testing")


def pytest_configure() -> None:
    _heed_interrupts()
    _remember_less()


def _heed_interrupts() -> None:
    """A shell has what it runs in the background ignore SIGINT, and our children would, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _remember_less() -> None:
    """Of where each future and task was made, which asyncio keeps to say it in a warning.

    For each it goes up the stack, and asks the disk whether any file there has changed: a fifth of
    the time of the tests.
    """
    vars(asyncio.constants)["DEBUG_STACK_DEPTH"] = 2
    unasked = {**vars(linecache), "checkcache": lambda filename=None: None}
    vars(traceback)["linecache"] = types.SimpleNamespace(**unasked)


def pytest_collection_finish() -> None:
    _leave_out_of_collections()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    if nextitem is not None and item.path != nextitem.path:
        _leave_out_of_collections()


def _leave_out_of_collections() -> None:
    """All that is there now: it mostly stays until the end.

    There are millions of objects, and going through them stops a loop for half a second: longer
    than some tests may take.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test whose event loop is blocked by our code: a file, a socket, SQLite, a sleep."""
    with blockbuster_ctx("ltm_async", excluded_modules=["ltm_async.testing"]) as guard:
        # The current folder is asked for, not read from a disk.
        guard.functions["os.path.abspath"].can_block_in("ltm_async/blobs/local.py", {"__init__"})
        # asyncpg looks for ~/.pgpass and ~/.postgresql at each connect.
        for call in ("os.stat", "os.path.abspath", "io.TextIOWrapper.read"):
            if call in guard.functions:
                guard.functions[call].can_block_in(
                    "asyncpg/connect_utils.py",
                    {"_read_password_file", "_parse_connect_dsn_and_args", "_dot_postgresql_path"},
                )
        # A blocking call waits where a loop runs only if it was told to.
        guard.functions["threading.Lock.acquire"].can_block_in("ltm_async/portal.py", {"wait"})
        yield


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each way in which FirestoreCatalog speaks to Firestore."""
    return str(request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have to show, whichever process they ran in."""
    crossings = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for title, what in report.user_properties:
                if title == "crash matrix":
                    terminalreporter.section(title)
                    terminalreporter.write_line(str(what))
                elif title == "crossings":
                    crossings += int(what)
    if crossings:
        terminalreporter.write_line(f"calls crossed {crossings} times")
