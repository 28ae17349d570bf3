"""Every error this library raises.

::

    LTMError
    ├── ConfigError (ValueError)         a wrong URL, option or environment variable
    ├── MissingDriverError (ImportError) names the extra to install
    ├── InvalidEntryError (ValueError)   a key, value, TTL, metadata or batch breaks a limit
    ├── ClosedError                      used after it was closed
    ├── BlockingCallError (RuntimeError) a blocking call that would stop or deadlock a loop
    ├── ConflictError                    a compare-and-swap found another version
    ├── CachedFailureError               an action failed a while ago, which the cache remembers
    └── StoreError                       a catalog or blob store failed
        ├── UnavailableError             certainly not done; may work later
        │   └── RateLimitedError         the same, with the wait the store asked for
        ├── OutcomeUnknownError          sent, and the reply was lost: it may have happened
        │   └── DeadlineError (TimeoutError)  the call's time was up
        ├── AccessDeniedError            credentials or permissions
        ├── FencedError                  a commit refused: its lease ended, or what it kept is gone
        └── CorruptError                 a blob or row is not what was written

The class carries the decision: nothing here has a ``retryable`` flag, and no caller
needs to read a message. A driver's exception never leaves its adapter but as the
``__cause__`` of one of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping


class LTMError(Exception):
    """The root of the tree; never raised itself."""


class ConfigError(LTMError, ValueError):
    """A URL, an option or an environment variable cannot be used."""


class MissingDriverError(LTMError, ImportError):
    """A driver is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, exc: ModuleNotFoundError, *, needed_by: str, extra: str) -> MissingDriverError:
        """For an import that failed; raises *exc* itself where it is our own module's fault."""
        if (exc.name or "").startswith("ltm_async"):
            raise exc
        return cls(f"{needed_by} needs {exc.name}: pip install 'ltm-async[{extra}]'", name=exc.name)


class InvalidEntryError(LTMError, ValueError):
    """A key, value, metadata, TTL or batch breaks a limit; raised before any I/O."""


class ClosedError(LTMError):
    """The backend or the store was closed before this call."""


class BlockingCallError(LTMError, RuntimeError):
    """A blocking call where it would stop or deadlock an event loop."""


class ConflictError(LTMError):
    """A compare-and-swap found another version than it expected; nothing was written.

    Attributes:
        key: The key that was to be written.
        version: The live entry's version, or None when there is no live entry.
    """

    def __init__(self, message: str, *, key: str = "", version: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.version = version

    @classmethod
    def between(cls, key: str, expected: int, found: int | None) -> ConflictError:
        """*expected* is a version, or 0 for no entry."""
        wanted = f"version {expected}" if expected else "no entry"
        seen = "there is none" if found is None else f"it has version {found}"
        return cls(f"expected {wanted} under this key, but {seen}", key=key, version=found)


class CachedFailureError(LTMError):
    """The action failed a while ago; the cache was asked to remember it and did not run it again.

    Attributes:
        error_type: The name of the exception's class.
    """

    def __init__(self, message: str, *, error_type: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type


class StoreError(LTMError):
    """A catalog or a blob store failed; the driver's exception is ``__cause__``.

    Attributes:
        store: Which store: an adapter's name such as ``"sqlite"`` or ``"local"``.
    """

    def __init__(self, message: str, *, store: str = "") -> None:
        super().__init__(message)
        self.store = store


class UnavailableError(StoreError):
    """The store did not take the request: it had no effect, and may work later."""


class RateLimitedError(UnavailableError):
    """The store is throttling.

    Attributes:
        retry_after_s: The wait the store asked for, in seconds, or None.
    """

    def __init__(
        self, message: str, *, store: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, store=store)
        self.retry_after_s = retry_after_s


class OutcomeUnknownError(StoreError):
    """The request was sent and its reply was lost: it may have happened, or may yet."""


class DeadlineError(OutcomeUnknownError, TimeoutError):
    """The call's deadline passed before the store had answered."""


class AccessDeniedError(StoreError):
    """The store refused the credentials, or they lack a permission."""


class FencedError(StoreError):
    """A commit was refused whole: a reservation ended, or the content to keep is gone.

    The backend uploads again under new names; this reaches a caller only when that
    failed three times.
    """


class CorruptError(StoreError):
    """A row or a blob is not what was written: missing, cut, changed or forged."""


@contextlib.contextmanager
def translating(table: Mapping[type[Exception], type[StoreError]], *, store: str) -> Iterator[None]:
    """Raise the first *table* match of a driver's exception, chained to it.

    Order matters: the most specific driver exception comes first.
    """
    try:
        yield
    except tuple(table) as exc:
        for driver_error, ours in table.items():
            if isinstance(exc, driver_error):
                raise ours(f"{store}: {exc}", store=store) from exc
        raise
