"""What the catalog may hold: a set of possible worlds, which calls widen and answers prune.

A call whose outcome is unknown leaves the worlds in which it happened and those in which it did
not. An answer leaves the worlds that explain it; when none is left, the library is wrong.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
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


def replaced(world: World, place: int, slot: Slot) -> World:
    return (*world[:place], slot, *world[place + 1 :])


def look(world: World, key: str, now: int, seen: Seen | None) -> Iterator[World]:
    """*world* with what a client has learned, if it can have *seen* that, or None, in it."""
    place = KEYS.index(key)
    slot = world[place]
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
        and may_have(slot, held, version)
    ):
        yield replaced(world, place, _told(slot, held, version))


def may_have(slot: Slot, held: Held | None, version: int | None) -> bool:
    """Whether *held* can be version *version*; 0 is that of no entry."""
    if version == 0 or held is None:
        return version == 0 and held is None
    if version is None or held.version is None:
        return version is None or version > slot.floor
    return held.version == version


def must_have(held: Held | None, version: int) -> bool:
    return (0 if held is None else held.version) == version


def _told(slot: Slot, held: Held, version: int | None) -> Slot:
    if version is None:
        return slot
    return Slot(held._replace(version=version), max(slot.floor, version))


def write(world: World, key: str, held: Held) -> Iterator[World]:
    """*world* with *held* in it, if its version can be a new one."""
    place = KEYS.index(key)
    floor = world[place].floor
    if held.version is None:
        yield replaced(world, place, Slot(held, floor))
    elif held.version > floor:
        yield replaced(world, place, Slot(held, held.version))


def remove(world: World, key: str) -> World:
    place = KEYS.index(key)
    return replaced(world, place, Slot(None, world[place].floor))


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
            after = world
            for _, key in chosen:
                after = remove(after, key)
            yield after, count


Explain = Callable[[World], Iterable[World]]


def through(worlds: Iterable[World], *steps: Explain) -> set[World]:
    """The worlds after *steps*, one after the other."""
    found = set(worlds)
    for explain in steps:
        found = {after for world in found for after in explain(world)}
    return found
