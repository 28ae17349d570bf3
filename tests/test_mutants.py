"""The deliberate breaks fit the code they are for, and what is said of them is so.

``make mutants`` tries them all.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from collections import Counter

import pytest

from .mutants.__main__ import exit_code, table, try_all
from .mutants.mutant import Edit, Mutant, StalePatchError, read_mutants
from .mutants.trying import Verdict

ROOT = pathlib.Path(__file__).parents[1]
MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_names_a_test_that_is_there(mutant: Mutant) -> None:
    assert mutant.of(ROOT)
    file, *inner = mutant.test.partition("[")[0].split("::")
    places = [ROOT / file]
    if len(inner) > 1:  # in a class, which may have it from a contract
        places += (ROOT / "ltm_async" / "testing").glob("*.py")
    assert any(f"def {inner[-1]}(" in place.read_text() for place in places)


def test_each_mutant_is_another_and_says_what_it_breaks() -> None:
    for field in ("title", "edits"):
        assert max(Counter(getattr(mutant, field) for mutant in MUTANTS).values()) == 1, field
    invariants = {mutant.breaks for mutant in MUTANTS if re.fullmatch(r"I\d+", mutant.breaks)}
    assert invariants == {f"I{number}" for number in range(1, 11)}


@pytest.mark.timeout(300)
def test_two_of_them_are_killed() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.mutants",
        "breaker_never_closes",
        "lost_call_sent_again",
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.endswith("2 mutants: 2 killed, 0 survived, 0 invalid\n"), ran.stderr
    assert ran.returncode == 0


CODE = "def double(n):\n    return n * 2\n"
TESTS = """
from ltm_async import double

def test_one():
    assert double(1) == 2

def test_two():
    assert double(2) == 4

def test_wrong():
    assert double(2) == 5
"""


def mutant(name: str, put: str, test: str = "test_one", find: str = "n * 2") -> Mutant:
    edit = Edit(file="ltm_async/__init__.py", find=find, put=put)
    return Mutant(
        name=name, title=name, breaks="I1", test=f"tests/test_it.py::{test}", edits=(edit,)
    )


@pytest.mark.timeout(300)
def test_only_the_failure_of_a_test_that_passed_is_a_kill(tmp_path: pathlib.Path) -> None:
    for file, text in {
        "ltm_async/__init__.py": CODE,
        "tests/__init__.py": "",
        "tests/test_it.py": TESTS,
        "pyproject.toml": "",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    expected = {
        mutant("killed", "n * 3"): Verdict.KILLED,
        # 2 + 2 is 2 * 2: the test named has to notice, not any.
        mutant("survives", "n + 2", "test_two"): Verdict.SURVIVED,
        mutant("its test does not pass anyway", "n * 3", "test_wrong"): Verdict.INVALID,
        mutant("the code has changed", "n * 3", find="n * 4"): Verdict.INVALID,
        mutant("the code is there twice", "m", find="n"): Verdict.INVALID,
        mutant("no Python", "n *"): Verdict.INVALID,
        mutant("a name that is not there", "m * 2"): Verdict.INVALID,
    }
    trials = try_all(tmp_path, list(expected))
    assert {trial.mutant: trial.verdict for trial in trials} == expected
    assert (tmp_path / "ltm_async/__init__.py").read_text() == CODE
    assert "7 mutants: 1 killed, 1 survived, 5 invalid" in table(trials)
    assert [exit_code(some) for some in (trials[:1], trials[:2], trials)] == [0, 1, 2]


def test_a_patch_that_no_longer_fits_says_where() -> None:
    with pytest.raises(StalePatchError, match=r"moved: ltm_async/__init__.py has its text 0 times"):
        mutant("moved", "", find="no such code").of(ROOT)
