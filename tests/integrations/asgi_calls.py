"""Requests to an ASGI app without a server, and the connections of a backend on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from ltm_async import LTMBackend
from ltm_async.integrations.asgi import App
from tests.databases import Console, Database


async def get(app: App, path: str = "/", **more: Any) -> tuple[int, bytes]:
    """The status and body of a GET."""
    sent: list[MutableMapping[str, Any]] = []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return requests.pop() if requests else await asyncio.get_running_loop().create_future()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        **more,
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


class Counted:
    """A backend on PostgreSQL whose connections can be told from all others by their name."""

    def __init__(self, database: Database, console: Console) -> None:
        self._console = console
        self.name = f"ltm-{uuid.uuid4().hex}"
        self.url = f"{database.dsn}?schema={database.schema}&application_name={self.name}"

    def backend(self) -> LTMBackend:
        return LTMBackend(self.url, "memory:", on_unavailable="raise")

    def pids(self) -> list[int]:
        rows = self._console.rows(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1", self.name
        )
        return [pid for (pid,) in rows]

    def settle(self, count: int) -> None:
        """Wait until there are *count*, which the server may learn a little later than we."""
        give_up = time.monotonic() + 5
        while len(self.pids()) != count:
            assert time.monotonic() < give_up, f"{len(self.pids())} connections, not {count}"
            time.sleep(0.01)
