"""Copies that are made of the change feed alone, compared with the worlds that may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from ltm_async import LTMBackend, WatermarkExpiredError

from .call import instant, seen
from .client import Client
from .judge import Judge
from .worlds import KEYS, Seen, looking, through


@dataclasses.dataclass
class Copy:
    entries: dict[str, Any] = dataclasses.field(default_factory=dict)
    cursor: str | None = None

    async def follow(self, ltm: LTMBackend, since: str | None = None) -> None:
        more = True
        while more:
            page = await ltm.get_changed_entries(
                since, cursor=None if since else self.cursor, limit=2
            )
            page.raise_for_error()
            for change in page.changes:
                assert change.kind in {"stored", "deleted", "expired"}
                self.entries[change.key] = change.entry
            self.cursor, since, more = page.cursor, None, page.more

    def live(self, now: int) -> dict[str, Seen | None]:
        """The entries that have not ended since the feed told of them."""
        return {
            key: seen(info)
            for key, info in self.entries.items()
            if info is not None and not 0 < instant(info.expires_at) <= now
        }


class Snapshot(NamedTuple):
    id: str | None
    entries: Mapping[str, Any]
    """Of the copy at that moment."""
    era: int


class Feed:
    """The copy that all clients keep up to date, and their snapshots."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._copy = Copy()
        self.era = 0
        """How often it has begun anew; what an earlier one told is not to be followed."""

    def begin_anew(self) -> None:
        self._copy = Copy()
        self.era += 1

    async def follow(self, client: Client) -> bool:
        return await self._compare(client, self._copy)

    async def create_snapshot(self, client: Client) -> Snapshot | None:
        if not await self.follow(client):
            return None
        made = (await client.ltm.create_snapshot("moment")).raise_for_error()
        return Snapshot(made.id, dict(self._copy.entries), self.era)

    async def follow_since(self, client: Client, snapshot: Snapshot) -> None:
        await self._compare(client, Copy(dict(snapshot.entries)), snapshot.id)

    async def _compare(self, client: Client, copy: Copy, since: str | None = None) -> bool:
        """Bring *copy* up to date and compare; false when the feed could not be read."""
        if client.trouble.down:
            return False
        client.trouble.prepare({})
        try:
            await copy.follow(client.ltm, since)
        except WatermarkExpiredError:
            copy.entries.clear()
            copy.cursor = None
            await copy.follow(client.ltm)
        judge, now = self._judge, self._judge.rig.clock()
        found = copy.live(now)
        explain = looking({key: found.get(key) for key in KEYS}, now)
        judge.now_in(through(judge.worlds, explain), "a copy fed by the changes", found)
        judge.figures["copies compared"] += 1
        return True
