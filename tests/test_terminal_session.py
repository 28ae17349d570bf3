"""The session in README: typed into a shell on a real pseudo-terminal, and printed as it came.

``LTM_WRITE_README=1 python -m pytest tests/test_terminal_session.py`` writes it anew.
"""

from __future__ import annotations

import os
import pathlib
import pty
import re
import select
import signal
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
TYPED = (
    "export LTM_CATALOG=sqlite:///memory.db LTM_STORAGE=./blobs",
    """ltm store user:7 '{"likes": ["tea"]}' --ttl 3600""",
    "ltm get user:7",
    "seq 1 1000 | ltm store numbers - --text",
    "ltm list --limit 1",
    "ltm stats",
    "ltm export backup.jsonl",
    "ltm verify",
    "ltm get user:8; echo $?",
)
PROMPT = b"$ "
_BLOCK = re.compile(r"(?<=```text\n)\$ export LTM_CATALOG=.*?(?=```)", re.DOTALL)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the terminal showed."""
    folder = tmp_path_factory.mktemp("session")
    command = folder / "bin" / "ltm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ltm_async "$@"\n')
    command.chmod(0o755)
    env = {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PS1": PROMPT.decode(),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("sh", ["sh", "-i"], env)
    try:
        shown = _until_prompt(terminal)
        for line in TYPED:
            os.write(terminal, f"{line}\n".encode())
            shown += _until_prompt(terminal)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    text = shown.decode().replace("\r\n", "\n")
    return text[text.index(f"$ {TYPED[0]}") :].removesuffix("$ ")


def _until_prompt(terminal: int) -> bytes:
    shown = b""
    while not shown.endswith(PROMPT):
        assert select.select([terminal], [], [], 30)[0], f"no prompt after {shown!r}"
        shown += os.read(terminal, 65536)
    return shown


def normalised(text: str) -> str:
    """*text* with what differs each time made the same: instants, folders, names of blobs."""
    text = re.sub(r"\d{4}(-\d\d){2}T(\d\d:){2}\d\d\.\d{6}Z", "2026-01-31T12:00:00.000000Z", text)
    return re.sub(r'"[^"]*/blobs/[0-9a-f]{32}/[0-9a-z-]+"', '"/srv/blobs/…"', text)


def test_the_session_in_the_readme_is_what_a_terminal_shows(session: str) -> None:
    readme = README.read_text(encoding="utf-8")
    if os.environ.get("LTM_WRITE_README"):
        readme = _BLOCK.sub(lambda _match: normalised(session), readme)
        README.write_text(readme, encoding="utf-8")
    (block,) = _BLOCK.findall(readme)
    assert block == normalised(session)


def test_every_line_that_was_typed_is_in_it(session: str) -> None:
    typed = re.findall(r"^\$ (.*)$", session, re.MULTILINE)
    assert typed == list(TYPED)
    assert {"store", "get", "list", "stats", "export", "verify"} <= set(
        re.findall(r"ltm (\w+)", " ".join(typed))
    )


def test_nothing_went_wrong_in_it(session: str) -> None:
    assert "Traceback" not in session
    assert session.count('"success": true') == 5
    assert session.endswith("\nltm: no such key\n1\n")
    assert "\x1b" not in session
