"""A call to be answered, what it gave to all who wait for it, and the answer of each."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from ..entry import decode, encode
from ..errors import InvalidEntryError
from ..results import Failure
from .entries import CREATED_AT, Found
from .policy import Policy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an action, and how it is to be answered."""

    key: str
    action: str
    run: Callable[[], Awaitable[Any]]
    policy: Policy
    metadata: Mapping[str, Any]
    """The user's own."""


class Answer(NamedTuple):
    value: Any
    hit: bool
    key: str | None
    """None where the memory was left out."""
    created_at: str | None
    """None where the result is not in the memory."""


class Outcome:
    """What a lookup or a run gave to all who wait for it.

    The first to take it has the value itself and sees to what follows; each other has a copy of its
    own, so that none sees another's changes.
    """

    def __init__(
        self,
        value: Any,
        created_at: str | None,
        *,
        hit: bool = False,
        failure: Failure | None = None,
        refresh: Found | None = None,
    ) -> None:
        self.created_at = created_at
        self.hit = hit
        self.failure = failure
        self.refresh = refresh
        """What was served and is to be refreshed."""
        self._value = value
        self._text: str | None = None
        self._taken = False

    @classmethod
    def of(cls, found: Found, *, refresh: bool = False) -> Outcome:
        return cls(
            found.hit.value,
            found.created_at,
            hit=True,
            failure=found.failure,
            refresh=found if refresh else None,
        )

    def prepare_copies(self) -> None:
        with contextlib.suppress(InvalidEntryError):  # no JSON: there is only the one
            self._text = encode("value", self._value)

    def take(self) -> tuple[Any, bool]:
        """The value, and whether this is the first to take it."""
        first, self._taken = not self._taken, True
        return self._value if first or self._text is None else decode(self._text), first


def is_failure(value: Any) -> bool:
    """An action may report its failure as ``{"success": False, …}``."""
    return isinstance(value, dict) and value.get("success") is False


def told(answer: Answer) -> dict[str, Any]:
    """The answer as ``wrap`` gives it."""
    value = answer.value if isinstance(answer.value, dict) else {"result": answer.value}
    return {
        **value,
        "_cache_hit": answer.hit,
        "_cache_key": answer.key,
        CREATED_AT: answer.created_at,
    }
