"""Prepared places, of which each run gets a copy."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from ltm_async.testing import ManualClock
from ltm_async.testing.crashing import BlobPlace, CatalogPlace

from ..databases import Console, Database
from ..projects import Project
from ..servers.firestore import Firestore, new_project, raw_documents, write_raw
from ..servers.postgres import Postgres
from ..servers.postgrest import PostgREST
from . import buckets
from .places import (
    Bucket,
    FirestoreProject,
    Folder,
    PostgresSchema,
    SQLiteFile,
    SupabaseProject,
    consoles,
)


class CatalogTemplate(Protocol):
    """Rows, and copies of them."""

    place: CatalogPlace
    """To be filled."""
    warm: CatalogPlace
    """Copies share its connections."""

    def clock(self) -> ManualClock:
        """That of the place, to fill it by."""
        return ManualClock()

    def keep(self) -> None:
        """The place is filled."""
        return

    def copied(self) -> CatalogPlace:
        """The place of a copy, until the next is made."""
        ...


class BlobTemplate(Protocol):
    """Objects, and copies of them."""

    place: BlobPlace
    warm: BlobPlace

    def keep(self) -> None:
        """The place is filled."""
        return

    def copied(self) -> BlobPlace: ...


class SQLiteTemplate(CatalogTemplate):
    """In one file, copied into another."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.place = self.warm = SQLiteFile(str(folder / "template.db"))

    def copied(self) -> CatalogPlace:
        for left in self._folder.glob("copy.db*"):
            left.unlink()
        path = self._folder / "copy.db"
        shutil.copyfile(self.place.path, path)
        return SQLiteFile(str(path))


class PostgresTemplate(CatalogTemplate):
    """In one schema, copied into another."""

    def __init__(self, server: Postgres, console: Console) -> None:
        self._template, self._used = (Database(server, console) for _ in range(2))
        self.place = PostgresSchema(*self._template.place)
        self.warm = self._copy = PostgresSchema(*self._used.place)
        consoles[server.dsn] = console

    def clock(self) -> ManualClock:
        return self._template.clock_at(None)

    def copied(self) -> CatalogPlace:
        self._used.fill_from(self._template)
        return self._copy


class SupabaseTemplate(CatalogTemplate):
    """The same behind PostgREST."""

    def __init__(self, api: PostgREST, console: Console) -> None:
        self._template, self._used = (Project(api, console) for _ in range(2))
        self.place = SupabaseProject(*self._template.rest_place)
        self.warm = self._copy = SupabaseProject(*self._used.rest_place)
        consoles[self._used.dsn] = console

    def clock(self) -> ManualClock:
        return self._template.clock_at(None)

    def copied(self) -> CatalogPlace:
        self._used.fill_from(self._template)
        return self._copy


class FirestoreTemplate(CatalogTemplate):
    """In one project, copied into another."""

    def __init__(self, server: Firestore) -> None:
        self._server = server
        self.place = FirestoreProject(server.host, new_project())
        self.warm = self._copy = FirestoreProject(server.host, new_project())

    def keep(self) -> None:
        self._documents = {
            collection: raw_documents(self._server.host, self.place.project, collection)
            for collection in ("ltm_entries", "ltm_blobs", "ltm_deletions")
        }

    def copied(self) -> CatalogPlace:
        self._server.clear(self._copy.project)
        for collection, documents in self._documents.items():
            write_raw(self._server.host, self._copy.project, collection, documents)
        return self._copy


class FolderTemplate(BlobTemplate):
    """In one folder, copied into another."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._copy = folder / "copy"
        self.place = self.warm = Folder(str(folder / "template"))

    def copied(self) -> BlobPlace:
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.place.root, self._copy)
        return Folder(str(self._copy))


class BucketTemplate(BlobTemplate):
    """In one bucket, copied into another."""

    def __init__(self, server: buckets.Server) -> None:
        self._server = server
        self.place = Bucket(*server.place())
        self.warm = self._copy = Bucket(*server.place())
        buckets.known[self.place.scheme] = server

    def keep(self) -> None:
        self._objects = self._server.read(self.place.name)

    def copied(self) -> BlobPlace:
        buckets.restore(self._server, self._copy.name, self._objects)
        return self._copy


class Templates:
    """Makes templates, and finds the servers that they are on when first asked for."""

    def __init__(self, find: Callable[[str], Any], folder: Callable[[], pathlib.Path]) -> None:
        self._find = find
        self._folder = folder
        self._made: dict[str, buckets.Server] = {}

    def catalog(self, name: str) -> CatalogTemplate:
        match name:
            case "sqlite":
                return SQLiteTemplate(self._folder())
            case "postgres":
                return PostgresTemplate(self._find("postgres_server"), self._find("console"))
            case "supabase":
                return SupabaseTemplate(self._find("supabase_server"), self._find("console"))
            case "firestore":
                return FirestoreTemplate(self._find("firestore_server"))
        raise ValueError(name)

    def blobs(self, name: str) -> BlobTemplate:
        if name == "local":
            return FolderTemplate(self._folder())
        if name not in self._made:
            server = self._find(f"{name}_server")
            kinds: dict[str, Callable[[Any], buckets.Server]] = {
                "s3": buckets.S3Buckets,
                "gcs": buckets.GcsBuckets,
                "azure": buckets.AzureContainers,
            }
            self._made[name] = kinds[name](server)
        return BucketTemplate(self._made[name])


@pytest.fixture(scope="session")
def templates(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Templates:
    return Templates(request.getfixturevalue, lambda: tmp_path_factory.mktemp("crash"))
