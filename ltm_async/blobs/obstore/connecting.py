"""A client for the running loop, whose import and whose reading of files do not stop it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...errors import MissingDriverError, StoreError
from ...worker import PerProcess, aside
from .options import Cloud, Options

if TYPE_CHECKING:
    from .requests import Requests

_NEEDED_BY: dict[Cloud, tuple[str, str]] = {
    "azure": ("AzureBlobStore", "azure"),
    "s3": ("ObstoreS3BlobStore", "obstore"),
    "gcs": ("ObstoreGCSBlobStore", "obstore"),
}
"""And the extra that brings the driver."""

_threads = PerProcess(object)
"""Stands for those that the driver starts with the first call."""


async def connect(options: Options) -> Requests:
    if _threads.inherited:
        raise StoreError(
            f"{options.cloud}: obstore does not work in a child whose parent has used it: fork "
            "before the first call, or start the process by spawn",
            store=options.cloud,
        )
    requests = await aside(partial(_load, options))
    _threads.get()
    return requests


async def close(requests: Requests) -> None:
    await requests.aclose()


def _load(options: Options) -> Requests:
    try:
        from .driver import store_of
        from .requests import Requests
    except ModuleNotFoundError as exc:
        name, extra = _NEEDED_BY[options.cloud]
        raise MissingDriverError.of(exc, needed_by=name, extra=extra) from exc
    return Requests(store_of(options), options.cloud)
