"""Azure blob stores for tests, on the servers of :mod:`tests.servers`."""

from __future__ import annotations

from typing import Any

from ltm_async import AzureBlobStore

from .servers.azurite import Azurite


def store_on(
    server: Azurite, container: str | None = None, *, prefix: str = "pre/fix/", **options: Any
) -> AzureBlobStore:
    """A store in *container*, or in a new one."""
    given = {
        "account_name": server.account_name,
        "account_key": server.account_key,
        "endpoint_url": server.endpoint_url,
        **options,
    }
    return AzureBlobStore(f"az://{container or server.new_container()}/{prefix}", **given)


def container_of(store: AzureBlobStore) -> str:
    return store.uri("").split("/")[2]
