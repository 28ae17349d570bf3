"""The right to run an action, held by one of many processes and ending by itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator

from ..backend import LTMBackend
from ..errors import ConflictError, LTMError

logger = logging.getLogger(__name__)

LEASE_PREFIX = "_cache/lease/"
RENEWALS = 3
"""Tries to renew a lease within its life."""
RENEW_TIMEOUT_S = 10.0
RELEASE_TIMEOUT_S = 2.0


def lease_key(key: str) -> str:
    """The entry that holds the lease on *key*, in the same namespace."""
    return LEASE_PREFIX + hashlib.sha256(key.encode()).hexdigest()


class Lease:
    """An entry of the same catalog, which exists while somebody works on a key.

    It is taken by compare-and-swap and ends by the catalog's clock, so that a process that was
    killed holds nobody up for longer. It saves work and protects nothing: when it was lost, or
    could not be had, the action may run twice.
    """

    def __init__(self, ltm: LTMBackend, key: str, life_s: float) -> None:
        self._ltm = ltm
        self._key = lease_key(key)
        self._life_s = life_s
        self._value = {"holder": os.urandom(8).hex()}
        self._version: int | None = None

    @classmethod
    async def take(
        cls, ltm: LTMBackend, key: str, life_s: float, *, timeout: float | None
    ) -> Lease | None:
        """The lease on *key*, or None while another holds it.

        Raises:
            LTMError: The memory failed; nobody may hold it.
        """
        lease = cls(ltm, key, life_s)
        try:
            taken = await ltm.store(
                lease._key, lease._value, if_absent=True, ttl=life_s, timeout=timeout
            )
        except ConflictError:
            return None
        lease._version = taken.raise_for_error().version
        return lease

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Renew it while the body runs, and release it at the end."""
        renewing = asyncio.get_running_loop().create_task(self._keep_renewing())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await self.release()

    async def release(self) -> None:
        if self._version is None:
            return
        with contextlib.suppress(LTMError):  # it ends by itself
            await self._ltm.delete(self._key, if_version=self._version, timeout=RELEASE_TIMEOUT_S)

    async def _keep_renewing(self) -> None:
        pause_s = self._life_s / RENEWALS
        while self._version is not None:
            await asyncio.sleep(pause_s)
            try:
                await self.renew(timeout=min(pause_s, RENEW_TIMEOUT_S))
            except LTMError as exc:
                logger.debug("a lease was not renewed: %s", type(exc).__name__)

    async def renew(self, *, timeout: float | None) -> None:
        """Begin its life anew, unless another has taken it after its end.

        Raises:
            LTMError: The memory failed.
        """
        try:
            renewed = await self._ltm.store(
                self._key,
                self._value,
                if_version=self._version,
                ttl=self._life_s,
                timeout=timeout,
            )
        except ConflictError:
            self._version = None
            return
        self._version = renewed.raise_for_error().version
