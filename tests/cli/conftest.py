"""A folder of its own for each test, and the command in it."""

from __future__ import annotations

import pathlib

import pytest

from ltm_async import cli

from .running import Done, Run, environment


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name, value in environment(tmp_path).items():
        if name.startswith("LTM_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("LTM_NAMESPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ltm(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A run in this process."""

    def run(*args: str) -> Done:
        code = cli.main(args)
        return Done(code, *capsys.readouterr())

    return run
