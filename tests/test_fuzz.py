"""Whatever is fed to what reads, checks and decodes: it answers, or refuses in our own words."""

from __future__ import annotations

import pytest

from .fuzz import targets  # noqa: F401  # fills TARGETS
from .fuzz.running import TARGETS, run

EXECUTIONS = 60


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_it_is_fed_it_answers_or_refuses_in_our_words(name: str) -> None:
    """The same inputs each time; ``make fuzz`` tries others, for longer."""
    assert run(TARGETS[name], EXECUTIONS) >= EXECUTIONS
