"""Checks of what the public methods are given, beyond keys and values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from .cursors import MAX_VERSION
from .entry import check_key, shown
from .errors import InvalidEntryError


def expected_version(if_version: int | None, if_absent: bool) -> int | None:
    if if_absent:
        if if_version is not None:
            raise InvalidEntryError("if_version and if_absent exclude each other")
        return 0
    if if_version is not None and (
        type(if_version) is not int or not 1 <= if_version <= MAX_VERSION
    ):
        raise InvalidEntryError("if_version must be a version that a result gave, an int above 0")
    return if_version


def checked_keys(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise InvalidEntryError(f"keys must be an iterable of str, not {type(keys).__name__}")
    wanted = list(keys)
    try:
        for key in wanted:
            check_key(key)
    except InvalidEntryError:
        for number, key in enumerate(wanted):
            check_key(key, f"keys[{number}]")  # again, to say which
    return list(dict.fromkeys(wanted))


def check_limit(limit: object, high: int) -> None:
    if type(limit) is not int or not 1 <= limit <= high:
        raise InvalidEntryError(f"limit is {shown(limit)}, it must be an int from 1 to {high}")


def check_age(age: object) -> None:
    if not isinstance(age, timedelta) or age < timedelta(0):
        raise InvalidEntryError("stray_age must be a timedelta of at least 0")
