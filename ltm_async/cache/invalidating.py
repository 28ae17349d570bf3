"""Deleting cached results by a pattern of their keys, or by their metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..backend import LTMBackend
from ..entry import check_text
from ..errors import InvalidEntryError
from ..results import Failure
from .entries import ACTION, InvalidateResult

MAX_PATTERN_BYTES = 1024
PAGE = 1000
OURS: Mapping[str, Any] = {ACTION: {"$exists": True}}
"""A filter that holds for what a cache wrote, and for nothing else in the memory."""


def literal_prefix(pattern: str) -> str:
    """What every key that matches *pattern* begins with."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a key is like *pattern*: ``*`` is any text, ``?`` any one character.

    The text between two stars is taken where it first comes, which never needs a second try, so
    that no pattern takes long.

    Raises:
        InvalidEntryError: *pattern* is no text that a key could match.
    """
    check_text("pattern", pattern, MAX_PATTERN_BYTES)
    if not pattern:
        raise InvalidEntryError("pattern is empty; '*' is every key")
    first, *others = [
        re.compile(re.escape(part).replace(r"\?", "."), re.DOTALL) for part in pattern.split("*")
    ]
    if not others:
        return lambda key: first.fullmatch(key) is not None
    *middle, last = others
    last_length = len(pattern) - pattern.rindex("*") - 1

    def matches(key: str) -> bool:
        found = first.match(key)
        for part in middle:
            found = None if found is None else part.search(key, found.end())
        if found is None or len(key) - last_length < found.end():
            return False
        return last.fullmatch(key, len(key) - last_length) is not None

    return matches


async def invalidate_all(
    ltm: LTMBackend,
    *,
    prefix: str,
    matches: Callable[[str], bool],
    metadata_filter: Mapping[str, Any],
    timeout: float | None,
) -> InvalidateResult:
    """Delete the entries below *prefix* whose key *matches*, as the filter does; by the page."""
    deleted = 0
    errors: dict[str, Failure] = {}
    cursor: str | None = None
    while True:
        page = await ltm.list_entries(
            prefix, metadata_filter=metadata_filter, cursor=cursor, limit=PAGE, timeout=timeout
        )
        errors |= page.errors
        if page.exception is not None:
            return InvalidateResult(deleted=deleted, errors=errors, exception=page.exception)
        keys = [info.key for info in page.entries if matches(info.key)]
        if keys:
            done = await ltm.delete_batch(keys, timeout=timeout)
            deleted += done.deleted
            errors |= done.errors
            if done.exception is not None:
                return InvalidateResult(deleted=deleted, errors=errors, exception=done.exception)
        cursor = page.cursor
        if cursor is None:
            return InvalidateResult(deleted=deleted, errors=errors)
