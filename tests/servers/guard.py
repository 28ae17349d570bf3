"""Runs a server until its owner ends it, or ends itself in whatever way; then deletes its files.

``python guard.py FOLDER USER SIGNAL COMMAND...``. The owner holds the other end of stdin: the
end of that stream, which SIGKILL brings too, stops the server with SIGNAL and deletes FOLDER. One
byte before it keeps the folder, for the next start. USER may be empty: the same as ours.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

STOP_S = 10.0
PR_SET_PDEATHSIG = 1


def main(folder: str, user: str, stop_with: str, *command: str) -> int:
    libc = ctypes.CDLL(None)
    server = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,  # the log; our stdout says the process id, once
        start_new_session=True,
        user=user or None,
        group=user or None,
        extra_groups=[] if user else None,
        # For a guard that is killed itself. It is the main thread's death that counts.
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
    )
    print(server.pid, flush=True)  # noqa: T201
    owner = sys.stdin.fileno()
    if owner in select.select([owner, os.pidfd_open(server.pid)], [], [])[0]:
        for number in (int(stop_with), signal.SIGCONT):
            server.send_signal(number)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
    server.wait()
    keep = os.read(owner, 1)  # one that ended by itself waits here, for its log to be read
    if not keep:
        delete(folder)
    return 0


def delete(folder: str) -> None:
    """Children of a server that was killed may still be writing."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
