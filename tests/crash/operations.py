"""A state with everything in it, the operations that change it, and one attempt at each."""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ltm_async import LTMBackend
from ltm_async.blobs.gcs import GCSBlobStore
from ltm_async.blobs.local import LocalBlobStore
from ltm_async.blobs.memory import MemoryBlobStore
from ltm_async.blobs.obstore import AzureBlobStore
from ltm_async.blobs.s3 import S3BlobStore
from ltm_async.catalogs.firestore import FirestoreCatalog
from ltm_async.catalogs.memory import MemoryCatalog
from ltm_async.catalogs.postgres import PostgresCatalog
from ltm_async.catalogs.sqlite import SQLiteCatalog
from ltm_async.entry import blob_path, compute_content_hash, encode
from ltm_async.errors import OutcomeUnknownError, StoreError
from ltm_async.protocols import BlobStore, Catalog, Reservation
from ltm_async.results import Result
from ltm_async.retry import RetryPolicy
from ltm_async.stores import LEASE_US
from ltm_async.testing import Faults, ManualClock, faulty_blob_store, faulty_catalog

from ..databases import DatabasePlace
from ..projects import RestPlace

NAMESPACE = "crash"
NEIGHBOUR = "neighbour"
"""Another namespace of the same stores, which no operation may touch."""
LEASE_S = LEASE_US / 1e6
DAY_S = 86_400


def small(name: str) -> Any:
    return {"is": name}


def large(name: str) -> Any:
    return {"is": name, "filler": [name] * 400}


class Entry(NamedTuple):
    """A live entry as a reader sees it."""

    value: Any
    metadata: Mapping[str, Any] = {}
    ttl_s: int | None = None
    """From the start of the operation, so only for what it writes."""


BEFORE: Mapping[str, Entry] = {
    "large": Entry(large("new"), {"old": True}),
    "list": Entry([large("first")]),
    "other large": Entry(large("other")),
    "other small": Entry(small("other")),
    "small": Entry(small("old")),
}
"""The live entries that every operation finds."""
EXPIRED = frozenset({"ended large", "ended small"})
"""The keys of expired rows that no cleanup has removed yet."""


class State(NamedTuple):
    """What readers can see, and which keys have a row."""

    entries: Mapping[str, Entry]
    keys: frozenset[str]


FOUND = State(BEFORE, EXPIRED.union(BEFORE))


class Blob(NamedTuple):
    """A blob of the prepared state that no row names."""

    blob_id: str
    data: bytes

    @classmethod
    def of(cls, name: str) -> Blob:
        value = large(name)
        blob_id = f"{compute_content_hash(value)[7:23]}-{'0' * 32}"
        return cls(blob_id, encode("value", value).encode())

    @property
    def path(self) -> str:
        return blob_path(NAMESPACE, self.blob_id)


KILLED_WRITERS = Blob.of("killed writer")
"""Uploaded under a lease that has ended."""
RUNNING_WRITERS = Blob.of("running writer")
"""Uploaded under a lease that has not ended: nobody may touch it."""
STRAY = Blob.of("stray")
"""Known to no ledger: its upload landed after its reservation was forgotten."""


class Operation(NamedTuple):
    name: str
    run: Callable[[LTMBackend], Awaitable[Result]]
    stores: Mapping[str, Entry] = {}
    removes: frozenset[str] = frozenset()
    keeps_house: bool = False
    """No blob is due any more when it is done without errors; when it fails, a part is done."""

    @property
    def done(self) -> State:
        """What it makes of ``FOUND``."""
        entries = {**BEFORE, **self.stores}
        return State(
            {key: entry for key, entry in entries.items() if key not in self.removes},
            (FOUND.keys | self.stores.keys()) - self.removes,
        )


_BATCH = {
    "large": Entry(large("batch, over large"), {"batch": 1}),
    "small": Entry(large("batch, over small")),
    "ended small": Entry(small("batch, over expired")),
    "new large": Entry(large("batch, new"), {}, DAY_S),
    "new small": Entry(small("batch, new"), {"batch": 5}, DAY_S),
}


def _store(name: str, key: str, entry: Entry) -> Operation:
    def run(ltm: LTMBackend) -> Awaitable[Result]:
        return ltm.store(key, entry.value, metadata=entry.metadata, ttl=entry.ttl_s)

    return Operation(name, run, {key: entry})


def _store_batch(ltm: LTMBackend) -> Awaitable[Result]:
    return ltm.store_batch(
        {"key": key, "value": value, "metadata": metadata, "ttl": ttl_s}
        for key, (value, metadata, ttl_s) in _BATCH.items()
    )


OPERATIONS = (
    _store("store small", "new small", Entry(small("new"), {"n": 1}, DAY_S)),
    _store("store large", "new large", Entry(large("new"), {"n": 2}, DAY_S)),
    _store("large over large", "large", Entry(large("newer"), {"n": 3})),
    _store("small over large", "large", Entry(small("newer"))),
    _store("large over small", "small", Entry(large("newer"), {"n": 4})),
    _store("same large again", "large", Entry(BEFORE["large"].value, {"n": 5}, DAY_S)),
    _store("same large over expired", "ended large", Entry(large("ended"), {"n": 6})),
    Operation(
        "update large",
        lambda ltm: ltm.update("list", lambda value: [*value, "second"]),
        {"list": Entry([large("first"), "second"])},
    ),
    Operation("delete large", lambda ltm: ltm.delete("large"), removes=frozenset({"large"})),
    Operation(
        "touch",
        lambda ltm: ltm.touch("large", ttl=DAY_S, metadata={"n": 7}),
        {"large": Entry(BEFORE["large"].value, {"n": 7}, DAY_S)},
    ),
    Operation("batch of five", _store_batch, _BATCH),
    Operation("cleanup", lambda ltm: ltm.cleanup_expired(), removes=EXPIRED, keeps_house=True),
    Operation("collect", lambda ltm: ltm.collect_garbage(), keeps_house=True),
    Operation(
        "collect with audit",
        lambda ltm: ltm.collect_garbage(audit=True, stray_age=timedelta(0)),
        keeps_house=True,
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}


class Pair(Protocol):
    """A catalog and a blob store that outlive the objects made for them."""

    def clock_at(self, instant_us: int) -> ManualClock:
        """The clock of both, set to an instant."""
        clock = ManualClock()
        clock.advance((instant_us - clock()) / 1e6)
        return clock

    def open(self, clock: ManualClock) -> tuple[Catalog, BlobStore]: ...

    async def close(self, catalog: Catalog, blobs: BlobStore) -> None: ...


class Files(Pair):
    """SQLite and local blobs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog_path = folder / "ltm.db"
        self.blob_root = folder / "blobs"

    def open(self, clock: ManualClock) -> tuple[Catalog, BlobStore]:
        catalog = SQLiteCatalog(str(self.catalog_path), clock=clock)
        return catalog, LocalBlobStore(self.blob_root, clock=clock)

    async def close(self, catalog: Catalog, blobs: BlobStore) -> None:
        await blobs.aclose()
        await catalog.aclose()


class ProjectPlace(NamedTuple):
    """Where documents are."""

    host: str
    project: str


class BucketPlace(NamedTuple):
    """Where objects are."""

    uri: str
    options: Mapping[str, Any]


class Places(NamedTuple):
    """Where a pair of stores is, for any process."""

    stores: str
    """Such as ``postgres+s3``."""
    folder: str
    catalog: Sequence[Any]
    """The fields of a ``DatabasePlace``, ``RestPlace`` or ``ProjectPlace``, or a file's path."""
    bucket: Sequence[Any] = ()
    """The fields of a ``BucketPlace``, unless the blobs are in the folder."""

    @property
    def of_catalog(self) -> str:
        return self.stores.partition("+")[0]


class OnServers(Pair):
    """A catalog on a server or in a file, and blobs in a folder or in a bucket."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def clock_at(self, instant_us: int) -> ManualClock:
        match self.places.of_catalog:
            case "postgres":
                return DatabasePlace(*self.places.catalog).clock_at(instant_us)
            case "supabase":
                return RestPlace(*self.places.catalog).database.clock_at(instant_us)
        return super().clock_at(instant_us)

    def open(self, clock: ManualClock) -> tuple[Catalog, BlobStore]:
        catalog: Catalog
        if self.places.of_catalog == "postgres":
            database = DatabasePlace(*self.places.catalog)
            catalog = PostgresCatalog(database.dsn, schema=database.schema)
        elif self.places.of_catalog == "supabase":
            catalog = RestPlace(*self.places.catalog).catalog()
        elif self.places.of_catalog == "sqlite":
            catalog = SQLiteCatalog(self.places.catalog[0], clock=clock)
        else:
            project = ProjectPlace(*self.places.catalog)
            os.environ["FIRESTORE_EMULATOR_HOST"] = project.host
            catalog = FirestoreCatalog(project.project, clock=lambda _: clock())
        if not self.places.bucket:
            return catalog, LocalBlobStore(Path(self.places.folder) / "blobs", clock=clock)
        uri, options = self.places.bucket
        return catalog, BLOB_STORES[uri.partition(":")[0]](uri, **options)

    async def close(self, catalog: Catalog, blobs: BlobStore) -> None:
        await blobs.aclose()
        await catalog.aclose()


BLOB_STORES: Mapping[str, Callable[..., BlobStore]] = {
    "az": AzureBlobStore,
    "gs": GCSBlobStore,
    "s3": S3BlobStore,
}


class InMemory(Pair):
    """Stores that live on from one backend to the next."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.catalog = MemoryCatalog(clock=self._now)
        self.blobs = MemoryBlobStore(clock=self._now)

    def open(self, clock: ManualClock) -> tuple[Catalog, BlobStore]:
        self._clock = clock
        return self.catalog, self.blobs

    async def close(self, catalog: Catalog, blobs: BlobStore) -> None:
        """Nothing: what is closed would be lost."""

    def _now(self) -> int:
        return self._clock()


async def prepare(pair: Pair, clock: ManualClock) -> None:
    """Fill *pair* with ``FOUND`` and every kind of blob, and let *clock* run past their ends."""
    catalog, blobs = pair.open(clock)
    ltm = LTMBackend(catalog, blobs, namespace=NAMESPACE, on_unavailable="raise")
    await ltm.store("large", large("old"))
    for key, entry in BEFORE.items():  # over "large": its first blob is dead from here on
        await ltm.store(key, entry.value, metadata=entry.metadata)
    await ltm.store("ended large", large("ended"), ttl=60)
    await ltm.store("ended small", small("ended"), ttl=60)
    await _reserve(catalog, KILLED_WRITERS)
    for blob in (KILLED_WRITERS, STRAY):
        await blobs.put(blob.path, blob.data)
    neighbour = LTMBackend(catalog, blobs, namespace=NEIGHBOUR, on_unavailable="raise")
    await neighbour.store("large", large("neighbour"))
    await neighbour.store("large", large("neighbour's newer"), ttl=60)
    clock.advance(3600)
    await _reserve(catalog, RUNNING_WRITERS)
    await blobs.put(RUNNING_WRITERS.path, RUNNING_WRITERS.data)
    await pair.close(catalog, blobs)


async def _reserve(catalog: Catalog, blob: Blob) -> None:
    content_hash = compute_content_hash(large("any"))
    reservation = Reservation(blob.blob_id, "reserved", content_hash, len(blob.data))
    await catalog.reserve_blobs(NAMESPACE, [reservation], lease_us=LEASE_US)


class Told(enum.Enum):
    """What the caller of an operation knows when it has ended."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "outcome unknown"
    CANCELLED = "cancelled"
    KILLED = "killed"


class Attempt(NamedTuple):
    """How one attempt at an operation ended."""

    told: Told
    steps: Sequence[str] = ()
    version: int | None = None
    """Of the entries written, if they were and it was told."""
    flawless: bool = False
    """Done, and the result names no errors."""


AGAIN = RetryPolicy(base_s=0.0002, cap_s=0.001)
ONCE = RetryPolicy(attempts=1)


async def attempt(
    pair: Pair, operation: Operation, faults: Sequence[Faults], now_us: int, retry: RetryPolicy
) -> Attempt:
    """Run *operation* on *pair* through *faults*, the last of which counts first."""
    catalog, blobs = pair.open(pair.clock_at(now_us))
    faulty = catalog, blobs
    for fault in faults:
        faulty = faulty_catalog(faulty[0], fault), faulty_blob_store(faulty[1], fault)
    ltm = LTMBackend(*faulty, namespace=NAMESPACE, on_unavailable="raise", retry=retry)
    try:
        told, result = await _tell(faults[-1].run(_as_coroutine(operation.run(ltm))))
    finally:
        await ltm.aclose()
        await pair.close(catalog, blobs)
    return Attempt(
        told,
        faults[-1].steps,
        _version(result),
        told is Told.DONE and not getattr(result, "errors", ()),
    )


async def _as_coroutine(call: Awaitable[Result]) -> Result:
    return (await call).raise_for_error()


async def _tell(call: Awaitable[Result]) -> tuple[Told, Result | None]:
    try:
        return Told.DONE, await call
    except asyncio.CancelledError:
        return Told.CANCELLED, None
    except OutcomeUnknownError:
        return Told.UNKNOWN, None
    except StoreError:
        return Told.FAILED, None


def _version(result: Result | None) -> int | None:
    versions = set(getattr(result, "versions", {}).values())
    version: int | None = versions.pop() if versions else getattr(result, "version", None)
    assert not versions, "one batch has two versions"
    return version
