"""Cursors of the change feed: all that a pass has to remember, as one text.

They go to users and come back, so each field is checked before it is used.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

from .entry import check_key
from .errors import CorruptError, InvalidEntryError, WatermarkExpiredError
from .protocols import Change, ChangePage

MAX_CURSOR_CHARS = 64 * 1024
MAX_VERSION = 2**63 - 2
DELETIONS_KEPT_US = 7 * 86_400 * 1_000_000
"""How long a catalog remembers what was deleted, and so how old a watermark may be."""

Field: TypeAlias = str | int | None

NONE = type(None)
_TEXT = re.compile(r"[A-Za-z0-9_-]+")


def write_cursor(*fields: Field) -> str:
    text = json.dumps(fields, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, kind: str, shapes: Sequence[Sequence[type]]) -> list[Any]:
    """The fields after *kind*, of the types of one of *shapes*; numbers are from 0.

    Raises:
        InvalidEntryError: It is none that a catalog of this kind gave.
    """
    if len(cursor) > MAX_CURSOR_CHARS or not _TEXT.fullmatch(cursor):
        refuse_cursor()
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        fields = json.loads(text)
    except (ValueError, RecursionError):
        refuse_cursor()
    if type(fields) is not list or fields[:1] != [kind]:
        refuse_cursor()
    del fields[0]
    if [type(field) for field in fields] not in [list(shape) for shape in shapes]:
        refuse_cursor()
    for field in fields:
        if type(field) is int and not 0 <= field <= MAX_VERSION:
            refuse_cursor()
    return fields


def refuse_cursor() -> NoReturn:
    raise InvalidEntryError("cursor is none that this catalog gave")


def read_key(key: str) -> str:
    """A field that is a key."""
    try:
        check_key(key)
    except InvalidEntryError:
        refuse_cursor()
    return key


def last_named(changes: Sequence[Change]) -> Change:
    """The last change of a page that a cursor can name; one behind it is reported again.

    Raises:
        CorruptError: None of their keys can be one.
    """
    for change in reversed(changes):
        try:
            check_key(change.key)
        except InvalidEntryError:
            continue
        return change
    raise CorruptError(f"a whole page of {len(changes)} changes has no key that can be one")


class VersionPass(NamedTuple):
    """A pass over a catalog whose versions are in the order of its commits."""

    since: int | None
    """The watermark: the last version of the pass before; None when there was none."""
    upper: int | None
    """The last version of this pass; None while it has not begun."""
    version: int
    """Go on above this version and key."""
    key: str

    @classmethod
    def of(cls, cursor: str) -> VersionPass:
        if not cursor:
            return cls(None, None, 0, "")
        fields = read_cursor(cursor, "v", [(int,), (int, int, int, str), (NONE, int, int, str)])
        if len(fields) == 1:
            return cls(fields[0], None, fields[0] + 1, "")
        since, upper, version, key = fields
        if not (since or 0) < version <= upper:
            refuse_cursor()
        return cls(since, upper, version, read_key(key))

    def check(self, last: int, pruned: int) -> None:
        """With the catalog's last version, and the last deletion that it has forgotten."""
        if (self.since or 0) > last or (self.upper or 0) > last:
            raise WatermarkExpiredError.foreign()
        if self.since is not None and self.since < pruned:
            raise WatermarkExpiredError.pruned()

    def page(self, found: Sequence[Change], upper: int, limit: int) -> ChangePage:
        if len(found) < limit:
            return ChangePage(found, version_watermark(upper), more=False)
        last = last_named(found)
        cursor = write_cursor("v", self.since, upper, last.version, last.key)
        return ChangePage(found, cursor, more=True)


def version_watermark(version: int) -> str:
    return write_cursor("v", version)
