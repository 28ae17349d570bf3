"""Tests of a contract cannot be hidden by a subclass."""

from __future__ import annotations


def refuse_hidden(cls: type) -> None:
    """For the ``__init_subclass__`` of a contract: no test of *cls* has the name of another."""
    tests = {name for name in vars(cls) if name.startswith("test_")}
    if hidden := tests & {name for base in cls.__mro__[1:] for name in vars(base)}:
        raise TypeError(f"{cls.__name__} hides contract tests: {sorted(hidden)}")
