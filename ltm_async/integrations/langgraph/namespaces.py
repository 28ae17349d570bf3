"""Which namespaces there are."""

from __future__ import annotations

from langgraph.store.base import ListNamespacesOp, MatchCondition

from ltm_async.backend import LTMBackend
from ltm_async.errors import InvalidEntryError

from .names import STORE_ROOT, after, below, name_of, within
from .paging import First, check_window, page_after

ANY = "*"


async def list_namespaces(ltm: LTMBackend, op: ListNamespacesOp) -> list[tuple[str, ...]]:
    """The namespaces that have items, in order, each once.

    Takes one page for each thousand entries, or for each namespace that has more than that.
    """
    conditions = op.match_conditions or ()
    found: First[tuple[str, ...]] = First(op.offset + op.limit, rank=lambda namespace: namespace)
    start = below(STORE_ROOT, _fixed(conditions))
    cursor: str | None = None
    last: tuple[str, ...] | None = None
    while True:
        page = await page_after(ltm, start, cursor)
        for entry in page.entries:
            name = name_of(STORE_ROOT, entry.key)
            if name is None:
                continue
            block = within(STORE_ROOT, name.namespace)
            if all(_matches(condition, name.namespace) for condition in conditions):
                short = name.namespace[: op.max_depth]
                if short != last:
                    found.add(short)
                    last = short
                if len(short) == op.max_depth:
                    block = below(STORE_ROOT, short)
            cursor = after(block)
        if page.cursor is None:
            return found.ranked()[op.offset :]
        cursor = max(cursor or "", page.cursor)


def check_list(op: ListNamespacesOp) -> None:
    """Refuse what :func:`list_namespaces` cannot do."""
    check_window(op.limit, op.offset)
    if op.max_depth is not None and (type(op.max_depth) is not int or op.max_depth < 1):
        raise InvalidEntryError("max_depth must be an int above 0")
    for condition in op.match_conditions or ():
        if condition.match_type not in {"prefix", "suffix"}:
            raise InvalidEntryError("match_type must be 'prefix' or 'suffix'")


def _fixed(conditions: tuple[MatchCondition, ...]) -> tuple[str, ...]:
    """The labels that every namespace asked for begins with, as far as one condition says."""
    longest: tuple[str, ...] = ()
    for condition in conditions:
        if condition.match_type == "prefix":
            path = tuple(condition.path)
            fixed = path[: path.index(ANY)] if ANY in path else path
            longest = max(longest, fixed, key=len)
    return longest


def _matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    path = tuple(condition.path)
    if len(path) > len(namespace):
        return False
    part = (
        namespace[: len(path)]
        if condition.match_type == "prefix"
        else namespace[len(namespace) - len(path) :]
    )
    return all(wanted in {ANY, label} for wanted, label in zip(path, part, strict=True))
