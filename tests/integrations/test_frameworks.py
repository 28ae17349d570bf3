"""Frameworks are imported by their own integration only, and one that is missing is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAMEWORKS = {"langgraph", "langchain_core", "starlette", "fastapi", "uvicorn"}


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("ltm_async", set()),
        ("ltm_async.integrations", set()),
        ("ltm_async.integrations.asgi", set()),
        ("ltm_async.integrations.langchain", {"langchain_core"}),
        ("ltm_async.integrations.langgraph", {"langchain_core", "langgraph"}),
    ],
)
def test_an_integration_imports_its_own_framework_and_no_other(
    module: str, expected: set[str]
) -> None:
    code = f"import sys, {module}; print(*sorted({FRAMEWORKS!r} & set(sys.modules)))"
    assert set(python(code).split()) == expected


@pytest.mark.parametrize(
    ("framework", "extra"), [("langgraph", "langgraph"), ("langchain_core", "langchain")]
)
def test_a_framework_that_is_missing_is_named_with_its_extra(framework: str, extra: str) -> None:
    said = python(
        f"import sys; sys.modules[{framework!r}] = None\n"
        "from ltm_async import MissingDriverError\n"
        "try:\n"
        f"    import ltm_async.integrations.{extra}\n"
        "except MissingDriverError as exc:\n"
        "    print(exc)\n"
    )
    assert said.endswith(f"pip install 'ltm-async[{extra}]'")
    assert f"needs {framework}" in said
