"""Whether a memory can be used from here, and if not, what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from .backend import LTMBackend
from .catalogs.sqlite.database import MIGRATIONS, OLDEST_SQLITE
from .catalogs.supabase import SupabaseCatalog
from .clock import system_clock
from .deadline import Deadline
from .entry import hash_of, namespace_path, new_blob_id
from .errors import (
    AccessDeniedError,
    ConfigError,
    CorruptError,
    DeadlineError,
    LTMError,
    MissingDriverError,
    OutcomeUnknownError,
    StoreError,
    UnavailableError,
)
from .protocols import BlobStore, Catalog
from .registry import plan_blob_store, plan_catalog

PROBE_NAMESPACE = "ltm-doctor"
"""Reserved: what a doctor that was stopped has left there, the next one deletes. It is below the
namespace that is to be used, for a user of Supabase may use no other."""
PROBE_TTL = timedelta(minutes=5)
PROBE = b'"ltm-doctor"'
MAX_OFFSET_S = 5.0
MIN_FREE_BYTES = 256 * 1024 * 1024
TIMEOUT_S = 10.0
ROW_SECURITY = "row-level security"

_SECRET_NAMES = re.compile(r"pass|pwd|key|token|secret|sig|credential", re.IGNORECASE)


class Check(NamedTuple):
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str
    advice: str | None = None
    """What to do; None when nothing is."""


async def examine(
    catalog: Catalog | str | Mapping[str, Any] | None,
    storage: BlobStore | str | os.PathLike[str] | Mapping[str, Any] | None,
    *,
    namespace: str = "",
    timeout: float | None = None,
    min_free_bytes: int = MIN_FREE_BYTES,
) -> AsyncIterator[Check]:
    """Look at one thing after the other; what depends on one that is not ok is left out.

    A probe is stored, read and deleted, in a namespace of its own. A catalog file that does not
    exist yet is made, as its first use would.

    Args:
        timeout: Seconds for each check; None is 10.
        min_free_bytes: What a disk should have left.
    """
    limit_s = TIMEOUT_S if timeout is None else timeout
    hide = Hider(catalog, storage)
    try:
        made_catalog, made_blobs = _configure(catalog, storage, namespace)
    except LTMError as exc:
        yield Check("configuration", False, hide(str(exc)), _advice(exc))
        return
    yield Check(
        "configuration",
        True,
        f"catalog {made_catalog.name}, storage {made_blobs.name}, namespace {namespace!r}",
    )
    examination = _Examination(
        made_catalog, made_blobs, probed(namespace), limit_s, min_free_bytes, hide
    )
    try:
        async for check in examination.run():
            yield check
    finally:
        for store, given in ((made_catalog, catalog), (made_blobs, storage)):
            if store is not given:
                with contextlib.suppress(StoreError):
                    await store.aclose()


def _configure(catalog: object, storage: object, namespace: str) -> tuple[Catalog, BlobStore]:
    if catalog is None:
        raise ConfigError("no catalog is given")
    if storage is None:
        raise ConfigError("no storage is given")
    made = plan_catalog(catalog)(), plan_blob_store(storage)()
    for each in (namespace, probed(namespace)):
        LTMBackend(*made, namespace=each)  # checks the namespace, opens nothing
    return made


def probed(namespace: str) -> str:
    """Where an entry is stored to try out a backend of *namespace*."""
    return f"{namespace}/{PROBE_NAMESPACE}" if namespace else PROBE_NAMESPACE


class _Examination:
    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        namespace: str,
        limit_s: float,
        min_free_bytes: int,
        hide: Hider,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._limit_s = limit_s
        self._min_free_bytes = min_free_bytes
        self._hide = hide
        self._namespace = namespace
        self._path = namespace_path(namespace) + new_blob_id(hash_of(PROBE))

    async def run(self) -> AsyncIterator[Check]:
        if self._catalog.name == "sqlite":
            yield _sqlite_version()
            file = _file_of(self._catalog)
            if file is not None:
                schema = await self._try("schema version", lambda: _schema_version(file))
                yield schema
                yield await asyncio.to_thread(
                    _disk_space, "catalog disk space", file, self._min_free_bytes
                )
                if not schema.ok:
                    return
        opened = await self._try("catalog connection", self._open)
        yield opened
        if opened.ok:
            if isinstance(self._catalog, SupabaseCatalog):
                isolation = partial(_isolation, self._catalog)
                yield await self._try(ROW_SECURITY, isolation)
            async for check in self._probe_catalog():
                yield check
        if self._blobs.name == "local":
            folder = Path(self._blobs.uri(""))
            yield await asyncio.to_thread(
                _disk_space, "storage disk space", folder, self._min_free_bytes
            )
        async for check in self._probe_blobs():
            yield check

    async def _try(self, name: str, look: Callable[[], Awaitable[str]]) -> Check:
        """The check *name*: ok with what *look* says, or why it failed and what to do."""
        try:
            async with Deadline(self._limit_s):
                return Check(name, True, await look())
        except LTMError as exc:
            return Check(
                name, False, self._hide(f"{type(exc).__name__}: {exc}"), _advice(exc, name)
            )

    async def _open(self) -> str:
        began = time.perf_counter()
        await self._catalog.open()
        return f"opened in {(time.perf_counter() - began) * 1000:.0f} ms"

    async def _probe_catalog(self) -> AsyncIterator[Check]:
        ltm = LTMBackend(
            self._catalog,
            self._blobs,
            namespace=self._namespace,
            on_unavailable="raise",
            timeout=self._limit_s,
        )
        key = f"probe-{os.urandom(8).hex()}"
        ends: list[float] = []

        async def write() -> str:
            before_us = system_clock()
            stored = await ltm.store(key, "a probe", ttl=PROBE_TTL)
            after_us = system_clock()
            if stored.expires_at is not None:
                now_s = (stored.expires_at - PROBE_TTL).timestamp()
                ends.extend((now_s - after_us / 1e6, now_s - before_us / 1e6))
            return "an entry was stored"

        async def read() -> str:
            if (await ltm.retrieve(key)).value != "a probe":
                raise CorruptError("the entry that was stored did not come back")
            return "it came back"

        async def delete() -> str:
            if not (await ltm.delete(key)).deleted:
                raise CorruptError("the entry that was stored was not there to be deleted")
            await ltm.cleanup_expired()
            return "it was deleted"

        written = await self._try("catalog write", write)
        yield written
        if not written.ok:
            return
        if ends:
            yield _clock_offset(*ends)
        yield await self._try("catalog read", read)
        yield await self._try("catalog delete", delete)

    async def _probe_blobs(self) -> AsyncIterator[Check]:
        left_over: list[str] = []

        async def put() -> str:
            await self._blobs.open()
            await self._blobs.put(self._path, PROBE)
            return f"{len(PROBE)} bytes were written"

        async def get() -> str:
            if await self._blobs.get(self._path, limit=len(PROBE) + 1) != PROBE:
                raise CorruptError("the object that was written did not come back")
            return "they came back"

        async def scan() -> str:
            found = [info async for info in self._blobs.scan(namespace_path(self._namespace))]
            age_us = PROBE_TTL // timedelta(microseconds=1)
            left_over.extend(info.path for info in found if info.age_us > age_us)
            if self._path not in {info.path for info in found}:
                raise CorruptError("the object that was written is not in the listing")
            return "the object is listed"

        async def delete() -> str:
            for exc in (await self._blobs.delete([self._path, *left_over])).values():
                raise exc
            if await self._blobs.get(self._path, limit=1) is not None:
                raise CorruptError("the object is still there after it was deleted")
            return "it is gone"

        written = await self._try("storage put", put)
        yield written
        if not written.ok:
            return
        yield await self._try("storage get", get)
        yield await self._try("storage list", scan)
        yield await self._try("storage delete", delete)


async def _isolation(catalog: SupabaseCatalog) -> str:
    role, open_tables = await catalog.isolation()
    if role == "service_role":
        return "service_role sees the rows of every user, and was asked for by name"
    if open_tables:
        raise StoreError(f"users of role {role} see each other's rows in {open_tables}")
    return f"users of role {role} see no rows but their own"


def _sqlite_version() -> Check:
    oldest = ".".join(map(str, OLDEST_SQLITE))
    ok = sqlite3.sqlite_version_info >= OLDEST_SQLITE
    return Check(
        "sqlite version",
        ok,
        f"SQLite {sqlite3.sqlite_version}, {oldest} or newer is needed",
        None if ok else "use a Python that is built with a newer SQLite",
    )


def _file_of(catalog: Catalog) -> Path | None:
    """The catalog's file; None for one in memory, or of another's making."""
    path = getattr(catalog, "_path", ":memory:")
    return None if path == ":memory:" else Path(path)


async def _schema_version(file: Path) -> str:
    return await asyncio.to_thread(_read_schema_version, file)


def _read_schema_version(file: Path) -> str:
    known = len(MIGRATIONS)
    if not file.exists():
        return f"the file does not exist yet; it is made now, with version {known}"
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
            raise CorruptError("the file is no SQLite database") from exc
        raise UnavailableError(f"sqlite: {exc}") from exc
    if version > known:
        raise ConfigError(f"version {version}, and this release knows up to {known}")
    if version < known:
        return f"version {version}; it is brought to {known} now"
    return f"version {version}, as this release has it"


def _disk_space(name: str, place: Path, min_free_bytes: int) -> Check:
    """Of the disk that *place* is on, or will be."""
    try:
        folder = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
        free = shutil.disk_usage(folder).free
    except OSError as exc:
        why = exc.strerror or type(exc).__name__
        return Check(name, False, f"cannot be asked for: {why}", "check the path")
    ok = free >= min_free_bytes
    needed = "" if ok else f", {_mebibytes(min_free_bytes)} should be"
    advice = None if ok else "delete something, run `ltm cleanup` and `ltm gc`, or move the data"
    return Check(name, ok, f"{_mebibytes(free)} free{needed}", advice)


def _mebibytes(size: int) -> str:
    return f"{size / (1024 * 1024):,.0f} MiB"


def _clock_offset(least_s: float, most_s: float) -> Check:
    """Between the two the catalog's clock is ahead: as much as the reply took apart."""
    nearest = min(max(0.0, least_s), most_s)
    ok = abs(nearest) <= MAX_OFFSET_S
    ahead = "ahead of" if nearest > 0 else "behind"
    detail = f"the catalog's clock is {abs(nearest):.3f} s {ahead} this machine's"
    if nearest == 0.0:
        detail = f"none that could be seen within {most_s - least_s:.3f} s"
    advice = "set both clocks by NTP: entries expire by the catalog's" if not ok else None
    return Check("clock offset", ok, detail, advice)


_ADVICE: Mapping[type[LTMError], str] = {
    MissingDriverError: "install what is missing, as named",
    ConfigError: (
        "correct --catalog (LTM_CATALOG, such as sqlite:///memory.db), --storage (LTM_STORAGE, "
        "such as ./blobs) or --namespace"
    ),
    AccessDeniedError: "give this user the right to read and write there, or correct credentials",
    DeadlineError: "see whether another process holds a lock or the server hangs; try --timeout",
    UnavailableError: "see that the folder exists and has space, or that the server can be reached",
    OutcomeUnknownError: "run this again; when it stays, look at the disk or the connection",
    CorruptError: "check that this is the right place; run `ltm verify`, or restore a backup",
}


def _advice(exc: LTMError, name: str = "") -> str:
    if name == ROW_SECURITY:
        return "run what `ltm schema supabase` prints; look for policies and rights of others"
    if name == "schema version" and isinstance(exc, ConfigError):
        return "upgrade: pip install --upgrade ltm-async"
    return next(
        (text for kind, text in _ADVICE.items() if isinstance(exc, kind)),
        "look at the store's own log",
    )


class Hider:
    """Takes the secrets of the stores' addresses out of texts for people."""

    def __init__(self, *specs: object) -> None:
        secrets = {secret for spec in specs for secret in _secrets(spec) if secret}
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _secrets(spec: object) -> list[str]:
    """What of an address or a mapping must not be shown, as written and as decoded."""
    if isinstance(spec, Mapping):
        found = [
            secret
            for name, value in spec.items()
            for secret in ([value] if _SECRET_NAMES.search(str(name)) else _secrets(value))
        ]
        return [secret for secret in found if isinstance(secret, str)]
    if not isinstance(spec, str):
        return []
    authority = re.search(r"//([^/?#]*)@", spec)
    found = [] if authority is None else [authority[1], *authority[1].split(":", 1)[1:]]
    with contextlib.suppress(ValueError):
        for part in re.split("[?&]", urlsplit(spec).query):
            name, _, value = part.partition("=")
            if _SECRET_NAMES.search(name):
                found.append(value)
    return [*found, *map(unquote, found)]
