"""Judging histories: whether some order of the steps explains all that the clients were told.

:func:`check_history` is exact: a search after Wing & Gong (1993) and Lowe (2017) for an order in
which each step takes effect at one moment between its beginning and its end. It is for histories
of up to some thousand steps for a key with up to some eight clients at once. :func:`check_versions`
costs a sort, for runs of any length; what it finds is wrong for certain, and it finds less.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .histories import OK, UNKNOWN, Step

MAX_STATES = 2_000_000


class Violation(NamedTuple):
    """Why no order explains the steps of a key."""

    key: str
    what: str
    steps: list[Step]
    """What contradicts each other; from the exact check, what could not be explained any more
    after the longest beginning that could."""


class _Entry(NamedTuple):
    """What a key holds, in one possible order of the steps so far."""

    floor: int = 0
    """The highest version so far: each change has a higher one."""
    value: str | None = None
    """None for no live entry."""
    version: int | None = None
    """None where no client was told it yet."""
    mortal: bool = False


def check_history(history: Iterable[Step]) -> list[Violation]:
    """Whether the steps of each key are linearizable; a violation for each key that is not.

    An entry with an end may be gone at any time: whether it went too early is not judged.

    Raises:
        RuntimeError: A key has too much at once for the search.
    """
    return [found for key, steps in _by_key(history).items() if (found := _check_key(key, steps))]


def _by_key(history: Iterable[Step]) -> dict[str, list[Step]]:
    keys: dict[str, list[Step]] = collections.defaultdict(list)
    for step in history:
        if step.status == OK or (step.status == UNKNOWN and step.kind != "retrieve"):
            keys[step.key].append(step)
    for steps in keys.values():
        steps.sort(key=lambda step: step.invoked_ns)
    return keys


def _check_key(key: str, steps: Sequence[Step]) -> Violation | None:
    ends = [_end_of(step) for step in steps]
    needed = sum(1 << number for number, step in enumerate(steps) if step.status == OK)
    furthest, stuck = -1, [0]
    seen: set[tuple[int, _Entry]] = set()
    todo = [(0, _Entry())]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        if len(seen) > MAX_STATES:
            raise RuntimeError(f"more than {MAX_STATES} states of {key!r} are possible")
        done, entry = place
        if done & needed == needed:
            return None
        enabled = _enabled(done, steps, ends)
        explained = (done & needed).bit_count()
        if explained > furthest:
            furthest, stuck = explained, enabled
        todo += _successors(done, entry, enabled, steps)
    return Violation(key, "no order of the steps explains them", [steps[n] for n in stuck])


def _end_of(step: Step) -> float:
    """Until when it may take effect."""
    if step.status == UNKNOWN or step.returned_ns is None:
        return math.inf
    return step.returned_ns


def _enabled(done: int, steps: Sequence[Step], ends: Sequence[float]) -> list[int]:
    """The steps that may be next: no other one ended before they began. The soonest to end last."""
    first = (~done & (done + 1)).bit_length() - 1
    limit = math.inf
    found: list[int] = []
    for number in range(first, len(steps)):
        if done >> number & 1:
            continue
        if steps[number].invoked_ns > limit:
            break
        found.append(number)
        limit = min(limit, ends[number])
    return sorted(found, key=lambda number: -ends[number])


def _successors(
    done: int, entry: _Entry, enabled: Sequence[int], steps: Sequence[Step]
) -> list[tuple[int, _Entry]]:
    for number in enabled:
        # What only looked at the entry as it is can be first in any order.
        if steps[number].status == OK and entry in _after(entry, steps[number]):
            return [(done | 1 << number, entry)]
    # Versions only grow, so those that were told are told in their order.
    told = [steps[number].version for number in enabled]
    lowest = min((version for version in told if version is not None), default=math.inf)
    return [
        (done | 1 << number, after)
        for number in enabled
        for after in _after(entry, steps[number])
        if after.floor <= lowest and after != entry
    ]


def _after(entry: _Entry, step: Step) -> list[_Entry]:
    """What *step* leaves of *entry*, if its client could be told what it was."""
    found = list(_effect(entry, step))
    if entry.mortal:
        found += _effect(_gone(entry), step)
    return found


def _gone(entry: _Entry) -> _Entry:
    return _Entry(floor=entry.floor)


def _effect(entry: _Entry, step: Step) -> Iterator[_Entry]:
    told = step.status == OK
    held = step.if_version is None or _may_have(entry, step.if_version)
    match step.kind:
        case "retrieve":
            if step.value != entry.value:
                return
            if step.value is None:
                yield entry
            elif _may_have(entry, step.version):
                yield _with_version(entry, step.version)
        case "store" if told and not step.done:
            if not _must_have(entry, step.if_version):
                yield entry
        case "store" if held:
            yield from _written(entry, step)
        case "update" if step.replaced == entry.value:
            yield from _written(entry, step)
        case "touch" if told and not step.done:
            if entry.value is None:
                yield entry
        case "touch" if entry.value is not None:
            yield from _written(entry, step, value=entry.value)
        case "delete" if told and not step.done:
            missed = entry.value is None if step.error is None else True
            if missed and not _must_have(entry, step.if_version):
                yield entry
        case "delete" if held and (entry.value is not None or not told):
            yield _gone(entry)


def _may_have(entry: _Entry, version: int | None) -> bool:
    """Whether *entry* can have *version*; 0 is that of no entry."""
    if version == 0:
        return entry.value is None
    if entry.value is None:
        return False
    if version is None or entry.version is None:
        return version is None or version > entry.floor
    return entry.version == version


def _must_have(entry: _Entry, version: int | None) -> bool:
    if version == 0:
        return entry.value is None
    return version is not None and entry.value is not None and entry.version == version


def _with_version(entry: _Entry, version: int | None) -> _Entry:
    if version is None or entry.version is not None:
        return entry
    return entry._replace(version=version, floor=version)


def _written(entry: _Entry, step: Step, *, value: str | None = None) -> Iterator[_Entry]:
    version = step.version if step.status == OK else None
    floor = entry.floor if step.if_version is None else max(entry.floor, step.if_version)
    if version is None or version > floor:
        yield _Entry(
            floor=floor if version is None else version,
            value=value or step.value,
            version=version,
            mortal=entry.mortal if step.mortal is None else step.mortal,
        )


def check_versions(history: Iterable[Step]) -> list[Violation]:
    """What no order could explain, as far as versions and times alone tell.

    For each key: no client sees a version below one that was seen before it asked, and no write
    is given one; two values, or two writes, never have the same version; and an entry that was
    written, and was not to end, is there while no delete could have removed it.
    """
    return [
        Violation(key, what, found)
        for key, steps in _by_key(history).items()
        for what, found in (*_going_back(steps), *_shared(steps), *_lost(steps))
    ]


def _going_back(steps: Sequence[Step]) -> Iterator[tuple[str, list[Step]]]:
    """*steps* are in the order of their beginnings."""
    known = [step for step in steps if step.version is not None]
    ended = sorted(known, key=_end_of)
    last = 0
    highest: Step | None = None
    for step in known:
        while _end_of(ended[last]) < step.invoked_ns:
            if highest is None or (ended[last].version or 0) > (highest.version or 0):
                highest = ended[last]
            last += 1
        if highest is None or step.version is None or highest.version is None:
            continue
        if step.version < highest.version:
            yield "a version lower than one seen before", [highest, step]
        elif step.version == highest.version and step.kind != "retrieve":
            yield "a write with a version seen before", [highest, step]


def _shared(steps: Sequence[Step]) -> Iterator[tuple[str, list[Step]]]:
    values: dict[int, Step] = {}
    writers: dict[int, Step] = {}
    for step in steps:
        if step.version is None:
            continue
        if step.kind != "touch":
            other = values.setdefault(step.version, step)
            if other.value != step.value:
                yield "two values with one version", [other, step]
        if step.kind != "retrieve":
            other = writers.setdefault(step.version, step)
            if other is not step:
                yield "two writes with one version", [other, step]


def _lost(steps: Sequence[Step]) -> Iterator[tuple[str, list[Step]]]:
    if any(step.mortal is not False for step in steps if step.kind != "update"):
        return
    writes = [s for s in steps if s.status == OK and s.done and s.kind in {"store", "update"}]
    writes.sort(key=_end_of)
    deletes = [step for step in steps if step.kind == "delete" and step.done]
    absent = [s for s in steps if s.kind == "retrieve" and s.status == OK and s.value is None]
    # By the end of the read: the delete that ended last of those that could be before it.
    absent.sort(key=_end_of)
    removed_until: dict[int, float] = {}
    latest, place = -math.inf, 0
    for step in absent:
        while place < len(deletes) and deletes[place].invoked_ns <= _end_of(step):
            latest = max(latest, _end_of(deletes[place]))
            place += 1
        removed_until[id(step)] = latest
    # By its beginning: the write that began last of those that were certainly before it.
    newest: Step | None = None
    place = 0
    for step in sorted(absent, key=lambda step: step.invoked_ns):
        while place < len(writes) and _end_of(writes[place]) < step.invoked_ns:
            if newest is None or writes[place].invoked_ns > newest.invoked_ns:
                newest = writes[place]
            place += 1
        if newest is not None and removed_until[id(step)] < newest.invoked_ns:
            yield "an entry is gone that nobody can have deleted", [newest, step]
