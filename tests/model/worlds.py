"""What the catalog may hold: a set of possible worlds, which calls widen and answers prune.

A call whose outcome is unknown leaves the worlds in which it happened and those in which it did
not. An answer leaves the worlds that explain it; when none is left, the library is wrong.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

KEYS = ("a", "a/b", "k%", "ä😀")
"""In the order of their code points."""


class Held(NamedTuple):
    """A row, expired or not."""

    value: str
    """As JSON."""
    metadata: str
    expires_at: int | None
    version: int | None
    """None until a client has been told it."""


class Slot(NamedTuple):
    """One key."""

    held: Held | None = None
    floor: int = 0
    """The highest version that anyone was told."""


World = tuple[Slot, ...]
"""A slot for each of ``KEYS``."""
EMPTY: World = tuple(Slot() for _ in KEYS)


class Seen(NamedTuple):
    """A live entry as a client was told it; None for what the call does not tell."""

    version: int | None
    value: str | None = None
    metadata: str | None = None
    expires_at: int | None = None
    """0 where there is no end."""


def text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def live(slot: Slot, now: int) -> Held | None:
    held = slot.held
    if held is None or (held.expires_at is not None and held.expires_at <= now):
        return None
    return held


def slot_of(world: World, key: str) -> Slot:
    return world[KEYS.index(key)]


def live_entry(world: World, key: str, now: int) -> Held | None:
    return live(slot_of(world, key), now)


def _replaced(world: World, key: str, slot: Slot) -> World:
    place = KEYS.index(key)
    return (*world[:place], slot, *world[place + 1 :])


def look(world: World, key: str, now: int, seen: Seen | None) -> Iterator[World]:
    """*world* with what a client has learned, if it can have *seen* that, or None, in it."""
    slot = slot_of(world, key)
    held = live(slot, now)
    if held is None or seen is None:
        if held is None and seen is None:
            yield world
        return
    version = seen.version
    if (
        seen.value in {None, held.value}
        and seen.metadata in {None, held.metadata}
        and seen.expires_at in {None, held.expires_at or 0}
        and _may_have(slot, held, version)
    ):
        yield _replaced(world, key, _told(slot, held, version))


def _may_have(slot: Slot, held: Held | None, version: int | None) -> bool:
    """Whether *held* can be version *version*; 0 is that of no entry."""
    if version == 0 or held is None:
        return version == 0 and held is None
    if version is None or held.version is None:
        return version is None or version > slot.floor
    return held.version == version


def _told(slot: Slot, held: Held, version: int | None) -> Slot:
    if version is None:
        return slot
    return Slot(held._replace(version=version), max(slot.floor, version))


def may_pass(world: World, key: str, now: int, expected: int | None) -> bool:
    """Whether a call can go through on the condition of version *expected*; None is none."""
    slot = slot_of(world, key)
    return expected is None or _may_have(slot, live(slot, now), expected)


def may_conflict(world: World, key: str, now: int, expected: int | None) -> bool:
    """Whether the same call can be told of a conflict."""
    held = live_entry(world, key, now)
    return expected is not None and (0 if held is None else held.version) != expected


def write(world: World, key: str, held: Held) -> Iterator[World]:
    """*world* with *held* in it, if its version can be a new one."""
    floor = slot_of(world, key).floor
    if held.version is None:
        yield _replaced(world, key, Slot(held, floor))
    elif held.version > floor:
        yield _replaced(world, key, Slot(held, held.version))


def remove(world: World, *keys: str) -> World:
    for key in keys:
        world = _replaced(world, key, Slot(None, slot_of(world, key).floor))
    return world


def expired(world: World, now: int, limit: int) -> Iterator[tuple[World, int]]:
    """Each way to remove up to *limit* expired rows, the longest expired first; and how many."""
    ended = [
        (slot.held.expires_at, key)
        for key, slot in zip(KEYS, world, strict=True)
        if slot.held is not None and slot.held.expires_at is not None and not live(slot, now)
    ]
    count = min(limit, len(ended))
    least = sum(ends for ends, _ in sorted(ended)[:count])
    for chosen in itertools.combinations(ended, count):
        if sum(ends for ends, _ in chosen) == least:
            yield remove(world, *(key for _, key in chosen)), count


Explain = Callable[[World], Iterable[World]]


def through(worlds: Iterable[World], *steps: Explain) -> set[World]:
    """The worlds after *steps*, one after the other."""
    found = set(worlds)
    for explain in steps:
        found = {after for world in found for after in explain(world)}
    return found


def unchanged(world: World) -> Iterator[World]:
    yield world


def perhaps(explain: Explain) -> Explain:
    """It happened, or it did not."""
    return lambda world: [world, *explain(world)]


def looking(found: Mapping[str, Seen | None], now: int) -> Explain:
    """A look at several keys at one moment, and what it *found* there."""

    def at(key: str) -> Explain:
        return lambda world: look(world, key, now, found[key])

    return lambda world: through([world], *map(at, found))
