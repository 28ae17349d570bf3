"""Calls that are cancelled at random moments leave every pool as usable as it was.

``LTM_CANCELLATIONS`` has each survive another number, and ``LTM_SEED`` at other moments:
``make cancellations`` ten thousand, and prints what was counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pathlib
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pytest

from ltm_async import (
    FirestoreCatalog,
    GCSBlobStore,
    LocalBlobStore,
    LTMBackend,
    MemoryBlobStore,
    MemoryCatalog,
    PostgresCatalog,
    SQLiteCatalog,
)
from ltm_async.catalogs.firestore.options import TRANSPORTS
from ltm_async.protocols import BlobStore, Catalog

from . import azure_stores, s3_stores
from .databases import Database, wait_for
from .projects import Project
from .servers.azurite import Azurite
from .servers.firestore import Firestore, new_project
from .servers.gcs import GcsServer
from .servers.ministack import MiniStack
from .servers.pgbouncer import PgBouncer

CANCELLATIONS = int(os.environ.get("LTM_CANCELLATIONS", "600"))
OF_HTTPX = int(os.environ.get("LTM_CANCELLATIONS", "10000"))
"""On Supabase: its client continues httpx, whose last release does not survive that."""
SEED = int(os.environ.get("LTM_SEED", "1"))
SIZE = 3
"""Of each pool, as far as that can be said."""
CROWD = 40
"""So many call at once."""
AFTERWARDS = 20
WRITER_AND_READER = 2
ESTABLISHED = "01"
KEYS = [f"key {number}" for number in range(10)]
LARGE = "x" * 5_000


class Rig(NamedTuple):
    """A backend, one of whose stores has the pool in question."""

    ltm: LTMBackend
    store: Catalog | BlobStore
    filler: str
    """Of values, which it makes go into that store."""
    held: Callable[[], int]
    """Connections, or threads, at this moment."""
    most: int
    """Of them at rest."""


Fixture: TypeAlias = Callable[[str], Any]
"""Gives one by its name."""
Make: TypeAlias = Callable[[Fixture], Rig]


def of_catalog(catalog: Catalog, port: int, most: int = SIZE) -> Rig:
    ltm = LTMBackend(catalog, MemoryBlobStore(), on_unavailable="raise")
    return Rig(ltm, catalog, "", connections_to(port), most)


def of_blobs(blobs: BlobStore, port: int, **options: Any) -> Rig:
    ltm = LTMBackend(MemoryCatalog(), blobs, on_unavailable="raise", **options)
    return Rig(ltm, blobs, LARGE, connections_to(port), SIZE)


def postgres(fixture: Fixture) -> Rig:
    database: Database = fixture("database")
    catalog = PostgresCatalog(database.dsn, schema=database.schema, max_size=SIZE, pooler=False)
    return of_catalog(catalog, database.server.port)


def pgbouncer(fixture: Fixture) -> Rig:
    database: Database = fixture("database")
    pooler: PgBouncer = fixture("pgbouncer_server")
    catalog = PostgresCatalog(pooler.dsn, schema=database.schema, max_size=SIZE, pooler=True)
    return of_catalog(catalog, pooler.port)


def supabase(fixture: Fixture) -> Rig:
    project: Project = fixture("project")
    return of_catalog(project.catalog(max_connections=SIZE), project.api.port)


def firestore(transport: str) -> Make:
    def make(fixture: Fixture) -> Rig:
        server: Firestore = fixture("firestore_server")
        return of_catalog(FirestoreCatalog(new_project(), transport=transport), server.port, most=1)

    return make


def s3(fixture: Fixture) -> Rig:
    server: MiniStack = fixture("s3_server")
    return of_blobs(s3_stores.store_on(server, max_connections=SIZE), server.port)


def gcs(fixture: Fixture) -> Rig:
    server: GcsServer = fixture("gcs_server")
    uri, url = f"gs://{server.new_bucket()}/", server.endpoint_url
    return of_blobs(GCSBlobStore(uri, endpoint_url=url, max_connections=SIZE), server.port)


def azure(fixture: Fixture) -> Rig:
    server: Azurite = fixture("azure_server")
    # The driver has no limit of its own.
    return of_blobs(azure_stores.store_on(server), server.port, max_concurrency=SIZE)


def sqlite(fixture: Fixture) -> Rig:
    catalog = SQLiteCatalog(str(fixture("tmp_path") / "ltm.db"))
    ltm = LTMBackend(catalog, MemoryBlobStore(), on_unavailable="raise")
    return Rig(ltm, catalog, "", threads_of("ltm-sqlite-"), WRITER_AND_READER)


def local(fixture: Fixture) -> Rig:
    blobs = LocalBlobStore(fixture("tmp_path") / "blobs")
    ltm = LTMBackend(MemoryCatalog(), blobs, on_unavailable="raise")
    return Rig(ltm, blobs, LARGE, threads_of("ltm-local-"), WRITER_AND_READER)


def threads_of(prefix: str) -> Callable[[], int]:
    """How many of that name have begun from now on: other tests leave some behind."""
    before = set(threading.enumerate())
    return lambda: sum(
        thread.name.startswith(prefix) for thread in set(threading.enumerate()) - before
    )


def connections_to(port: int) -> Callable[[], int]:
    """How many this process has made to *port* from now on, as the kernel counts them."""

    def count() -> int:
        ours = set()
        for descriptor in os.scandir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                ours.add(os.readlink(descriptor.path))
        sockets = [
            line.split()
            for family in ("tcp", "tcp6")
            for line in pathlib.Path("/proc/self/net", family).read_text("ascii").splitlines()[1:]
        ]
        return sum(
            f"socket:[{each[9]}]" in ours and each[3] == ESTABLISHED and each[2].endswith(peer)
            for each in sockets
        )

    peer = f"0100007F:{port:04X}"  # in both, since gRPC takes IPv4 for a part of IPv6
    before = count()
    return lambda: count() - before


POOLS: dict[str, Make] = {
    "postgres": postgres,
    "pgbouncer": pgbouncer,
    "supabase": supabase,
    **{f"firestore {transport}": firestore(transport) for transport in TRANSPORTS},
    "sqlite": sqlite,
    "s3": s3,
    "gcs": gcs,
    "azure": azure,
    "local": local,
}


@pytest.fixture(params=POOLS)
def rig(request: pytest.FixtureRequest) -> tuple[str, Rig]:
    return request.param, POOLS[request.param](request.getfixturevalue)


@pytest.mark.timeout(120 + OF_HTTPX / 10)
def test_cancelled_calls_leave_a_pool_usable(rig: tuple[str, Rig]) -> None:
    name, pool = rig
    count = OF_HTTPX if name == "supabase" else CANCELLATIONS
    counted = asyncio.run(survive(pool, count), debug=False)  # which would take most of the time
    sys.stdout.write(f"\n{name}: {counted}\n")


async def survive(rig: Rig, count: int) -> dict[str, int]:
    """Cancel *count* calls, and see that nothing is left of them; what was counted."""
    seeded = random.Random(SEED)
    untold: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: untold.append(context))
    cancelled = answered = most = 0
    for key in KEYS:
        await rig.ltm.store(key, [key, -1, rig.filler])
    span_s = await _time_of(crowd(rig, seeded))
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for cancel in itertools.cycle((at_turns, at_moments)):
        ended = await ends_of(crowd(rig, seeded), cancel, seeded, span_s)
        assert set(ended) <= {"cancelled", "answered"}
        cancelled += ended["cancelled"]
        answered += ended["answered"]
        most = max(most, rig.held())
        if cancelled >= count:
            break
    async with asyncio.timeout(30):
        await asyncio.gather(*(call(rig, number) for number in range(AFTERWARDS)))
    await wait_for(lambda: rig.held() <= rig.most)
    await wait_for(lambda: len(asyncio.all_tasks()) <= tasks)
    await wait_for(lambda: threading.active_count() <= threads)
    verified = await rig.ltm.verify()
    assert verified.sound, verified.problems
    assert verified.entries == len(KEYS)
    left = rig.held()
    assert left, "nothing is counted"
    await rig.ltm.aclose()
    await rig.store.aclose()
    await wait_for(lambda: rig.held() == 0)
    assert untold == []
    return {
        "cancelled": cancelled,
        "answered beside them": answered,
        "answered of 20 afterwards": AFTERWARDS,
        "held at most": most,
        "held at rest": left,
    }


def crowd(rig: Rig, seeded: random.Random) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(call(rig, seeded.randrange(10_000))) for _ in range(CROWD)]


async def call(rig: Rig, number: int) -> None:
    """A write for two reads; what is read is what was asked for, not what another was told."""
    key = KEYS[number % len(KEYS)]
    if number % 3:
        assert (await rig.ltm.retrieve(key)).value[0] == key
    else:
        assert (await rig.ltm.store(key, [key, number, rig.filler])).stored


Cancel: TypeAlias = Callable[
    [Sequence[asyncio.Task[None]], random.Random, float], Coroutine[Any, Any, None]
]


async def ends_of(
    calls: Sequence[asyncio.Task[None]], cancel: Cancel, seeded: random.Random, span_s: float
) -> Counter[str]:
    """How they ended. Their exceptions are not kept, for these keep what they went through."""
    await cancel(calls, seeded, span_s)
    ended = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(
        "cancelled"
        if isinstance(each, asyncio.CancelledError)
        else "answered"
        if each is None
        else repr(each)
        for each in ended
    )


async def _time_of(calls: Sequence[asyncio.Task[None]]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*calls)
    return loop.time() - began


async def at_turns(
    calls: Sequence[asyncio.Task[None]], seeded: random.Random, span_s: float
) -> None:
    """Cancel one after the other, so that connections go from one to the next meanwhile."""
    for one in seeded.sample(calls, len(calls)):
        await asyncio.sleep(seeded.choice((0, 0, 0, 0.0002)))
        one.cancel()


async def at_moments(
    calls: Sequence[asyncio.Task[None]], seeded: random.Random, span_s: float
) -> None:
    """Cancel each at any moment of *span_s*, in which all would end."""
    loop = asyncio.get_running_loop()
    for one in calls:
        loop.call_later(seeded.uniform(0, span_s), one.cancel)
