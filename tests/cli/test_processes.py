"""What holds for a process of its own: its streams, how it is stopped, its progress bars."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import venv
from collections.abc import Iterator
from typing import IO

import pytest

from .running import damage, environment, fill, process, started, wait_for


class TestProcesses:
    """What holds for a process of its own."""

    def test_json_is_on_stdout_and_words_are_on_stderr(self, folder: pathlib.Path) -> None:
        assert process(folder, "store", "k", '{"a": 1}').json["stored"] is True
        assert process(folder, "get", "k") == (0, '{"a": 1}\n', "")
        assert process(folder, "get", "nothing") == (1, "", "ltm: no such key\n")
        assert process(folder, "store", "k", "1", "--if-absent")[:2] == (4, "")
        assert process(folder, "get")[:2] == (2, "")
        assert process(folder, "stats", "--catalog", "sqlite:////no/x.db")[:2] == (3, "")

    def test_damage_is_told_by_the_command_alone(self, folder: pathlib.Path) -> None:
        """Not by the library's log as well."""
        fill(folder, 3, size=2000)
        damage(folder, "k000001")
        done = process(folder, "export")
        assert (done.code, len(done.lines)) == (3, 3)
        assert [line.partition(":")[0] for line in done.err.splitlines()] == ["ltm", "ltm"]

    def test_stdin_is_read_for_a_dash(self, folder: pathlib.Path) -> None:
        data = '["☃", "a long text"]'.encode()
        assert process(folder, "store", "k", "-", data=data).code == 0
        assert process(folder, "get", "k").json == ["☃", "a long text"]
        assert process(folder, "store", "k", "-", "--text", data=b"text\n").code == 0
        assert process(folder, "get", "k").json == "text\n"

    def test_an_export_can_be_piped_into_an_import(self, folder: pathlib.Path) -> None:
        fill(folder, 1500)
        exported = process(folder, "export")
        other = environment(folder, LTM_CATALOG="sqlite:///other.db", LTM_STORAGE="other")
        done = process(folder, "import", data=exported.out.encode(), env=other)
        assert (done.code, done.json["imported"]) == (0, 1500)
        assert process(folder, "export", env=other) == exported

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_an_old_terminal_gets_escapes(self, folder: pathlib.Path, encoding: str) -> None:
        process(folder, "store", "ключ", '"☃"')
        env = environment(folder, PYTHONIOENCODING=encoding)
        assert process(folder, "get", "ключ", env=env).out == '"\\u2603"\n'
        assert process(folder, "list", env=env).lines[0]["key"] == "ключ"

    def test_nothing_is_coloured_unless_on_a_terminal(self, folder: pathlib.Path) -> None:
        env = environment(folder, FORCE_COLOR="1", TERM="xterm-256color")
        for args in (["--help"], ["store", "--help"], ["export"], ["verify"], ["stroe"]):
            done = process(folder, *args, env=env)
            assert "\x1b" not in done.out + done.err

    def test_without_typer_it_says_what_to_install(self, folder: pathlib.Path) -> None:
        venv.create(folder / "bare", symlinks=True)
        done = process(folder, "list", python=str(folder / "bare" / "bin" / "python"))
        assert done == (3, "", "ltm needs typer: pip install 'ltm-async[cli]'\n")

    @pytest.mark.parametrize("args", [["list"], ["export"]])
    def test_a_reader_that_stops_ends_it_quietly(
        self, folder: pathlib.Path, args: list[str]
    ) -> None:
        fill(folder, 20_000)
        with started(folder, *args) as run:
            assert run.stdout is not None and run.stderr is not None
            assert json.loads(run.stdout.readline())
            run.stdout.close()
            assert run.stderr.read() == b""
            assert run.wait() == 141

    def test_a_reader_that_is_gone_ends_it_quietly(self, folder: pathlib.Path) -> None:
        fill(folder, 1)
        with started(folder, "get", "k000000") as run:
            assert run.stdout is not None and run.stderr is not None
            run.stdout.close()
            assert run.stderr.read() == b""
            assert run.wait() == 141

    def test_a_shell_sees_no_complaint(self, folder: pathlib.Path) -> None:
        fill(folder, 20_000)
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m ltm_async list | head -1"],
            env=environment(folder),
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["key"] == "k000000"


def waiting_in(pipe: IO[bytes] | None) -> int:
    """Bytes that nobody has read yet."""
    assert pipe is not None
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


class TestInterrupts:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_an_export_that_is_stopped_can_be_continued(
        self, folder: pathlib.Path, how: signal.Signals
    ) -> None:
        fill(folder, 40_000)
        whole = process(folder, "export").out.encode()
        file = folder / "file"
        with started(folder, "export", "file") as run:
            wait_for(lambda: file.exists() and file.stat().st_size > 200_000)
            run.send_signal(how)
            out, err = run.communicate()
        so_far = file.read_bytes()
        assert 0 < len(so_far) < len(whole), "it was faster than the signal"
        assert whole.startswith(so_far)
        if how == signal.SIGINT:
            assert (run.returncode, out) == (130, b"")
            assert re.fullmatch(
                rb"ltm: exported \d+ entries so far; continue with: ltm export file --append\n",
                err,
            )
            assert so_far.endswith(b"\n")
        assert process(folder, "export", "file", "--append").code == 0
        assert file.read_bytes() == whole

    def test_an_export_that_nobody_reads_can_be_stopped(self, folder: pathlib.Path) -> None:
        fill(folder, 5_000, size=200)
        with started(folder, "export") as run:
            assert run.stdout is not None and run.stderr is not None
            wait_for(lambda: waiting_in(run.stdout) > 60_000)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=10) == 130
            assert re.fullmatch(rb"ltm: exported \d+ entries so far\n", run.stderr.read())

    def test_an_import_that_waits_for_input_can_be_stopped(self, folder: pathlib.Path) -> None:
        with started(folder, "import") as run:
            assert run.stdin is not None and run.stderr is not None
            run.stdin.write(process(folder, "export").out.encode())
            run.stdin.flush()
            wait_for((folder / "ltm.db").exists)
            time.sleep(0.3)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=10) == 130
            assert run.stderr.read() == b"ltm: imported 0 entries; continue with --skip 0\n"


class TestProgress:
    """On a terminal that is stderr alone."""

    @pytest.mark.parametrize(
        ("args", "what"),
        [
            (["export", "-"], "exporting"),
            (["import", "file"], "importing"),
            (["verify"], "verifying"),
            (["cleanup"], "cleaning up"),
            (["gc"], "collecting"),
        ],
    )
    def test_a_bar_is_shown_there_and_nowhere_else(
        self, folder: pathlib.Path, args: list[str], what: str
    ) -> None:
        fill(folder, 3000)
        assert process(folder, "export", "file").code == 0
        expected = process(folder, *args)
        assert what not in expected.err
        out: list[bytes] = []
        ours, its = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "ltm_async", *args],
            cwd=folder,
            env=environment(folder, TERM="xterm-256color"),
            stdout=subprocess.PIPE,
            stderr=its,
        ) as run:
            os.close(its)
            assert run.stdout is not None
            shown = b"".join(read_terminal(ours, run.stdout.fileno(), out))
        os.close(ours)
        assert run.returncode == 0
        assert what.encode() in shown
        assert b"\x1b[" in shown
        out_text = b"".join(out).decode()
        assert "\x1b" not in out_text
        if args[0] != "import":  # which deduplicates the second time
            assert out_text == expected.out


def read_terminal(terminal: int, pipe: int, out: list[bytes]) -> Iterator[bytes]:
    """What comes to *terminal*; what comes through *pipe* meanwhile goes to *out*."""
    todo = [terminal, pipe]
    while todo:
        for readable in select.select(todo, [], [], 30)[0]:
            try:
                data = os.read(readable, 65536)
            except OSError:  # how Linux says that the other side was closed
                data = b""
            if not data:
                todo.remove(readable)
            elif readable == terminal:
                yield data
            else:
                out.append(data)
