"""From a name or a URL to an adapter, whose module is imported when it is first used."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import unquote

from .config import check_names, expand_env
from .entry import shown
from .errors import ConfigError, MissingDriverError
from .protocols import BlobStore, Catalog


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """What an adapter's option may be, so that a wrong one is refused before its import."""

    kind: type = str
    """``str``, ``int`` or ``bool``; each may also be given as text, as URLs and variables do."""
    choices: tuple[str, ...] = ()
    """All there are; empty for any text."""
    required: bool = False
    secret: bool = False
    """Not to be in a URL, which ends up in logs and process lists, nor in an error."""

    def checked(self, what: str, value: object) -> object:
        """*value* as its kind, or ConfigError."""
        if type(value) is self.kind is not str:
            return value
        if not isinstance(value, str) or not value or "\0" in value:
            found = type(value).__name__ if self.secret else shown(value)
            raise ConfigError(f"{what} must be {_KINDS[self.kind]}, not {found}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{what} is {shown(value)}, there are {', '.join(self.choices)}")
        try:
            return _FROM_TEXT[self.kind](value)
        except (KeyError, ValueError):
            raise ConfigError(f"{what} must be {_KINDS[self.kind]}, not {shown(value)}") from None


_KINDS = {str: "text", int: "a whole number", bool: "true or false"}
_FROM_TEXT: Mapping[type, Callable[[str], object]] = {
    str: str,
    int: int,
    bool: {"true": True, "false": False}.__getitem__,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Adapter:
    """Where a class is, what brings its driver, and the options a user may give."""

    module: str
    name: str
    extra: str
    options: Mapping[str, Option]
    check: Callable[[Mapping[str, Any]], None] | None = None
    """What the constructor would find wrong, found without the driver."""

    def load(self) -> Callable[..., Any]:
        """Import the class.

        Raises:
            MissingDriverError: Its driver is not installed.
        """
        try:
            module = importlib.import_module(f"ltm_async.{self.module}")
        except ModuleNotFoundError as exc:
            raise MissingDriverError.of(exc, needed_by=self.name, extra=self.extra) from exc
        return cast("Callable[..., Any]", getattr(module, self.name))


def _check_postgres(options: Mapping[str, Any]) -> None:
    from .dsn import Address
    from .schema import check_schema

    Address.of(options["dsn"])
    check_schema(options.get("schema", "public"))


def _check_gcs(options: Mapping[str, Any]) -> None:
    from .blobs.gcs import GCSBlobStore

    GCSBlobStore(**options)  # imports no driver, and opens nothing


_POSTGRES = Adapter(
    "catalogs.postgres",
    "PostgresCatalog",
    "postgres",
    {
        "dsn": Option(required=True),
        "schema": Option(),
        "min_size": Option(int),
        "max_size": Option(int),
        "pooler": Option(bool),
        "install": Option(bool),
    },
    _check_postgres,
)
CATALOGS: Mapping[str, Adapter] = {
    "sqlite": Adapter(
        "catalogs.sqlite",
        "SQLiteCatalog",
        "",
        {"path": Option(required=True), "synchronous": Option(choices=("FULL", "NORMAL"))},
    ),
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "memory": Adapter("catalogs.memory", "MemoryCatalog", "", {}),
}
BLOB_STORES: Mapping[str, Adapter] = {
    "file": Adapter("blobs.local", "LocalBlobStore", "", {"root": Option(required=True)}),
    "memory": Adapter("blobs.memory", "MemoryBlobStore", "", {}),
    "gs": Adapter(
        "blobs.gcs",
        "GCSBlobStore",
        "gcs",
        {
            "uri": Option(required=True),
            "endpoint_url": Option(),
            "service_file": Option(),
            "token": Option(secret=True),
            "max_connections": Option(int),
            "allow_http": Option(bool),
        },
        _check_gcs,
    ),
}
ADAPTERS = {adapter.name: adapter for adapter in (*CATALOGS.values(), *BLOB_STORES.values())}


def plan_catalog(spec: object) -> Callable[[], Catalog]:
    """How to get the catalog that is meant, if it is not one; checked now, made later."""
    if isinstance(spec, Mapping):
        config = expand_env(spec, os.environ)
        name = config.pop("type", None)
        if not isinstance(name, str):
            raise ConfigError("catalog needs the key 'type', such as 'sqlite'")
        return _plan("catalog", CATALOGS, name, config)
    if hasattr(spec, "track_entries_batch"):
        return lambda: cast("Catalog", spec)
    if not isinstance(spec, str):
        raise ConfigError(f"catalog must be a catalog, a URL or a mapping, not {_kind(spec)}")
    scheme, colon, rest = spec.partition(":")
    if not colon:
        raise ConfigError("catalog is no URL; a file is written sqlite:///path/to/memory.db")
    if scheme == "sqlite":
        return _plan("catalog", CATALOGS, scheme, _sqlite_options(rest))
    if CATALOGS.get(scheme) is _POSTGRES:
        return _plan("catalog", CATALOGS, scheme, _postgres_options(spec))
    if scheme == "memory" and rest not in ("", "//"):
        raise ConfigError("catalog 'memory:' takes nothing after its colon")
    return _plan("catalog", CATALOGS, scheme, {})


def plan_blob_store(spec: object) -> Callable[[], BlobStore]:
    """How to get the blob store that is meant, if it is not one; checked now, made later."""
    config: dict[str, Any] = {}
    if isinstance(spec, Mapping):
        config = expand_env(spec, os.environ)
        spec = config.pop("uri", None)
        if not isinstance(spec, str):
            raise ConfigError("storage needs the key 'uri', such as './blobs'")
        if "root" in config:
            raise ConfigError("storage has no option 'root'; its 'uri' says where it is")
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if hasattr(spec, "put") and hasattr(spec, "scan"):
        return lambda: cast("BlobStore", spec)
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
    elif scheme == "gs":
        location, _, query = rest.partition("?")
        config["uri"] = f"gs://{location}"
        _add_query("storage_uri", query, config, BLOB_STORES["gs"].options)
    return _plan("storage_uri", BLOB_STORES, scheme, config)


def _plan(
    what: str, known: Mapping[str, Adapter], name: str, options: Mapping[str, Any]
) -> Callable[[], Any]:
    if name not in known:
        raise ConfigError(
            f"{what}: there is no {name.partition(':')[0][:20]!r}; there are {', '.join(known)}"
        )
    adapter = known[name]
    check_names(f"{what} {name!r}", options, adapter.options)
    for option, allowed in adapter.options.items():
        if allowed.required and option not in options:
            raise ConfigError(f"{what} {name!r} needs the option {option!r}")
    checked = {
        option: adapter.options[option].checked(f"{what} {name!r}: {option}", value)
        for option, value in options.items()
    }
    if adapter.check is not None:
        adapter.check(checked)
    return lambda: adapter.load()(**checked)


def _add_query(what: str, query: str, config: dict[str, Any], known: Mapping[str, Option]) -> None:
    """Add the options in a URL's query to *config*."""
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in known and known[name].secret:
            raise ConfigError(
                f"{what} has {name} in its URL, which others may read; give it as an option of the "
                "configuration, or leave it to the environment"
            )
        if name in config:
            raise ConfigError(f"{what} gives {name[:60]!r} twice")
        config[name] = unquote(value)


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
        if name in options:
            raise ConfigError(f"the SQLite URL gives {name} twice")
        options[name] = value
    return options


def _postgres_options(url: str) -> dict[str, str]:
    """Our options are taken out of the URL's query; the rest of it is the driver's."""
    location, mark, query = url.partition("?")
    ours = _POSTGRES.options.keys() - {"dsn"}
    options: dict[str, str] = {}
    theirs: list[str] = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name not in ours:
            theirs.append(part)
        elif name in options:
            raise ConfigError(f"the PostgreSQL URL gives {name} twice")
        else:
            options[name] = unquote(value)
    rest = "&".join(theirs)
    return {"dsn": f"{location}{mark}{rest}" if rest else location, **options}


def _kind(value: object) -> str:
    return type(value).__name__
