"""The doctor: what is well, what is not, and that it says so without a secret."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    LTMBackend,
    MemoryBlobStore,
    MemoryCatalog,
    doctor,
)
from ltm_async.doctor import Check, Hider
from ltm_async.entry import namespace_path
from ltm_async.protocols import BlobInfo
from ltm_async.testing import Faults, ManualClock, Mode, faulty_blob_store, faulty_catalog

from .backends import PAIRS, make_rig

ROOT = pathlib.Path(__file__).parents[1]
CANARY = "canary-2e6d"
OF_SQLITE = ["sqlite version", "schema version", "catalog disk space"]
OF_CATALOGS = [
    "catalog connection",
    "catalog write",
    "clock offset",
    "catalog read",
    "catalog delete",
]
OF_BLOBS = ["storage put", "storage get", "storage list", "storage delete"]


async def examine(catalog: Any, storage: Any, **options: Any) -> list[Check]:
    return [check async for check in doctor.examine(catalog, storage, **options)]


def failed(checks: Sequence[Check]) -> list[str]:
    return [check.check for check in checks if not check.ok]


def the(name: str, checks: Sequence[Check]) -> Check:
    (check,) = [check for check in checks if check.check == name]
    return check


@pytest.fixture
def url(tmp_path: pathlib.Path) -> str:
    return f"sqlite:///{tmp_path / 'ltm.db'}"


class TestWell:
    async def test_every_check_is_ok_and_needs_no_advice(
        self, url: str, tmp_path: pathlib.Path
    ) -> None:
        checks = await examine(url, tmp_path / "blobs", namespace="mine", min_free_bytes=1)
        assert [check.check for check in checks] == [
            "configuration",
            *OF_SQLITE,
            *OF_CATALOGS,
            "storage disk space",
            *OF_BLOBS,
        ]
        assert [check for check in checks if not check.ok or check.advice is not None] == []
        assert checks[0].detail == "catalog sqlite, storage local, namespace 'mine'"
        assert sqlite3.sqlite_version in the("sqlite version", checks).detail
        assert (tmp_path / "blobs").is_dir()

    @pytest.mark.parametrize("pair", PAIRS)
    async def test_it_leaves_nothing_behind(self, pair: str, tmp_path: pathlib.Path) -> None:
        rig = make_rig(pair, tmp_path)
        catalog, blobs = rig.catalog, rig.blobs
        async with LTMBackend(catalog, blobs) as ltm:
            await ltm.store("mine", "x" * 5000)
            for _ in range(2):
                assert failed(await examine(catalog, blobs, min_free_bytes=1)) == []
            assert (await ltm.verify()).sound
            assert (await ltm.stats()).entries == 1
        space = doctor.PROBE_NAMESPACE
        assert [info async for info in blobs.scan(namespace_path(space))] == []
        stats = await catalog.stats(space)
        assert (stats.entries, stats.expired, stats.blobs, stats.dead_blobs) == (0, 0, 0, 0)
        await rig.aclose()

    async def test_stores_that_were_given_stay_open(self) -> None:
        catalog, blobs = MemoryCatalog(), MemoryBlobStore()
        await examine(catalog, blobs)
        async with LTMBackend(catalog, blobs) as ltm:
            assert (await ltm.store("k", 1)).stored

    async def test_what_a_stopped_doctor_left_is_deleted(self) -> None:
        clock = ManualClock()
        catalog, blobs = MemoryCatalog(clock=clock), MemoryBlobStore(clock=clock)
        left = namespace_path(doctor.PROBE_NAMESPACE) + "left"
        await blobs.put(left, doctor.PROBE)
        async with LTMBackend(catalog, blobs, namespace=doctor.PROBE_NAMESPACE) as ltm:
            await ltm.store("probe-left", 1, ttl=doctor.PROBE_TTL)
            await examine(catalog, blobs)
            assert await blobs.get(left, limit=1) is not None, "it may belong to one at work"
            clock.advance(doctor.PROBE_TTL.total_seconds() + 1)
            await examine(catalog, blobs)
            assert await blobs.get(left, limit=1) is None
            assert (await ltm.stats()).expired == 0


class TestConfiguration:
    @pytest.mark.parametrize(
        ("catalog", "storage", "detail"),
        [
            (None, "./blobs", "no catalog is given"),
            ("memory:", None, "no storage is given"),
            ("memory.db", "./blobs", "catalog is no URL"),
            ("nothing:x", "./blobs", "there is no 'nothing'; there are sqlite"),
            ("memory:", "nothing://x", "there is no 'nothing'; there are file"),
            ("sqlite:///x.db?mode=ro", "./blobs", "has no option 'mode'"),
        ],
    )
    async def test_a_wrong_one_ends_it(self, catalog: Any, storage: Any, detail: str) -> None:
        (check,) = await examine(catalog, storage)
        assert (check.check, check.ok) == ("configuration", False)
        assert detail in check.detail
        assert "LTM_CATALOG" in str(check.advice)

    async def test_a_namespace_that_is_too_long_is_found(self) -> None:
        (check,) = await examine("memory:", "memory:", namespace="n" * 257)
        assert not check.ok
        assert "namespace has 257 bytes" in check.detail


class TestCatalog:
    async def test_a_missing_folder_is_told(self, tmp_path: pathlib.Path) -> None:
        checks = await examine(f"sqlite:///{tmp_path}/no/x.db", "memory:", min_free_bytes=1)
        assert failed(checks) == ["catalog connection"]
        check = the("catalog connection", checks)
        assert "unable to open database file" in check.detail
        assert "folder exists" in str(check.advice)

    async def test_the_storage_is_looked_at_all_the_same(self, tmp_path: pathlib.Path) -> None:
        checks = await examine(f"sqlite:///{tmp_path}/no/x.db", "memory:", min_free_bytes=1)
        assert [check.check for check in checks][-4:] == OF_BLOBS

    async def test_another_file_is_no_catalog(self, url: str, tmp_path: pathlib.Path) -> None:
        (tmp_path / "ltm.db").write_text(f"my diary {CANARY} " * 1000)
        checks = await examine(url, "memory:")
        assert failed(checks) == ["schema version"]
        check = the("schema version", checks)
        assert "no SQLite database" in check.detail
        assert "right place" in str(check.advice)
        assert CANARY not in str(checks)

    async def test_a_newer_schema_is_left_alone(self, url: str, tmp_path: pathlib.Path) -> None:
        await _fill(url)
        with closing(sqlite3.connect(tmp_path / "ltm.db")) as db:
            db.execute("PRAGMA user_version = 99")
        checks = await examine(url, "memory:", min_free_bytes=1)
        assert failed(checks) == ["schema version"]
        assert "version 99" in the("schema version", checks).detail
        assert "upgrade" in str(the("schema version", checks).advice)

    async def test_a_file_that_is_not_there_yet_is_told(self, url: str) -> None:
        first, second = [await examine(url, "memory:", min_free_bytes=1) for _ in range(2)]
        assert "does not exist yet" in the("schema version", first).detail
        assert "as this release has it" in the("schema version", second).detail
        assert failed(first) == failed(second) == []

    async def test_a_file_that_another_has_locked_is_told(
        self, url: str, tmp_path: pathlib.Path
    ) -> None:
        await _fill(url)
        with closing(sqlite3.connect(tmp_path / "ltm.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            checks = await examine(url, "memory:", timeout=0.3, min_free_bytes=1)
            db.execute("ROLLBACK")
        assert failed(checks) == ["catalog write"]
        assert "holds a lock" in str(the("catalog write", checks).advice)

    @pytest.mark.parametrize(
        ("step", "found"),
        [(0, "catalog write"), (1, "catalog read"), (2, "catalog delete")],
    )
    async def test_each_step_that_fails_is_found(self, step: int, found: str) -> None:
        faults = Faults(at=step, mode=Mode.DOWN)
        checks = await examine(faulty_catalog(MemoryCatalog(), faults), MemoryBlobStore())
        assert failed(checks)[0] == found
        assert the(found, checks).advice

    @pytest.mark.parametrize("seconds", [-3600, -6, 6, 3600])
    async def test_a_clock_that_is_off_is_found(self, seconds: float) -> None:
        clock = ManualClock()
        clock.advance(seconds)
        checks = await examine(MemoryCatalog(clock=clock), MemoryBlobStore())
        assert failed(checks) == ["clock offset"]
        check = the("clock offset", checks)
        assert ("ahead of" if seconds > 0 else "behind") in check.detail
        assert "NTP" in str(check.advice)

    @pytest.mark.parametrize("seconds", [-4, 4])
    async def test_a_clock_that_is_off_a_little_is_fine(self, seconds: float) -> None:
        clock = ManualClock()
        clock.advance(seconds)
        assert failed(await examine(MemoryCatalog(clock=clock), MemoryBlobStore())) == []


async def _fill(url: str) -> None:
    async with LTMBackend(url, "memory:") as ltm:
        await ltm.store("k", CANARY)


class Locked(MemoryBlobStore):
    """Refuses what it is told to."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = refused

    def check(self, step: str) -> None:
        if step in self.refused:
            raise AccessDeniedError(f"memory: no right to {step}", store="memory")

    async def put(self, path: str, data: bytes) -> None:
        self.check("put")
        await super().put(path, data)

    async def get(self, path: str, *, limit: int) -> bytes | None:
        self.check("get")
        return await super().get(path, limit=limit)

    async def delete(self, paths: Sequence[str]) -> Any:
        self.check("delete")
        return await super().delete(paths)

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        self.check("list")
        async for info in super().scan(prefix):
            yield info


class TestStorage:
    @pytest.mark.parametrize("right", ["put", "get", "list", "delete"])
    async def test_each_right_that_is_missing_is_found(self, right: str) -> None:
        checks = await examine(MemoryCatalog(), Locked(right))
        assert f"storage {right}" in failed(checks)
        check = the(f"storage {right}", checks)
        assert f"AccessDeniedError: memory: no right to {right}" == check.detail
        assert "right to read and write" in str(check.advice)

    async def test_a_failed_put_ends_it(self) -> None:
        checks = await examine(MemoryCatalog(), Locked("put"))
        assert [check.check for check in checks][-1] == "storage put"

    async def test_a_file_in_the_place_of_the_folder_is_told(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "blobs").write_text("in the way")
        checks = await examine("memory:", tmp_path / "blobs", min_free_bytes=1)
        assert failed(checks) == ["storage put"]
        assert the("storage put", checks).advice

    async def test_a_store_that_hangs_is_given_up(self) -> None:
        class Hanging(MemoryBlobStore):
            async def put(self, path: str, data: bytes) -> None:
                await asyncio.get_running_loop().create_future()

        checks = await examine(MemoryCatalog(), Hanging(), timeout=0.05)
        assert "DeadlineError" in the("storage put", checks).detail

    async def test_a_full_disk_is_told(self, url: str, tmp_path: pathlib.Path) -> None:
        beyond = shutil.disk_usage(tmp_path).total + 1
        checks = await examine(url, tmp_path / "blobs", min_free_bytes=beyond)
        assert failed(checks) == ["catalog disk space", "storage disk space"]
        for name in failed(checks):
            assert "ltm gc" in str(the(name, checks).advice)

    async def test_the_disk_of_a_folder_that_is_not_made_yet_is_found(
        self, tmp_path: pathlib.Path
    ) -> None:
        checks = await examine("memory:", tmp_path / "a" / "b" / "c", min_free_bytes=1)
        assert the("storage disk space", checks).ok

    async def test_a_reply_that_is_lost_is_told(self) -> None:
        faults = Faults(at=0, mode=Mode.LOST_REPLY)
        checks = await examine(MemoryCatalog(), faulty_blob_store(MemoryBlobStore(), faults))
        assert failed(checks) == ["storage put"]
        assert "again" in str(the("storage put", checks).advice)


class TestSecrets:
    @pytest.mark.parametrize(
        "spec",
        [
            f"postgresql://me:{CANARY}@host/db",
            f"postgresql://{CANARY}@host/db",
            f"postgresql://host/db?user=me&password={CANARY}",
            f"az://container/path?sig={CANARY}&se=1",
            {"type": "supabase", "service_role_key": CANARY},
            {"type": "x", "dsn": f"postgresql://me:{CANARY}@host"},
            {"type": "x", "options": {"secret": CANARY}},
        ],
    )
    def test_they_are_taken_out_of_texts(self, spec: Any) -> None:
        text = Hider(None, spec)(f"cannot connect with {CANARY} or {spec}")
        assert CANARY not in text
        assert text.startswith("cannot connect with ")

    def test_an_escaped_password_is_hidden_as_it_is_sent(self) -> None:
        hide = Hider("postgresql://me:p%40ss-w%2Frd@host/db")
        assert hide("refused p@ss-w/rd and p%40ss-w%2Frd") == "refused … and …"

    def test_a_password_with_an_at_sign_is_hidden_whole(self) -> None:
        assert Hider("postgresql://me:p@ss@host/db")("refused p@ss") == "refused …"

    @pytest.mark.parametrize("spec", ["sqlite:///me.db?synchronous=FULL", "./blobs", "[", None])
    def test_an_address_without_one_changes_nothing(self, spec: Any) -> None:
        assert Hider(spec)("synchronous FULL me.db blobs [") == "synchronous FULL me.db blobs ["

    async def test_none_is_in_a_check(self) -> None:
        for spec in (f"postgresql://me:{CANARY}@host/db", f"nothing:{CANARY}"):
            assert CANARY not in str(await examine(spec, f"s3://me:{CANARY}@bucket"))


WITHOUT_RIGHTS = """
import asyncio, os, pathlib, sys, tempfile
from ltm_async import doctor

async def refused(folder):
    checks = [check async for check in doctor.examine("memory:", folder, min_free_bytes=1)]
    return [(check.check, check.detail.partition(":")[0]) for check in checks if not check.ok]

with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "blobs").mkdir(mode=0o555)
    print(asyncio.run(refused(f"{folder}/own")))
    os.chmod(folder, 0o755)
    if os.getuid() == 0:
        os.seteuid(65534)
    print(asyncio.run(refused(f"{folder}/blobs")))
    if os.getuid() == 0:
        os.seteuid(0)
"""


def test_a_folder_without_the_right_to_write_is_told() -> None:
    """As a user without privileges, since root may do all."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "[('storage put', 'AccessDeniedError')]"]
