"""How often and how patiently to try again."""

from __future__ import annotations

from .entry import shown
from .errors import ConfigError, RateLimitedError, StoreError
from .frozen import Frozen, frozen


@frozen
class RetryPolicy(Frozen):
    """How often and how patiently a store is asked again.

    The wait before try *n* is drawn evenly from 0 to ``min(cap_s, base_s * 2**n)`` ("full
    jitter", https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A wait
    that the call's deadline does not allow ends the trying at once.
    """

    attempts: int = 4
    """Tries in all, 1 to 100; 1 never tries again."""
    base_s: float = 0.05
    throttled_base_s: float = 0.5
    """Instead of *base_s* when a store throttles without saying for how long."""
    cap_s: float = 5.0

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= 100:
            raise ConfigError(f"retry.attempts is {shown(self.attempts)}, it must be 1 to 100")
        for name in ("base_s", "throttled_base_s", "cap_s"):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise ConfigError(f"retry.{name} must be a number of seconds")
            if not 0 < seconds <= 3600:
                raise ConfigError(
                    f"retry.{name} is {shown(seconds)}, it must be above 0, at most 3600"
                )

    def wait_s(self, tried: int, exc: StoreError) -> float:
        """How long to wait after *tried* tries, the last of which raised *exc*."""
        import random  # takes longer than all else here, and most calls never wait

        base_s = self.base_s
        if isinstance(exc, RateLimitedError):
            if exc.retry_after_s is not None:
                return exc.retry_after_s
            base_s = self.throttled_base_s
        return random.uniform(0, min(self.cap_s, base_s * 2.0 ** (tried - 1)))
