"""obstore's stores: one for each container and set of options, for all loops of the process."""

from __future__ import annotations

import threading
import weakref
from datetime import timedelta
from typing import Any, TypeAlias

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from ...errors import ConfigError
from .options import Cloud, Options

Store: TypeAlias = AzureStore | S3Store | GCSStore

CONNECT_TIMEOUT_S = 5
LONGEST_S = 3_600
"""Of any request, whatever else fails to end it."""

_STORES: dict[Cloud, tuple[Any, str]] = {
    "azure": (AzureStore, "endpoint"),
    "s3": (S3Store, "endpoint"),
    "gcs": (GCSStore, "base_url"),
}

_made: weakref.WeakValueDictionary[Options, Store] = weakref.WeakValueDictionary()
# Holds for "not made, so make it".
_lock = threading.Lock()


def store_of(options: Options) -> Store:
    """The store that all with these options share; making one takes 10 ms, and reads files."""
    with _lock:
        found = _made.get(options)
        if found is None:
            found = _made[options] = _make(options)
        return found


def _make(options: Options) -> Store:
    make, endpoint = _STORES[options.cloud]
    client_options: dict[str, Any] = {
        # Both are said, since the driver reads variables of these names.
        "allow_http": options.endpoint_url.startswith("http:"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=LONGEST_S),
    }
    if options.ca_file is not None:
        client_options["root_certificate"] = _read(options.ca_file)
    try:
        store: Store = make(
            options.bucket,
            config={**dict(options.settings), endpoint: options.endpoint_url},
            client_options=client_options,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
        )
    except (BaseError, ValueError, OSError):
        # What the driver says may show what it was given, or a file of credentials.
        raise ConfigError(
            f"the options of the {options.cloud} blob store, or the credentials in its "
            "environment, cannot be used"
        ) from None
    return store


def _read(ca_file: str) -> bytes:
    try:
        with open(ca_file, "rb") as file:
            return file.read()
    except OSError as exc:
        raise ConfigError(f"ca_file cannot be read: {exc.strerror or 'no file'}") from exc
