"""What happens to a test whose server is not on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

import pytest

VARIABLE = "LTM_TEST_REQUIRE"


def missing(server: str, how_to_get: str, environ: Mapping[str, str] = os.environ) -> NoReturn:
    """Skip the test; fail it where the environment says that *server* has to be there.

    So that an automatic run cannot pass by skipping what it is for.
    """
    required = environ.get(VARIABLE, "").replace(",", " ").split()
    if server in required:
        pytest.fail(f"{VARIABLE} names {server}, which is not here: {how_to_get}", pytrace=False)
    pytest.skip(f"{server} is not here: {how_to_get}")
