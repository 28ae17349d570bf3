"""Where our own stores keep what they hold, for any process, and how it is looked at."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sqlite3
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ltm_async.blobs.gcs import GCSBlobStore
from ltm_async.blobs.local import LocalBlobStore
from ltm_async.blobs.obstore import AzureBlobStore
from ltm_async.blobs.s3 import S3BlobStore
from ltm_async.catalogs.firestore import FirestoreCatalog
from ltm_async.catalogs.postgres import PostgresCatalog
from ltm_async.catalogs.sqlite import SQLiteCatalog
from ltm_async.protocols import BlobStore, Catalog
from ltm_async.testing import ManualClock
from ltm_async.testing.crashing import BlobPlace, CatalogPlace, Pair, RawBlob, RawRow

from ..databases import Console, DatabasePlace
from ..projects import RestPlace
from ..servers.firestore import documents_at
from . import buckets

Raw = tuple[Sequence[RawRow], Sequence[RawBlob]]
R = TypeVar("R", RawRow, RawBlob)

consoles: dict[str, Console] = {}
"""Those of this process, by the DSN they are connected to."""


@dataclasses.dataclass(frozen=True)
class SQLiteFile(CatalogPlace):
    path: str

    def open(self, clock: ManualClock) -> Catalog:
        return SQLiteCatalog(self.path, clock=clock)

    async def look(self) -> Raw:
        with contextlib.closing(sqlite3.connect(self.path)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = conn.execute(f"SELECT {', '.join(RawRow._fields)} FROM ltm_entries")
            ledger = conn.execute(f"SELECT {', '.join(RawBlob._fields)} FROM ltm_blobs")
            return list(map(RawRow._make, rows)), list(map(RawBlob._make, ledger))


@dataclasses.dataclass(frozen=True)
class PostgresSchema(CatalogPlace):
    dsn: str
    schema: str
    clock_file: str

    def clock_at(self, instant_us: int) -> ManualClock:
        return DatabasePlace(self.dsn, self.schema, self.clock_file).clock_at(instant_us)

    def open(self, clock: ManualClock) -> Catalog:
        return PostgresCatalog(self.dsn, schema=self.schema)

    async def look(self) -> Raw:
        return _look_into(self.dsn, self.schema)


@dataclasses.dataclass(frozen=True)
class SupabaseProject(CatalogPlace):
    dsn: str
    schema: str
    clock_file: str
    url: str
    access_token: str

    def clock_at(self, instant_us: int) -> ManualClock:
        return DatabasePlace(self.dsn, self.schema, self.clock_file).clock_at(instant_us)

    def open(self, clock: ManualClock) -> Catalog:
        return RestPlace(*dataclasses.astuple(self)).catalog()

    async def look(self) -> Raw:
        return _look_into(self.dsn, self.schema)


def _look_into(dsn: str, schema: str) -> Raw:
    """Both tables as of one moment."""
    tables = {"ltm_entries": RawRow._fields, "ltm_blobs": RawBlob._fields}
    halves = [
        f"ARRAY(SELECT to_jsonb(found)::text FROM (SELECT {', '.join(fields)} "
        f"FROM {schema}.{table}) found)"
        for table, fields in tables.items()
    ]
    ((rows, ledger),) = consoles[dsn].rows(f"SELECT {', '.join(halves)}")
    return _made(RawRow, map(json.loads, rows)), _made(RawBlob, map(json.loads, ledger))


def _made(kind: type[R], found: Any) -> list[R]:
    return [kind(**{name: each[name] for name in kind._fields}) for each in found]


@dataclasses.dataclass(frozen=True)
class FirestoreProject(CatalogPlace):
    host: str
    project: str

    def open(self, clock: ManualClock) -> Catalog:
        os.environ["FIRESTORE_EMULATOR_HOST"] = self.host
        return FirestoreCatalog(self.project, clock=lambda _: clock())

    async def look(self) -> Raw:
        rows = documents_at(self.host, self.project, "ltm_entries")
        ledger = documents_at(self.host, self.project, "ltm_blobs")
        return _made(RawRow, rows), _made(RawBlob, ledger)


@dataclasses.dataclass(frozen=True)
class Folder(BlobPlace):
    root: str

    def open(self, clock: ManualClock) -> BlobStore:
        return LocalBlobStore(self.root, clock=clock)

    async def look(self) -> Mapping[str, bytes]:
        return _files_in(pathlib.Path(self.root))


def _files_in(root: pathlib.Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@dataclasses.dataclass(frozen=True)
class Bucket(BlobPlace):
    uri: str
    options: Mapping[str, Any]

    def open(self, clock: ManualClock) -> BlobStore:
        return _BLOB_STORES[self.scheme](self.uri, **self.options)

    async def look(self) -> Mapping[str, bytes]:
        return buckets.known[self.scheme].read(self.name)

    @property
    def scheme(self) -> str:
        return urllib.parse.urlsplit(self.uri).scheme

    @property
    def name(self) -> str:
        return urllib.parse.urlsplit(self.uri).netloc


_BLOB_STORES: Mapping[str, Callable[..., BlobStore]] = {
    "az": AzureBlobStore,
    "gs": GCSBlobStore,
    "s3": S3BlobStore,
}
_CATALOG_PLACES: Mapping[str, Callable[..., CatalogPlace]] = {
    kind.__name__: kind for kind in (SQLiteFile, PostgresSchema, SupabaseProject, FirestoreProject)
}
_BLOB_PLACES: Mapping[str, Callable[..., BlobPlace]] = {
    kind.__name__: kind for kind in (Folder, Bucket)
}


def in_folder(folder: pathlib.Path) -> Pair:
    """SQLite and local blobs."""
    return Pair(SQLiteFile(str(folder / "ltm.db")), Folder(str(folder / "blobs")))


def packed(pair: Pair) -> list[list[Any]]:
    """*pair* as JSON, for another process."""
    return [[type(place).__name__, *dataclasses.astuple(place)] for place in pair]  # type: ignore[call-overload]


def unpacked(of_catalog: Sequence[Any], of_blobs: Sequence[Any]) -> Pair:
    return Pair(
        _CATALOG_PLACES[of_catalog[0]](*of_catalog[1:]),
        _BLOB_PLACES[of_blobs[0]](*of_blobs[1:]),
    )
