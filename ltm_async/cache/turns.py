"""Waiting for the turn to run an action, among processes, or for what another one made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from ..backend import LTMBackend
from ..deadline import remaining_s
from .entries import Found
from .leases import Lease, lease_key
from .policy import Policy

PAUSE_BASE_S = 0.05
PAUSE_CAP_S = 1.0


async def take_turn(
    ltm: LTMBackend,
    key: str,
    life_s: float,
    policy: Policy,
    *,
    recall: Callable[[], Awaitable[Found | None]],
    serves: Callable[[Found], bool],
) -> Lease | Found | None:
    """The lease on *key*, or what another process has made meanwhile and *serves* accepts.

    One round trip takes the lease and one looks again, since another may have been faster; while it
    is held elsewhere one round trip a pause looks at both. None when the wait is over.

    Raises:
        LTMError: The memory failed.
    """
    loop = asyncio.get_running_loop()
    remaining = remaining_s()
    # Of a deadline half is left for the action.
    wait_s = policy.lease_wait if remaining is None else min(policy.lease_wait, remaining / 2)
    give_up_at = loop.time() + wait_s
    longest_s = PAUSE_BASE_S
    while True:
        lease = await Lease.take(ltm, key, life_s, timeout=policy.timeout)
        if lease is not None:
            return await _still_wanted(lease, recall, serves)
        held = True
        while held:
            pause_s = random.uniform(0.5, 1) * longest_s
            longest_s = min(PAUSE_CAP_S, 2 * longest_s)
            if loop.time() + pause_s > give_up_at:
                return None
            await asyncio.sleep(pause_s)
            read = await ltm.retrieve_batch([key, lease_key(key)], timeout=policy.timeout)
            found = read.raise_for_error().results
            if key in found and serves(Found(found[key])):
                return Found(found[key])
            held = lease_key(key) in found


async def _still_wanted(
    lease: Lease,
    recall: Callable[[], Awaitable[Found | None]],
    serves: Callable[[Found], bool],
) -> Lease | Found:
    try:
        found = await recall()
    except BaseException:
        await lease.release()
        raise
    if found is None or not serves(found):
        return lease
    await lease.release()
    return found
