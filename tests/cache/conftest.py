"""Fixtures of the tests of the cache."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest

from ..backends import PAIRS
from .rigs import CacheRig, make_cache_rig


@pytest.fixture(params=PAIRS)
async def on_every_pair(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CacheRig]:
    rig = make_cache_rig(request.param, tmp_path, monkeypatch)
    yield rig
    await rig.rig.aclose()


@pytest.fixture
async def caching(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CacheRig]:
    rig = make_cache_rig("memory+memory", tmp_path, monkeypatch)
    yield rig
    await rig.rig.aclose()
