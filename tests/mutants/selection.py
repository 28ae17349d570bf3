"""A plugin of pytest that leaves out each test with a server, for mutmut."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    served = [item for item in items if _has_server(item)]
    config.hook.pytest_deselected(items=served)
    items[:] = [item for item in items if item not in served]


def _has_server(item: pytest.Item) -> bool:
    return any(name.endswith("_server") for name in getattr(item, "fixturenames", ()))
