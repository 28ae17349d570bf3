"""The lock: whatever tests and checks install, to the version and to the byte."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / "requirements-dev.lock").read_text()
PIN = re.compile(r"([a-z0-9-]+)==([^ ]+)( ; [^\\]+)? \\")


def pins() -> dict[str, list[str]]:
    """Versions by name; some have one for each of several Pythons."""
    found: dict[str, list[str]] = {}
    for name, version, _ in PIN.findall(LOCK):
        found.setdefault(name, []).append(version)
    return found


def wanted(extra: str) -> list[Requirement]:
    """What *extra* needs, those extras that it names included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed: list[Requirement] = []
    for text in project["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == project["name"]:
            for inner in requirement.extras:
                needed += wanted(inner)
        else:
            needed.append(requirement)
    return needed


def test_every_dependency_is_pinned_as_the_project_wants_it() -> None:
    """Else run ``make lock``."""
    found = pins()
    for requirement in wanted("dev"):
        versions = found.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in the lock"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_every_pin_has_hashes_and_nothing_says_from_where() -> None:
    blocks = re.split(r"\n(?=[a-z])", LOCK.strip())
    assert len(blocks) == sum(map(len, pins().values())) > 100
    for block in blocks:
        first, *hashes = block.splitlines()
        assert PIN.fullmatch(first), first
        assert hashes
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    assert "://" not in LOCK
    assert "index" not in LOCK.replace("_index", "")


@pytest.mark.parametrize(
    ("said", "locked", "code"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "", 1),
        ("ERROR: No matching distribution found for a==1", "", 0),
        ("ERROR: No matching distribution found for a==1", "only", 1),
    ],
)
def test_a_package_of_another_hash_is_never_installed(
    tmp_path: pathlib.Path, said: str, locked: str, code: int
) -> None:
    pip = tmp_path / "python"
    locked_only = f"{said!r} if '--require-hashes' in sys.argv else 0"
    pip.write_text(f"#!{sys.executable}\nimport sys\nsys.exit({locked_only})\n")
    pip.chmod(0o700)
    kept = tmp_path / "kept"
    kept.mkdir()
    done = subprocess.run(
        ["sh", str(ROOT / "tests" / "install-locked"), str(pip), "lock"],
        env={"LTM_LOCKED": locked, "PATH": "/usr/bin:/bin", "TMPDIR": str(kept)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, said in done.stderr) == (code, True)
    assert list(kept.iterdir()) == []
