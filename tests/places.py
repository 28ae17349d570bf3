"""The servers of the test that runs, where its pair of stores has any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ltm_async.clock import system_clock

from .databases import Database
from .projects import Project
from .servers.azurite import Azurite
from .servers.gcs import GcsServer
from .servers.ministack import MiniStack

FIXTURES = {
    "postgres": "database",
    "supabase": "project",
    "firestore": "firestore_server",
    "s3": "s3_server",
    "gcs": "gcs_server",
    "azure": "azure_server",
}
_here: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _servers_of_a_pair(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test whose parameters name a pair with servers has them."""
    parameters = request.node.name.partition("[")[2]
    for name, fixture in FIXTURES.items():
        if f"{name}+" in parameters or f"+{name}" in parameters:
            _here[name] = request.getfixturevalue(fixture)
    yield
    if "gcs" in _here:
        gcs().clock = system_clock
    _here.clear()


def database() -> Database:
    found = _here["postgres"]
    assert isinstance(found, Database)
    return found


def project() -> Project:
    found = _here["supabase"]
    assert isinstance(found, Project)
    return found


def s3() -> MiniStack:
    found = _here["s3"]
    assert isinstance(found, MiniStack)
    return found


def azure() -> Azurite:
    found = _here["azure"]
    assert isinstance(found, Azurite)
    return found


def gcs() -> GcsServer:
    found = _here["gcs"]
    assert isinstance(found, GcsServer)
    return found
