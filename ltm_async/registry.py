"""From a name or a URL to an adapter, whose module is imported when it is first used."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from .config import check_names, expand_env
from .errors import ConfigError, MissingDriverError
from .protocols import BlobStore, Catalog


@dataclasses.dataclass(frozen=True, slots=True)
class Adapter:
    """Where a class is, what brings its driver, and the options a user may give."""

    module: str
    name: str
    extra: str
    options: tuple[str, ...]

    def load(self) -> Callable[..., Any]:
        """Import the class.

        Raises:
            MissingDriverError: Its driver is not installed.
        """
        try:
            module = importlib.import_module(f"ltm_async.{self.module}")
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("ltm_async"):
                raise  # our own bug, not a missing driver
            raise MissingDriverError(
                f"{self.name} needs {exc.name}: pip install 'ltm-async[{self.extra}]'",
                name=exc.name,
            ) from exc
        return cast("Callable[..., Any]", getattr(module, self.name))


CATALOGS: Mapping[str, Adapter] = {
    "sqlite": Adapter("catalogs.sqlite", "SQLiteCatalog", "", ("path", "synchronous")),
    "memory": Adapter("catalogs.memory", "MemoryCatalog", "", ()),
}
BLOB_STORES: Mapping[str, Adapter] = {
    "file": Adapter("blobs.local", "LocalBlobStore", "", ("root",)),
    "memory": Adapter("blobs.memory", "MemoryBlobStore", "", ()),
}
ADAPTERS = {adapter.name: adapter for adapter in (*CATALOGS.values(), *BLOB_STORES.values())}


def plan_catalog(spec: object) -> Callable[[], Catalog]:
    """How to make the catalog that a URL or a mapping asks for; checked now, made later."""
    if isinstance(spec, Mapping):
        config = expand_env(spec, os.environ)
        name = config.pop("type", None)
        if not isinstance(name, str):
            raise ConfigError("catalog needs the key 'type', such as 'sqlite'")
        return _plan("catalog", CATALOGS, name, config)
    if not isinstance(spec, str):
        raise ConfigError(f"catalog must be a catalog, a URL or a mapping, not {_kind(spec)}")
    scheme, colon, rest = spec.partition(":")
    if not colon:
        raise ConfigError("catalog is no URL; a file is written sqlite:///path/to/memory.db")
    if scheme == "sqlite":
        return _plan("catalog", CATALOGS, scheme, _sqlite_options(rest))
    if scheme == "memory" and rest not in ("", "//"):
        raise ConfigError("catalog 'memory:' takes nothing after its colon")
    return _plan("catalog", CATALOGS, scheme, {})


def plan_blob_store(spec: object) -> Callable[[], BlobStore]:
    """How to make the blob store that a storage URI or a mapping asks for."""
    config: dict[str, Any] = {}
    if isinstance(spec, Mapping):
        config = expand_env(spec, os.environ)
        spec = config.pop("uri", None)
        if not isinstance(spec, str):
            raise ConfigError("storage needs the key 'uri', such as './blobs'")
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if not isinstance(spec, str):
        raise ConfigError(f"storage_uri must be a blob store, a URI or a path, not {_kind(spec)}")
    scheme, separator, rest = spec.partition("://")
    if not separator:
        scheme, rest = ("memory", "") if spec == "memory:" else ("file", spec)
    if scheme == "file":
        if not rest or "\0" in rest:
            raise ConfigError("storage_uri is not the path of a folder")
        config["root"] = rest
    elif scheme == "memory" and rest:
        raise ConfigError("storage_uri 'memory:' takes nothing after its colon")
    return _plan("storage_uri", BLOB_STORES, scheme, config)


def _plan(
    what: str, known: Mapping[str, Adapter], name: str, options: Mapping[str, Any]
) -> Callable[[], Any]:
    if name not in known:
        raise ConfigError(f"{what}: there is no {name[:20]!r}; there are {', '.join(known)}")
    adapter = known[name]
    check_names(f"{what} {name!r}", options, adapter.options)
    return lambda: adapter.load()(**options)


def _sqlite_options(rest: str) -> dict[str, str]:
    location, _, query = rest.partition("?")
    if location in ("", "//", "///:memory:"):
        path = ":memory:"
    elif location.startswith("///") and len(location) > 3:
        path = location[3:]
    else:
        raise ConfigError("a SQLite URL has three slashes before its path: sqlite:///memory.db")
    options = {"path": path}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        options[name] = value
    return options


def _kind(value: object) -> str:
    return type(value).__name__
