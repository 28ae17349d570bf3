"""The commit protocol holds in every interleaving, and each simpler one does not."""

from __future__ import annotations

import pytest

from .protocol_model import REFUTED_BY, SCENARIOS, Flaw, explore


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_protocol_holds_in_every_interleaving(scenario: str) -> None:
    explored = explore(SCENARIOS[scenario])
    assert explored.violation is None
    assert explored.states > 100


@pytest.mark.parametrize("flaw", Flaw, ids=lambda flaw: flaw.name.lower())
def test_a_protocol_with_a_flaw_is_refuted(flaw: Flaw) -> None:
    scenario = SCENARIOS[REFUTED_BY[flaw]]
    assert explore(scenario, flaw).violation is not None
