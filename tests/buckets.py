"""The GCS of the tests whose pair of stores has one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ltm_async.clock import system_clock

from .servers.gcs import GcsServer

_current: list[GcsServer] = []


@pytest.fixture(autouse=True)
def _gcs_of_a_pair(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test whose parameters name a pair with GCS has one."""
    if "[" not in request.node.name or "gcs" not in request.node.name:
        yield
        return
    server: GcsServer = request.getfixturevalue("gcs_server")
    _current.append(server)
    yield
    _current.clear()
    server.clock = system_clock


def current() -> GcsServer:
    """The server of the running test."""
    (server,) = _current
    return server
