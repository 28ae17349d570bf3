"""A server process: started, waited for, stopped, started again, and gone without a trace."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

START_S = 30.0
BELOW_OUTGOING = range(20_000, 32_000)
"""Ports that no outgoing connection is given, so that none takes one before a server does."""


def free_port() -> int:
    while True:
        port = random.choice(BELOW_OUTGOING)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Something accepts connections on *port*."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def new_folder(name: str, *, user: str = "") -> pathlib.Path:
    """A folder that *user* may use; pytest's own are closed to others."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"ltm-test-{name}-", dir="/tmp"))
    if user:
        shutil.chown(folder, user, user)
    return folder


class Server:
    """One server with its folder, which is its current folder and is deleted at the end.

    Args:
        command: Runs it in the foreground.
        user: Whom it runs as; empty for ourselves.
        environ: Added to our environment.
        ready: Asked until it is true; it may raise OSError.
        stop_with: The signal that ends it at once and in order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        folder: pathlib.Path,
        port: int,
        user: str = "",
        environ: Mapping[str, str] | None = None,
        ready: Callable[[], bool] | None = None,
        stop_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self._command = [os.fspath(part) for part in command]
        self._user = user
        self._environ = {**os.environ, **(environ or {})}
        self._ready = ready or (lambda: answers(port))
        self._stop_with = stop_with
        self._log = folder / "server.log"
        self._guard: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def start(self) -> Self:
        """Start it and wait until it is ready; its log is in the error if it is not."""
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-IS",
                    pathlib.Path(__file__).with_name("guard.py"),
                    self.folder,
                    self._user,
                    str(int(self._stop_with)),
                    *self._command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environ,
                start_new_session=True,  # Ctrl-C is for its owner
            )
        assert self._guard.stdout is not None
        with self._guard.stdout as said:
            self.pid = int(said.readline() or 0)
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up and self.is_running():
            with contextlib.suppress(OSError):
                if self._ready():
                    return self
            time.sleep(0.01)
        log_tail = self.log_tail()
        self.close()
        raise RuntimeError(f"{self.name} did not start:\n{log_tail}")

    def is_running(self) -> bool:
        try:
            state = pathlib.Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2]
        except OSError:
            return False
        return self.pid != 0 and state.split()[0] != "Z"

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]

    def stop(self) -> None:
        """Stop it; its files stay, and ``start`` starts it again on the same port."""
        self._end(b"k")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send its main process a signal, such as SIGSTOP and SIGCONT."""
        os.kill(self.pid, number)

    def restart(self, stop_with: signal.Signals) -> None:
        """Stop it with a signal, and start it again on the same port."""
        self.kill(stop_with)
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and delete its files."""
        self._end(b"")
        shutil.rmtree(self.folder, ignore_errors=True)  # when it had been stopped before

    def _end(self, last_word: bytes) -> None:
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        with contextlib.suppress(BrokenPipeError):
            guard.communicate(last_word)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()
