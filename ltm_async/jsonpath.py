"""A filter in PostgreSQL's jsonpath, as far as that means the same.

The path is made of our own words; names and operands of the filter are its variables.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .filters import All, Condition, Filter, Not, is_number

_ORDERS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_EXACT = 2**53
"""Beyond, a float's text says another number than the float is, and comparisons differ."""


class JsonPath(NamedTuple):
    """A predicate for ``jsonb_path_match``, and its variables."""

    path: str
    variables: dict[str, Any]


def to_jsonpath(wanted: Filter) -> JsonPath | None:
    """What holds wherever *wanted* does, and perhaps elsewhere; None is what holds everywhere."""
    variables: dict[str, Any] = {}
    predicate = _predicate(wanted, variables, holds=True)
    return None if predicate is None else JsonPath(f"strict {predicate}", variables)


def as_arguments(wanted: Filter | None) -> tuple[str | None, str | None]:
    """The path and, as JSON, its variables, as the functions of the database take them."""
    chosen = None if wanted is None else to_jsonpath(wanted)
    return (None, None) if chosen is None else (chosen.path, json.dumps(chosen.variables))


def _predicate(wanted: Filter, variables: dict[str, Any], *, holds: bool) -> str | None:
    """Of what *wanted*, or its opposite, means."""
    if isinstance(wanted, Not):
        return _predicate(wanted.filter, variables, holds=not holds)
    if isinstance(wanted, Condition):
        condition = _condition(wanted, variables)
        return condition if condition is None or holds else f"(!{condition})"
    parts = [_predicate(part, variables, holds=holds) for part in wanted.filters]
    if isinstance(wanted, All) is holds:
        return _joined("&&", [part for part in parts if part is not None])
    known = [part for part in parts if part is not None]
    return _joined("||", known) if len(known) == len(parts) else None


def _joined(operator: str, parts: list[str]) -> str | None:
    return f"({f' {operator} '.join(parts)})" if parts else None


def _condition(wanted: Condition, variables: dict[str, Any]) -> str | None:
    def variable(value: Any) -> str:
        name = f"v{len(variables)}"
        variables[name] = value
        return f"${name}"

    found = "$"
    for name in wanted.path:
        found += f' ? (@.type() == "object").keyvalue() ? (@.key == {variable(name)}).value'
    operator, operand = wanted.operator, wanted.operand
    if operator == "$exists":
        return f"(exists({found}))" if operand else f"(!exists({found}))"
    operands = operand if operator == "$in" else [operand]
    if not all(map(_is_plain, operands)):
        return None
    if operator in _ORDERS:
        return f"(exists({found} ? (@ {_ORDERS[operator]} {variable(operand)})))"
    tests = [f"@ == {variable(value)}" for value in operands] or ["1 == 0"]
    same = f"(exists({found} ? ({' || '.join(tests)})))"
    return f"(!{same})" if operator == "$ne" else same


def _is_plain(operand: Any) -> bool:
    if is_number(operand):
        return bool(abs(operand) < _EXACT)
    return not isinstance(operand, (list, dict))
