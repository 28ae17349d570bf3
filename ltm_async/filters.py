"""The filter language for metadata: parsed once, then asked of any number of entries.

A filter is a JSON object. Each of its members is a condition on one member of the metadata, and
all of them have to hold:

======================================  =======================================================
``{"kind": "note"}``                    the same as ``{"kind": {"$eq": "note"}}``
``{"n": {"$gte": 1, "$lt": 9}}``        comparisons of numbers with numbers, text with text
``{"kind": {"$in": ["a", "b"]}}``       equal to one of up to 1,000 values
``{"kind": {"$exists": false}}``        whether there is such a member, be it null
``{"$and": [F, G]}``, ``{"$or": […]}``  filters joined; of ``$or`` one has to hold
``{"$not": F}``                         the filter *F* does not hold
``{"$path": ["a", "b"], "$eq": 1}``     a condition on the member ``b`` of the object ``a``
======================================  =======================================================

Operators: ``$eq $ne $gt $gte $lt $lte $in $exists``. Equal is what is equal as JSON: 1 and 1.0
are, 1 and true are not, and objects are whatever the order of their members. ``$ne`` is the
opposite of ``$eq``: it also holds where there is no such member. Text is ordered by code points.
A dot in a name is part of the name.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from .entry import decode, encode_metadata, shown
from .errors import CorruptError, InvalidEntryError

MAX_CONDITIONS = 100
MAX_FILTER_DEPTH = 10
MAX_PATH = 32
MAX_CHOICES = 1000

_ABSENT: Any = object()
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
OPERATORS = ("$eq", "$ne", *_ORDERS, "$in", "$exists")
JOINS = ("$and", "$or", "$not")


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """One operator on the member at *path*, which leads through objects only."""

    path: tuple[str, ...]
    operator: str
    operand: Any

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        found: Any = metadata
        for name in self.path:
            found = found.get(name, _ABSENT) if isinstance(found, Mapping) else _ABSENT
        if self.operator == "$exists":
            return (found is not _ABSENT) is self.operand
        if self.operator == "$ne":
            return not equal(found, self.operand)
        if self.operator == "$eq":
            return equal(found, self.operand)
        if self.operator == "$in":
            return any(equal(found, choice) for choice in self.operand)
        return _comparable(found, self.operand) and _ORDERS[self.operator](found, self.operand)


@dataclasses.dataclass(frozen=True, slots=True)
class All:
    """Holds where all of *filters* do; without any, everywhere."""

    filters: tuple[Filter, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return all(part.matches(metadata) for part in self.filters)


@dataclasses.dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds where one of *filters* does."""

    filters: tuple[Filter, ...]

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return any(part.matches(metadata) for part in self.filters)


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """Holds where *filter* does not."""

    filter: Filter

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return not self.filter.matches(metadata)


Filter: TypeAlias = Condition | All | AnyOf | Not


def equal(left: Any, right: Any) -> bool:
    """Equality of JSON, to which true is no number."""
    pairs = [(left, right)]  # a stack of its own: values may be nested deeper than Python's
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, bool) or isinstance(right, bool):
            if left is not right:
                return False
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif isinstance(left, Mapping) and isinstance(right, Mapping):
            if left.keys() != right.keys():
                return False
            pairs += ((left[name], right[name]) for name in left)
        elif left != right:
            return False
    return True


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _comparable(left: object, right: object) -> bool:
    return (is_number(left) and is_number(right)) or (
        isinstance(left, str) and isinstance(right, str)
    )


def may_match(wanted: Filter | None, metadata: str) -> bool:
    """Whether stored *metadata* matches; what is damaged is for its reader to see."""
    if wanted is None:
        return True
    try:
        decoded = decode(metadata)
    except CorruptError:
        return True
    return not isinstance(decoded, dict) or wanted.matches(decoded)


def parse_filter(given: object, name: str = "metadata_filter") -> Filter:
    """The filter that *given* says.

    Raises:
        InvalidEntryError: It is none, or over a limit: 16 KiB as JSON, 100 conditions, 10
            levels, 1,000 values of one ``$in``.
    """
    if not isinstance(given, Mapping):
        raise InvalidEntryError(f"{name} must be a mapping, not {type(given).__name__}")
    encode_metadata(given, name)
    parsed = _parse(given, name, MAX_FILTER_DEPTH)
    count = sum(1 for _ in conditions(parsed))
    if count > MAX_CONDITIONS:
        raise InvalidEntryError(f"{name} has {count} conditions, the limit is {MAX_CONDITIONS}")
    return parsed


def conditions(parsed: Filter) -> Iterator[Condition]:
    """Every condition in *parsed*."""
    match parsed:
        case Condition():
            yield parsed
        case Not(part):
            yield from conditions(part)
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from conditions(part)


def _parse(given: object, name: str, depth: int) -> Filter:
    if not isinstance(given, Mapping):
        raise InvalidEntryError(f"{name} must hold filters, not {type(given).__name__}")
    if depth == 0:
        raise InvalidEntryError(f"{name} is nested deeper than {MAX_FILTER_DEPTH} levels")
    if "$path" in given:
        path = _path(given["$path"], name)
        return _operators(path, {op: given[op] for op in given if op != "$path"}, name)
    parts: list[Filter] = []
    for member, operand in given.items():
        if member == "$not":
            parts.append(Not(_parse(operand, name, depth - 1)))
        elif member in JOINS:
            if not isinstance(operand, list) or not operand:
                raise InvalidEntryError(f"{name}: {member} needs a list of at least one filter")
            joined = tuple(_parse(part, name, depth - 1) for part in operand)
            parts.append(All(joined) if member == "$and" else AnyOf(joined))
        elif member.startswith("$"):
            known = ", ".join((*JOINS, "$path"))
            raise InvalidEntryError(
                f"{name}: {shown(member)} cannot stand here, where {known} and names of members"
                " can; a member whose name begins with $ is written with $path"
            )
        elif isinstance(operand, Mapping) and any(op.startswith("$") for op in operand):
            parts.append(_operators((member,), operand, name))
        else:
            parts.append(Condition((member,), "$eq", operand))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _path(given: object, name: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_PATH:
        raise InvalidEntryError(f"{name}: $path needs a list of 1 to {MAX_PATH} names")
    if not all(isinstance(part, str) for part in given):
        raise InvalidEntryError(f"{name}: $path needs names, which are str")
    return tuple(given)


def _operators(path: tuple[str, ...], given: Mapping[str, Any], name: str) -> Filter:
    if not given:
        raise InvalidEntryError(f"{name}: $path needs an operator beside it")
    parts = tuple(_condition(path, op, operand, name) for op, operand in given.items())
    return parts[0] if len(parts) == 1 else All(parts)


def _condition(path: tuple[str, ...], op: str, operand: Any, name: str) -> Condition:
    if op not in OPERATORS:
        raise InvalidEntryError(
            f"{name}: there is no operator {shown(op)}; there are {', '.join(OPERATORS)}"
        )
    if op == "$exists" and not isinstance(operand, bool):
        raise InvalidEntryError(f"{name}: $exists needs true or false")
    if op in _ORDERS and not (is_number(operand) or isinstance(operand, str)):
        raise InvalidEntryError(f"{name}: {op} needs a number or text")
    if op == "$in" and (not isinstance(operand, list) or len(operand) > MAX_CHOICES):
        raise InvalidEntryError(f"{name}: $in needs a list of at most {MAX_CHOICES} values")
    return Condition(path, op, operand)
