"""Making catalogs and backends by name, URL or configuration mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from .backend import LTMBackend
from .errors import ConfigError
from .protocols import BlobStore, Catalog
from .registry import plan_catalog

if TYPE_CHECKING:
    from .sync import SyncLTMBackend


def create_catalog_backend(type: str | Mapping[str, Any], **config: Any) -> Catalog:
    """A catalog by its type and options, by URL, or by a mapping with the key ``type``.

    >>> create_catalog_backend("sqlite", path="memory.db")
    SQLiteCatalog('memory.db')

    ``${NAME}`` and ``${NAME:-default}`` in mappings and options are replaced from the environment.
    Nothing is opened.

    Raises:
        ConfigError: The type or an option is unknown or wrong.
        MissingDriverError: The type's driver is not installed.
    """
    if isinstance(type, Mapping):
        return plan_catalog({**type, **config})()
    if ":" not in type:
        return plan_catalog({"type": type, **config})()
    if config:
        raise ConfigError("a catalog's URL carries its options itself")
    return plan_catalog(type)()


@overload
def create_ltm_backend(
    catalog: Catalog | str | Mapping[str, Any],
    storage_uri: BlobStore | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    sync: Literal[False] = False,
    **options: Any,
) -> LTMBackend: ...


@overload
def create_ltm_backend(
    catalog: Catalog | str | Mapping[str, Any],
    storage_uri: BlobStore | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    sync: Literal[True],
    allow_blocking: bool = False,
    **options: Any,
) -> SyncLTMBackend: ...


@overload
def create_ltm_backend(
    catalog: Catalog | str | Mapping[str, Any],
    storage_uri: BlobStore | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    sync: bool,
    **options: Any,
) -> LTMBackend | SyncLTMBackend: ...


def create_ltm_backend(
    catalog: Catalog | str | Mapping[str, Any],
    storage_uri: BlobStore | str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    sync: bool = False,
    **options: Any,
) -> LTMBackend | SyncLTMBackend:
    """A backend from the same arguments as :class:`LTMBackend`, or from one mapping.

    A mapping alone is a configuration: see :meth:`LTMBackend.from_config`. With *sync* it is a
    :class:`SyncLTMBackend`, for code without an event loop, which takes ``allow_blocking`` too.

    Raises:
        ConfigError: An argument cannot be used.
    """
    if sync:
        from .sync import SyncLTMBackend

        allow_blocking = options.pop("allow_blocking", False)
        ltm = create_ltm_backend(catalog, storage_uri, **options)
        return SyncLTMBackend.from_backend(ltm, allow_blocking=allow_blocking)
    if storage_uri is not None:
        return LTMBackend(catalog, storage_uri, **options)
    if isinstance(catalog, Mapping):
        return LTMBackend.from_config({**catalog, **options})
    raise ConfigError("storage_uri is missing; only a configuration mapping may bring its own")
