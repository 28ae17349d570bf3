"""Every operation, stopped at each of its steps in each way, and recovered from.

By default on a slice, see :mod:`tests.crash.settings`; ``make crash-exhaustive`` leaves none out.
``LTM_CRASH_REPORT=path`` keeps what was tried, as JSON for ``python -m tests.crash.report``.
"""

from __future__ import annotations

import os
import pathlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

from ltm_async.testing import Mode
from ltm_async.testing.crashing import Operation

from .crash.matrix import Matrix, Row
from .crash.operations import ALL
from .crash.report import saved, summary
from .crash.settings import (
    BLOB_STORES,
    CATALOGS,
    HARD,
    LONG_S,
    PAIRS,
    Kind,
    Setting,
    chosen,
    everything,
    the_slice,
)

SETTINGS = chosen()


def _named(param: Operation | Setting) -> str:
    return param.name


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize("operation", ALL, ids=_named)
@pytest.mark.parametrize("setting", SETTINGS, ids=_named)
def test_an_operation_stopped_at_any_step_leaves_the_old_or_the_new(
    operation: Operation, setting: Setting, matrix: Matrix
) -> None:
    assert matrix.row(operation, setting).violations == []


@pytest.mark.timeout(max(300, LONG_S))
def test_no_cell_of_operation_and_step_and_mode_is_empty(
    matrix: Matrix, record_property: Callable[[str, object], None]
) -> None:
    rows = [matrix.row(operation, setting) for setting in SETTINGS for operation in ALL]
    record_property("crash matrix", summary(rows))
    if path := os.environ.get("LTM_CRASH_REPORT"):
        pathlib.Path(path).write_text(saved(rows))
    for kind in Kind:
        assert _empty(rows, kind) == []


def _empty(rows: Sequence[Row], kind: Kind) -> list[tuple[str, ...]]:
    """Cells of the steps that were seen and the modes that the settings have, which none held."""
    asked = {mode.value for setting in SETTINGS if setting.kind is kind for mode in setting.modes}
    held: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.kind == kind.value:
            # A call may end with the first fault, and have no step for a second.
            tried = row.cells or kind is Kind.CALL
            assert tried, f"nothing was tried with {row.operation} on {row.pair}"
            for cell in row.cells:
                place = held[row.operation, cell.first, cell.step]
                place |= {cell.mode} if cell.violation is None else set()
    return [(*step, mode) for step, modes in held.items() for mode in sorted(asked - modes)]


def test_the_slice_leaves_out_no_pair_and_each_store_meets_the_hard_modes() -> None:
    single = [setting for setting in the_slice() if setting.kind is Kind.ONE]
    on = {setting.pair: set(setting.modes) for setting in single}
    assert set(PAIRS) <= on.keys()
    assert on["sqlite+local"] == set(Mode)
    for name in (*CATALOGS, *BLOB_STORES):
        assert set(HARD) <= set.union(*(on[pair] for pair in PAIRS if name in pair.split("+")))


def test_everything_is_each_pair_and_kind_and_mode() -> None:
    cells = {
        (setting.pair, setting.kind, mode)
        for setting in everything(PAIRS)
        for mode in setting.modes
    }
    kills = 2 * len(PAIRS)  # by which a retry cannot be seen
    assert len(cells) == len(PAIRS) * len(Kind) * len(Mode) - kills
