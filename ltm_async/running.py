"""Running the public calls of one backend: its stores, its time, and what is done with failures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from . import telemetry
from .calling import Caller
from .config import Options, check_timeout
from .deadline import Deadline
from .entry import one_line
from .errors import ClosedError, StoreError
from .fallback import Fallback
from .protocols import BlobStore, Catalog
from .results import Result
from .stores import Stores
from .transfer import Gate, PerLoop
from .values import PlainValues, Values

if TYPE_CHECKING:
    from .embedding import Embedder
    from .vectors import Embed

R = TypeVar("R", bound=Result)

logger = logging.getLogger(__name__)

WARN_EVERY_S = 60.0


def _values(options: Options) -> Values:
    if options.encryption is None:
        return PlainValues()
    from .sealing import SealedValues

    return SealedValues(options.encryption, options.namespace)


def _embedder(embed: Embed | None) -> Embedder | None:
    if embed is None:
        return None
    from .embedding import Embedder

    return Embedder(embed)


class Runner:
    """Makes the stores on first use, keeps each call's deadline, and reports what fails."""

    def __init__(
        self,
        options: Options,
        make_catalog: Callable[[], Catalog],
        make_blobs: Callable[[], BlobStore],
    ) -> None:
        self.options = options
        self.made: Stores | None = None
        """The stores, once a call has needed them."""
        self.closed = False
        remembers = options.on_unavailable == "degrade" and options.fallback_size > 0
        self.fallback = Fallback(options.fallback_size) if remembers else None
        self._make_catalog = make_catalog
        self._make_blobs = make_blobs
        self._making = threading.Lock()
        self._warned_at = -WARN_EVERY_S

    def stores(self) -> Stores:
        """The stores, made on first use."""
        if self.closed:
            raise ClosedError("the backend is closed")
        if self.made is not None:
            return self.made
        options = self.options
        with self._making:
            if self.made is None:
                self.made = Stores(
                    catalog=self._make_catalog(),
                    blobs=self._make_blobs(),
                    namespace=options.namespace,
                    values=_values(options),
                    to_catalog=Caller("catalog", options.retry),
                    to_blobs=Caller("blob store", options.retry),
                    inline_threshold=options.inline_threshold,
                    batch_size=options.batch_size,
                    index_text=options.index_text,
                    embedder=_embedder(options.embed),
                    max_concurrency=options.max_concurrency,
                    gates=PerLoop(
                        lambda: Gate(
                            count=options.max_concurrency, size=options.max_inflight_bytes // 2
                        )
                    ),
                )
        return self.made

    async def call(
        self,
        method: str,
        work: Callable[[Stores], Awaitable[R]],
        failed: Callable[[StoreError], R],
        timeout: float | None,
    ) -> R:
        """Do *work* within the deadline; what a store failed at becomes a result or is raised."""
        timeout_s = self.timeout_s(timeout)
        with telemetry.span(method):
            try:
                async with Deadline(timeout_s):
                    return await work(self.stores())
            except StoreError as exc:
                telemetry.failed(exc)
                return failed(self.operational(exc))

    async def call_batch(
        self,
        method: str,
        work: Callable[[Stores, float | None], Awaitable[R]],
        timeout: float | None,
    ) -> R:
        """Do *work*, which reports what a store failed at in its result and keeps the time."""
        with telemetry.span(method):
            result = await work(self.stores(), self.timeout_s(timeout))
            if isinstance(result.exception, StoreError):
                telemetry.failed(result.exception)
                self._warn(result.exception)
            return result

    def forget(self, keys: Iterable[str]) -> None:
        """Do not recall what is about to change."""
        if self.fallback is not None:
            self.fallback.forget(keys)

    def timeout_s(self, timeout: float | None) -> float | None:
        check_timeout(timeout)
        return self.options.timeout if timeout is None else timeout

    def operational(self, exc: StoreError) -> StoreError:
        """*exc* to be reported in a result, or raised where the user wants that."""
        if self.options.on_unavailable == "raise":
            raise exc
        self._warn(exc)
        return exc

    def _warn(self, exc: StoreError) -> None:
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            logger.warning(
                "going on without the memory: %s: %s", type(exc).__name__, one_line(str(exc))
            )
