"""From a name or a URL to an adapter, whose module is imported when it is first used."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from .config import check_names, expand_env, to_bool
from .entry import shown
from .errors import ConfigError, MissingDriverError
from .protocols import BlobStore, Catalog


class Option(NamedTuple):
    """What an adapter's option may be, so that a wrong one is refused before its import."""

    choices: tuple[str, ...] = ()
    """All there are; empty for any text."""
    required: bool = False
    kind: type[str] | type[int] | type[bool] = str
    """Numbers and true or false may be text too, as environment variables are."""
    secret: bool = False
    """Not to be in a URL, which ends up in logs and process lists."""
    or_function: bool = False
    """What gives it may be given instead; the adapter checks that."""


class Adapter(NamedTuple):
    """Where a class is, what brings its driver, and the options a user may give."""

    module: str
    name: str
    extra: str
    options: Mapping[str, Option]
    driver_comes_later: bool = False
    """Its constructor imports no driver, so it is made, and checks its options, at once."""

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


_POSTGRES = Adapter(
    "catalogs.postgres",
    "PostgresCatalog",
    "postgres",
    {
        "dsn": Option(required=True, secret=True),
        "schema": Option(),
        "min_size": Option(kind=int),
        "max_size": Option(kind=int),
        "pooler": Option(kind=bool),
        "install": Option(kind=bool),
    },
    driver_comes_later=True,
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
    "firestore": Adapter(
        "catalogs.firestore",
        "FirestoreCatalog",
        "firestore",
        {
            "project": Option(),
            "database": Option(),
            "collection_prefix": Option(),
            "credentials_file": Option(),
            "batch_bytes": Option(kind=int),
            "transport": Option(choices=("official", "light")),
        },
        driver_comes_later=True,
    ),
    "supabase": Adapter(
        "catalogs.supabase",
        "SupabaseCatalog",
        "supabase",
        {
            "url": Option(required=True),
            "key": Option(secret=True),
            "access_token": Option(secret=True, or_function=True),
            "schema": Option(),
            "service_role": Option(kind=bool),
            "rest_path": Option(),
            "max_connections": Option(kind=int),
        },
        driver_comes_later=True,
    ),
    "memory": Adapter("catalogs.memory", "MemoryCatalog", "", {}),
}
BLOB_STORES: Mapping[str, Adapter] = {
    "file": Adapter("blobs.local", "LocalBlobStore", "", {"root": Option(required=True)}),
    "memory": Adapter("blobs.memory", "MemoryBlobStore", "", {}),
    "s3": Adapter(
        "blobs.s3",
        "S3BlobStore",
        "s3",
        {
            "uri": Option(required=True),
            "endpoint_url": Option(),
            "region": Option(),
            "path_style": Option(kind=bool),
            "access_key_id": Option(secret=True),
            "secret_access_key": Option(secret=True),
            "session_token": Option(secret=True),
            "ca_file": Option(),
            "max_connections": Option(kind=int),
            "allow_http": Option(kind=bool),
            "create_only": Option(kind=bool),
            "checksum": Option(kind=bool),
        },
        driver_comes_later=True,
    ),
    "gs": Adapter(
        "blobs.gcs",
        "GCSBlobStore",
        "gcs",
        {
            "uri": Option(required=True),
            "endpoint_url": Option(),
            "service_file": Option(),
            "token": Option(secret=True),
            "max_connections": Option(kind=int),
            "allow_http": Option(kind=bool),
        },
        driver_comes_later=True,
    ),
    "az": Adapter(
        "blobs.obstore",
        "AzureBlobStore",
        "azure",
        {
            "uri": Option(required=True),
            "account_name": Option(),
            "account_key": Option(secret=True),
            "sas_token": Option(secret=True),
            "connection_string": Option(secret=True),
            "endpoint_url": Option(),
            "ca_file": Option(),
            "allow_http": Option(kind=bool),
        },
        driver_comes_later=True,
    ),
}
OBSTORE_BLOB_STORES: Mapping[str, Adapter] = {
    "s3": Adapter(
        "blobs.obstore",
        "ObstoreS3BlobStore",
        "obstore",
        {
            "uri": Option(required=True),
            "endpoint_url": Option(),
            "region": Option(),
            "access_key_id": Option(secret=True),
            "secret_access_key": Option(secret=True),
            "session_token": Option(secret=True),
            "ca_file": Option(),
            "allow_http": Option(kind=bool),
        },
        driver_comes_later=True,
    ),
    "gs": Adapter(
        "blobs.obstore",
        "ObstoreGCSBlobStore",
        "obstore",
        {
            "uri": Option(required=True),
            "endpoint_url": Option(),
            "service_file": Option(),
            "token": Option(secret=True),
            "ca_file": Option(),
            "allow_http": Option(kind=bool),
        },
        driver_comes_later=True,
    ),
}
"""Those of ``driver=obstore``."""
ADAPTERS = {
    adapter.name: adapter
    for adapter in (*CATALOGS.values(), *BLOB_STORES.values(), *OBSTORE_BLOB_STORES.values())
}


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
    if scheme == "firestore":
        return _plan("catalog", CATALOGS, scheme, _firestore_options(rest))
    if scheme in ("supabase", "https", "http"):
        return _plan("catalog", CATALOGS, "supabase", _supabase_options(spec))
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
    elif scheme in {"s3", "gs", "az"}:
        location, _, query = rest.partition("?")
        config["uri"] = f"{scheme}://{location}"
        _add_query("storage_uri", query, config, BLOB_STORES[scheme].options)
    known = _stores_by_driver(scheme, config)
    return _plan("storage_uri", known, scheme, config)


def _stores_by_driver(scheme: str, config: dict[str, Any]) -> Mapping[str, Adapter]:
    """The blob stores that use the driver which *config* names; the name is taken out."""
    if scheme not in OBSTORE_BLOB_STORES or "driver" not in config:
        return BLOB_STORES
    driver = config.pop("driver")
    if driver != "obstore":
        raise ConfigError(
            f"storage_uri {scheme!r}: driver is {shown(driver)}, it can be 'obstore' or left out"
        )
    return OBSTORE_BLOB_STORES


def _plan(
    what: str, known: Mapping[str, Adapter], name: str, options: Mapping[str, Any]
) -> Callable[[], Any]:
    if name not in known:
        raise ConfigError(
            f"{what}: there is no {name.partition(':')[0][:20]!r}; there are {', '.join(known)}"
        )
    adapter = known[name]
    check_names(f"{what} {name!r}", options, adapter.options)
    checked: dict[str, object] = {}
    for option, allowed in adapter.options.items():
        if option in options:
            checked[option] = _checked(f"{what} {name!r}: {option}", options[option], allowed)
        elif allowed.required:
            raise ConfigError(f"{what} {name!r} needs the option {option!r}")
    if adapter.driver_comes_later:
        adapter.load()(**checked)  # so that it refuses now what it cannot use
    return lambda: adapter.load()(**checked)


def _checked(what: str, value: object, allowed: Option) -> object:
    """*value* as the option's kind; a secret is not repeated in the error."""
    if allowed.or_function and callable(value):
        return value
    if allowed.kind is bool:
        value = to_bool(value)
    elif allowed.kind is int and isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if type(value) is not allowed.kind or value == "" or "\0" in str(value):
        found = type(value).__name__ if allowed.secret else shown(value)
        raise ConfigError(f"{what} must be {_KINDS[allowed.kind]}, not {found}")
    if allowed.choices and value not in allowed.choices:
        raise ConfigError(f"{what} is {shown(value)}, there are {', '.join(allowed.choices)}")
    return value


_KINDS = {str: "text", int: "a number", bool: "true or false"}


def _add_query(what: str, query: str, config: dict[str, Any], known: Mapping[str, Option]) -> None:
    """Add the options of a URL's query to *config*."""
    if not query:
        return
    from urllib.parse import unquote

    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in known and known[name].secret:
            raise ConfigError(
                f"{what} has {name} in its URL, which others may read; give it as an option of "
                "the configuration, or leave it to the environment"
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
    _add_query("the SQLite URL", query, options, {})
    return options


def _postgres_options(url: str) -> dict[str, str]:
    """Our options are taken out of the URL's query; the rest of it is the driver's."""
    location, mark, query = url.partition("?")
    ours: list[str] = []
    theirs: list[str] = []
    for part in query.split("&"):
        known = part.partition("=")[0] in _POSTGRES.options.keys() - {"dsn"}
        (ours if known else theirs).append(part)
    rest = "&".join(theirs)
    options = {"dsn": f"{location}{mark}{rest}" if rest else location}
    _add_query("the PostgreSQL URL", "&".join(ours), options, {})
    return options


def _firestore_options(rest: str) -> dict[str, str]:
    """``//project/database?…``, either of which may be missing."""
    location, _, query = rest.removeprefix("//").partition("?")
    project, _, database = location.partition("/")
    given = {"project": project, "database": database.rstrip("/")}
    options = {name: value for name, value in given.items() if value}
    _add_query("the Firestore URL", query, options, {})
    return options


def _supabase_options(url: str) -> dict[str, str]:
    location, _, query = url.partition("?")
    options = {"url": location}
    _add_query("the Supabase URL", query, options, CATALOGS["supabase"].options)
    return options


def _kind(value: object) -> str:
    return type(value).__name__
