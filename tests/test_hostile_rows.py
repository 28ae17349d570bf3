"""Rows and objects that somebody else has changed: found out, named, and never believed."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import pathlib
import sqlite3
import stat
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from ltm_async import (
    ConfigError,
    CorruptError,
    LTMBackend,
    MemoryBlobStore,
    MemoryCatalog,
    StoreError,
)
from ltm_async.catalogs.sqlite.database import MIGRATIONS
from ltm_async.entry import FIRST_US, LAST_US, MAX_VALUE_BYTES, blob_path, hash_of, to_datetime
from ltm_async.protocols import Row
from ltm_async.reading import check_instants

from .backends import QUICK, Rig, make_rig
from .corpus import said

SECRET = "canary-4f1c"
SMALL = {"text": SECRET}
LARGE = {"text": SECRET * 200}
DEEP = "[" * 100_000 + "]" * 100_000


@dataclasses.dataclass(frozen=True, slots=True)
class Forger:
    """Changes rows and objects behind the back of the stores."""

    rig: Rig
    folder: pathlib.Path

    def row(self, key: str) -> dict[str, Any]:
        if isinstance(self.rig.catalog, MemoryCatalog):
            return self.rig.catalog._spaces[""].rows[key]._asdict()
        with closing(sqlite3.connect(self.folder / "ltm.db")) as db:
            db.row_factory = sqlite3.Row
            return dict(db.execute("SELECT * FROM ltm_entries WHERE key = ?", (key,)).fetchone())

    def change(self, key: str, **columns: Any) -> None:
        if isinstance(self.rig.catalog, MemoryCatalog):
            rows = self.rig.catalog._spaces[""].rows
            rows[key] = rows[key]._replace(**columns)
            return
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        self.execute(
            f"UPDATE ltm_entries SET {changes} WHERE key = :which", columns | {"which": key}
        )

    def execute(self, statement: str, bound: dict[str, Any] | None = None) -> None:
        with closing(sqlite3.connect(self.folder / "ltm.db")) as db, db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            db.execute(statement, bound or {})

    def path(self, key: str) -> str:
        return blob_path("", self.row(key)["blob_id"])

    def file(self, key: str) -> pathlib.Path:
        return self.folder / "blobs" / self.path(key)

    def change_blob(self, key: str, data: bytes | None) -> None:
        """Put *data* in the place of the blob, or take it away."""
        if isinstance(self.rig.blobs, MemoryBlobStore):
            _, written = self.rig.blobs._objects.pop(self.path(key))
            if data is not None:
                self.rig.blobs._objects[self.path(key)] = (data, written)
        elif data is None:
            self.file(key).unlink()
        else:
            self.file(key).write_bytes(data)

    def blob(self, key: str) -> bytes:
        if isinstance(self.rig.blobs, MemoryBlobStore):
            return self.rig.blobs._objects[self.path(key)][0]
        return self.file(key).read_bytes()


@pytest.fixture(params=["sqlite+local", "memory+memory"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    """With three entries, of which a test forges the one in the middle."""
    rig = make_rig(request.param, tmp_path)
    await rig.ltm.store("a small", 1)
    await rig.ltm.store("b small", SMALL, metadata={"text": SECRET})
    await rig.ltm.store("b large", LARGE, metadata={"text": SECRET})
    await rig.ltm.store("c large", ["c" * 2000])
    yield rig
    await rig.aclose()


@pytest.fixture
def forger(rig: Rig, tmp_path: pathlib.Path) -> Forger:
    return Forger(rig, tmp_path)


@pytest.fixture
async def file_rig(tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig("sqlite+local", tmp_path)
    await rig.ltm.store("a small", 1)
    await rig.ltm.store("b large", LARGE)
    await rig.ltm.store("c large", ["c" * 2000])
    yield rig
    await rig.aclose()


@pytest.fixture
def file_forger(file_rig: Rig, tmp_path: pathlib.Path) -> Forger:
    return Forger(file_rig, tmp_path)


def text_columns(text: str) -> dict[str, Any]:
    """A row that holds *text*, and is right about it."""
    data = text.encode()
    return {"inlined_value": text, "content_hash": hash_of(data), "byte_size": len(data)}


TEXTS = {
    "no JSON": f"{SECRET}",
    "empty": "",
    "cut": f'{{"text":"{SECRET}',
    "NaN": "NaN",
    "NaN inside": f'["{SECRET}",NaN]',
    "infinity": "-Infinity",
    "a float that overflows": f'["{SECRET}",1e999]',
    "something after it": f'"{SECRET}" x',
    "two values": f'"{SECRET}""{SECRET}"',
    "space before it": f' "{SECRET}"',
    "an integer of 5,000 digits": "1" * 5000,
    "100,000 lists": DEEP,
}

FORGED: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"text: {name}": ("b small", text_columns(text)) for name, text in TEXTS.items()},
    "text: another": ("b small", {"inlined_value": f'"{SECRET}?"'}),
    "text: with a lone surrogate's escape cut": ("b small", text_columns('"\\ud8"')),
    "inlined size: too small": ("b small", {"byte_size": 3}),
    "inlined size: negative": ("b small", {"byte_size": -1}),
    "hash: another": ("b large", {"content_hash": hash_of(b"1")}),
    "hash: of an inlined value": ("b small", {"content_hash": hash_of(b"1")}),
    "hash: empty": ("b large", {"content_hash": ""}),
    "hash: without its algorithm": ("b small", {"content_hash": hash_of(b"1")[7:]}),
    "size: one less": ("b large", {"byte_size": 2210}),
    "size: one more": ("b large", {"byte_size": 2212}),
    "size: 0": ("b large", {"byte_size": 0}),
    "size: negative": ("b large", {"byte_size": -1}),
    "size: most negative": ("b large", {"byte_size": -(2**63)}),
    "size: the largest value": ("b large", {"byte_size": MAX_VALUE_BYTES}),
    "size: absurd": ("b large", {"byte_size": 2**63 - 1}),
    "blob: up": ("b large", {"blob_id": "../../etc/passwd"}),
    "blob: absolute": ("b large", {"blob_id": "/etc/passwd"}),
    "blob: parent": ("b large", {"blob_id": ".."}),
    "blob: empty": ("b large", {"blob_id": ""}),
    "blob: a URL": ("b large", {"blob_id": "file:///etc/passwd"}),
    "blob: NUL": ("b large", {"blob_id": f"{'0' * 16}-{'a' * 20}\0/x"}),
    "blob: newline": ("b large", {"blob_id": f"{'0' * 16}-{'a' * 20}\n"}),
    "blob: upper case": ("b large", {"blob_id": f"{'A' * 16}-{'A' * 20}"}),
    "blob: other digits": ("b large", {"blob_id": f"{'٠' * 16}-{'a' * 20}"}),
    "blob: none such": ("b large", {"blob_id": f"{'0' * 16}-{'a' * 20}"}),
    "both": ("b large", {"inlined_value": '"x"'}),
    "both, and the text is right": ("b large", text_columns('"x"')),
    "a blob besides the text": ("b small", {"blob_id": f"{'0' * 16}-{'a' * 20}"}),
    "neither": ("b large", {"blob_id": None}),
    "neither, of a small one": ("b small", {"inlined_value": None}),
    "metadata: list": ("b small", {"metadata": "[]"}),
    "metadata: null": ("b large", {"metadata": "null"}),
    "metadata: empty": ("b small", {"metadata": ""}),
    "metadata: no JSON": ("b small", {"metadata": SECRET}),
    "metadata: NaN": ("b small", {"metadata": '{"a":NaN}'}),
    "metadata: something after it": ("b large", {"metadata": "{} x"}),
    "metadata: deep": ("b small", {"metadata": DEEP}),
    "instant: end beyond the calendar": ("b small", {"expires_at": 2**62}),
    "instant: made beyond the calendar": ("b large", {"created_at": 2**62}),
    "instant: changed before the calendar": ("b small", {"updated_at": -(2**62)}),
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_row_is_corrupt_and_spoils_no_other(
    rig: Rig, forger: Forger, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, columns = FORGED[case]
    forger.change(key, **columns)
    others = {"a small": 1, "c large": ["c" * 2000]}

    with pytest.raises(CorruptError) as caught:
        await rig.ltm.retrieve(key)
    assert SECRET not in said(caught.value)

    degraded = LTMBackend(rig.catalog, rig.blobs, retry=QUICK)
    hit = await degraded.retrieve(key)
    assert (hit.success, hit.found, hit.value, hit.metadata) == (False, False, None, {})
    assert (hit.error_type, hit.degraded, hit.exception is None) == ("CorruptError", False, False)
    with pytest.raises(CorruptError):
        hit.raise_for_error()

    for ltm in (rig.ltm, degraded):
        found = await ltm.retrieve_batch(["a small", key, "c large", "absent"])
        assert {name: hit.value for name, hit in found.results.items()} == others
        assert {name: error.error_type for name, error in found.errors.items()} == {
            key: "CorruptError"
        }
        assert (found.success, found.missing) == (False, ["absent"])
        assert SECRET not in repr(found.errors) + repr(found.to_dict())
    assert SECRET not in caplog.text


@pytest.mark.parametrize("case", FORGED)
async def test_verifying_names_a_forged_row_and_no_other(
    rig: Rig, forger: Forger, case: str
) -> None:
    key, columns = FORGED[case]
    forger.change(key, **columns)
    found = await rig.ltm.verify()
    assert (found.success, found.sound, list(found.problems)) == (True, False, [key])
    assert SECRET not in found.problems[key]


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_row_can_be_replaced_and_deleted(
    rig: Rig, forger: Forger, case: str
) -> None:
    key, columns = FORGED[case]
    forger.change(key, **columns)
    await rig.ltm.store(key, ["new", "x" * 2000])
    assert (await rig.ltm.retrieve(key)).value == ["new", "x" * 2000]
    forger.change(key, **columns)
    assert (await rig.ltm.delete(key)).deleted
    assert not (await rig.ltm.retrieve(key)).found
    others = await rig.ltm.retrieve_batch(["a small", "c large"])
    assert others.found == 2
    await rig.ltm.collect_garbage()
    assert (await rig.ltm.verify()).problems == {}


@pytest.mark.parametrize("case", [case for case in FORGED if case.startswith("instant")])
async def test_a_listing_names_a_forged_instant_and_shows_the_others(
    rig: Rig, forger: Forger, case: str
) -> None:
    key, columns = FORGED[case]
    others = {entry.key for entry in (await rig.ltm.list_entries()).entries} - {key}
    forger.change(key, **columns)
    page = await rig.ltm.list_entries()
    assert {entry.key for entry in page.entries} == others
    assert (list(page.errors), page.error_type) == ([key], "CorruptError")


KEYS = {
    "no text": ("6b31ff", "k1\udcff"),
    "NUL": ("6b3100", "k1\0"),
    "empty": ("", ""),
    "too long": ("6b" * 1025, "k" * 1025),
}


@pytest.mark.parametrize("limit", [2, 3, 100])
@pytest.mark.parametrize("wanted", [None, {}], ids=["all", "filtered"])
@pytest.mark.parametrize("case", KEYS)
async def test_a_row_whose_key_is_none_is_named_and_hides_no_other(
    file_rig: Rig, file_forger: Forger, case: str, wanted: dict[str, Any] | None, limit: int
) -> None:
    data, key = KEYS[case]
    file_forger.execute(
        f"UPDATE ltm_entries SET key = CAST(x'{data}' AS TEXT) WHERE key = 'b large'"
    )
    seen: list[str] = []
    errors: set[str] = set()
    cursor = None
    for _ in range(4):
        page = await file_rig.ltm.list_entries(metadata_filter=wanted, cursor=cursor, limit=limit)
        seen += [entry.key for entry in page.entries]
        errors |= page.errors.keys()
        if (cursor := page.cursor) is None:
            break
    assert cursor is None, "it does not end"
    assert (seen, errors) == (["a small", "c large"], {key})


async def test_a_page_of_nothing_but_keys_that_are_none_is_an_error(
    file_rig: Rig, file_forger: Forger
) -> None:
    """There is nothing to go on from."""
    file_forger.execute("UPDATE ltm_entries SET key = CAST(x'6b3100' AS TEXT) WHERE key > 'c'")
    page = await file_rig.ltm.list_entries(cursor="b large", limit=2)
    assert (page.cursor, list(page.errors)) == (None, ["k1\0"])
    with pytest.raises(CorruptError, match="no key that can be one"):
        await file_rig.ltm.list_entries(cursor="b large", limit=1)


@pytest.mark.parametrize("batch_size", [2, 500])
@pytest.mark.parametrize("case", KEYS)
async def test_verify_names_a_row_whose_key_is_none(
    file_rig: Rig, file_forger: Forger, tmp_path: pathlib.Path, case: str, batch_size: int
) -> None:
    data, key = KEYS[case]
    file_forger.execute(
        f"UPDATE ltm_entries SET key = CAST(x'{data}' AS TEXT) WHERE key = 'b large'"
    )
    ltm = LTMBackend(file_rig.catalog, file_rig.blobs, batch_size=batch_size)
    async with asyncio.timeout(10):
        found = await ltm.verify()
    assert found.problems[key].startswith("a row's key ")
    assert found.entries == 2


@pytest.mark.parametrize("column", ["created_at", "updated_at", "expires_at"])
def test_the_first_and_the_last_instant_of_the_calendar_are_none_beyond_it(column: str) -> None:
    row = Row(
        key="k", version=1, content_hash="", byte_size=1, inlined_value="1", blob_id=None,
        metadata="{}", expires_at=None, created_at=0, updated_at=0,
    )  # fmt: skip
    columns: dict[str, Any] = {}
    for instant in (FIRST_US, LAST_US):
        columns[column] = instant
        check_instants(row._replace(**columns))
        to_datetime(instant)
    for instant in (FIRST_US - 1, LAST_US + 1):
        columns[column] = instant
        with pytest.raises(CorruptError, match="beyond all calendars"):
            check_instants(row._replace(**columns))


async def test_metadata_that_is_no_text_is_damage(file_rig: Rig, file_forger: Forger) -> None:
    file_forger.execute(
        "UPDATE ltm_entries SET metadata = CAST(x'7b2261223a22ff227d' AS TEXT) "
        "WHERE key = 'a small'"
    )
    with pytest.raises(CorruptError, match="metadata is not UTF-8"):
        await file_rig.ltm.retrieve("a small")
    assert list((await file_rig.ltm.list_entries()).errors) == ["a small"]


@pytest.mark.parametrize("byte_size", [2**63 - 1, MAX_VALUE_BYTES + 1, -(2**63)])
async def test_a_size_beyond_the_limit_asks_for_nothing(
    rig: Rig, forger: Forger, byte_size: int
) -> None:
    forger.change("b large", byte_size=byte_size)
    rig.faults.steps.clear()
    with pytest.raises(CorruptError):
        await rig.ltm.retrieve("b large")
    assert set(rig.faults.steps) == {"catalog.get_entries_batch"}


async def test_a_blob_of_the_largest_size_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "x" * 5_000
    stored = await rig.ltm.store("largest", value)
    monkeypatch.setattr("ltm_async.reading.MAX_VALUE_BYTES", stored.byte_size)
    assert (await rig.ltm.retrieve("largest")).value == value


async def test_a_size_within_the_limit_allocates_what_there_is(rig: Rig, forger: Forger) -> None:
    forger.change("b large", byte_size=MAX_VALUE_BYTES)
    tracemalloc.start()
    with pytest.raises(CorruptError):
        await rig.ltm.retrieve("b large")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


# Objects


BLOB_CHANGES: dict[str, Any] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b" ",
    "much longer": lambda data: data * 1000,
    "one bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "another of the same size": lambda data: b'"' + b"x" * (len(data) - 2) + b'"',
}


@pytest.mark.parametrize("case", BLOB_CHANGES)
async def test_a_damaged_blob_is_corrupt_and_spoils_no_other(
    rig: Rig, forger: Forger, case: str
) -> None:
    forger.change_blob("b large", BLOB_CHANGES[case](forger.blob("b large")))
    with pytest.raises(CorruptError) as caught:
        await rig.ltm.retrieve("b large")
    assert SECRET not in said(caught.value)
    hit = await LTMBackend(rig.catalog, rig.blobs).retrieve("b large")
    assert (hit.success, hit.found, hit.error_type) == (False, False, "CorruptError")
    found = await rig.ltm.retrieve_batch(["a small", "b large", "c large"])
    assert (sorted(found.results), list(found.errors)) == (["a small", "c large"], ["b large"])
    assert list((await rig.ltm.verify()).problems) == ["b large"]
    await rig.ltm.store("b large", [LARGE])
    assert (await rig.ltm.retrieve("b large")).value == [LARGE]
    assert (await rig.ltm.verify()).sound


async def test_a_blob_that_is_not_text_is_corrupt(rig: Rig, forger: Forger) -> None:
    """Even when its row has the right hash of it."""
    data = b"\xff" * 2000
    forger.change_blob("b large", data)
    forger.change("b large", content_hash=hash_of(data), byte_size=len(data))
    with pytest.raises(CorruptError):
        await rig.ltm.retrieve("b large")


@pytest.mark.parametrize("text", [f'"{SECRET}{"x" * 2000}', "[" * 2000 + "]" * 2000, "NaN"])
async def test_a_blob_that_is_not_our_json_is_corrupt(rig: Rig, forger: Forger, text: str) -> None:
    data = text.encode()
    forger.change_blob("b large", data)
    forger.change("b large", content_hash=hash_of(data), byte_size=len(data))
    with pytest.raises(CorruptError) as caught:
        await rig.ltm.retrieve("b large")
    assert SECRET not in said(caught.value)


async def test_a_blob_of_another_namespace_is_out_of_reach(rig: Rig, forger: Forger) -> None:
    other = LTMBackend(rig.catalog, rig.blobs, namespace="other")
    theirs = (await other.store("theirs", ["theirs" * 500])).raise_for_error()
    assert theirs.storage_uri is not None
    forger.change(
        "b large",
        blob_id=theirs.storage_uri.rpartition("/")[2],
        content_hash=theirs.content_hash,
        byte_size=theirs.byte_size,
    )
    with pytest.raises(CorruptError):
        await rig.ltm.retrieve("b large")
    await rig.ltm.delete("b large")
    assert (await other.retrieve("theirs")).value == ["theirs" * 500]


async def test_a_borrowed_blob_is_checked_for_each_row_that_names_it(
    rig: Rig, forger: Forger
) -> None:
    """Its owner's row being right must not vouch for the forged one."""
    forger.change("b large", blob_id=forger.row("c large")["blob_id"])
    with pytest.raises(CorruptError):
        await rig.ltm.retrieve("b large")
    found = await rig.ltm.retrieve_batch(["b large", "c large"])
    assert {key: hit.value for key, hit in found.results.items()} == {"c large": ["c" * 2000]}
    assert list(found.errors) == ["b large"]


def borrow(forger: Forger) -> None:
    """Have b's row name c's blob, and be right about its content."""
    row = forger.row("c large")
    columns = {name: row[name] for name in ("blob_id", "content_hash", "byte_size")}
    forger.change("b large", **columns)


async def test_verifying_names_a_row_that_borrows_a_blob(rig: Rig, forger: Forger) -> None:
    borrow(forger)
    assert "b large" in (await rig.ltm.verify()).problems


async def test_deleting_a_row_that_borrows_a_blob_leaves_it_to_its_owner(
    rig: Rig, forger: Forger
) -> None:
    borrow(forger)
    await rig.ltm.delete("b large")
    assert (await rig.ltm.retrieve("c large")).value == ["c" * 2000]


async def test_expiring_a_row_that_borrows_a_blob_leaves_it_to_its_owner(
    rig: Rig, forger: Forger
) -> None:
    borrow(forger)
    forger.change("b large", expires_at=1)
    assert (await rig.ltm.cleanup_expired()).deleted == 1
    assert (await rig.ltm.retrieve("c large")).value == ["c" * 2000]


# The file system


async def test_a_link_in_the_place_of_a_blob_is_not_followed(
    file_rig: Rig, file_forger: Forger, tmp_path: pathlib.Path
) -> None:
    """Not even to the right content."""
    file, target = file_forger.file("b large"), tmp_path / "elsewhere"
    file.rename(target)
    file.symlink_to(target)
    with pytest.raises(StoreError) as caught:
        await file_rig.ltm.retrieve("b large")
    assert SECRET not in said(caught.value)
    hit = await LTMBackend(file_rig.catalog, file_rig.blobs, retry=QUICK).retrieve("b large")
    assert (hit.success, hit.found, hit.value) == (False, False, None)
    found = await file_rig.ltm.retrieve_batch(["a small", "b large", "c large"])
    assert (sorted(found.results), list(found.errors)) == (["a small", "c large"], ["b large"])
    assert list((await file_rig.ltm.verify()).problems) == ["b large"]
    assert (await file_rig.ltm.delete("b large")).deleted
    assert (target.is_file(), file.is_symlink()) == (True, False)


async def test_a_folder_in_the_place_of_a_blob_is_an_error(
    file_rig: Rig, file_forger: Forger
) -> None:
    file = file_forger.file("b large")
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError):
        await file_rig.ltm.retrieve("b large")
    found = await file_rig.ltm.retrieve_batch(["b large", "c large"])
    assert (sorted(found.results), list(found.errors)) == (["c large"], ["b large"])


async def test_a_pipe_in_the_place_of_a_blob_holds_nobody_up(
    file_rig: Rig, file_forger: Forger
) -> None:
    file = file_forger.file("b large")
    file.unlink()
    os.mkfifo(file)
    try:
        with pytest.raises(StoreError):
            await file_rig.ltm.retrieve("b large", timeout=0.5)
        other = await file_rig.ltm.retrieve("c large")
        assert other.value == ["c" * 2000]
    finally:
        os.close(os.open(file, os.O_RDWR))  # lets go whoever waits to open it


async def test_blobs_are_readable_by_their_owner_only(file_rig: Rig, file_forger: Forger) -> None:
    file = file_forger.file("b large")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


# The catalog's file


@pytest.mark.parametrize("column", ["inlined_value", "metadata"])
async def test_text_that_is_not_utf8_is_corrupt_and_not_shown(
    tmp_path: pathlib.Path, column: str
) -> None:
    rig = make_rig("sqlite+local", tmp_path)
    await rig.ltm.store("a small", 1)
    await rig.ltm.store("b small", SMALL)
    data = SECRET.encode() + b"\xff"
    Forger(rig, tmp_path).execute(
        f"UPDATE ltm_entries SET {column} = CAST(:data AS TEXT) WHERE key = 'b small'",
        {"data": data},
    )
    try:
        with pytest.raises(CorruptError) as caught:
            await rig.ltm.retrieve("b small")
        assert SECRET not in str(caught.value)
        found = await rig.ltm.retrieve_batch(["a small", "b small"])
        assert list(found.errors) == ["b small"]
        with pytest.raises(CorruptError) as caught:
            await rig.ltm.touch("b small")
        assert SECRET not in said(caught.value)
        assert (await rig.ltm.delete("b small")).deleted
    finally:
        await rig.aclose()


@pytest.mark.parametrize("version", [len(MIGRATIONS) + 1, 99])
async def test_a_newer_schema_is_refused_and_left_alone(
    tmp_path: pathlib.Path, version: int
) -> None:
    rig = make_rig("sqlite+local", tmp_path)
    await rig.ltm.store("k", 1)
    await rig.aclose()
    forger = Forger(rig, tmp_path)
    forger.execute(f"PRAGMA user_version = {version}")
    before = forger.row("k")
    for mode in ("degrade", "raise"):
        again = make_rig("sqlite+local", tmp_path, on_unavailable=mode)
        with pytest.raises(ConfigError, match=f"schema version {version}, this release knows"):
            await again.ltm.retrieve("k")
        with pytest.raises(ConfigError, match=f"schema version {version}, this release knows"):
            await again.ltm.store("k", 2)
        await again.aclose()
    assert forger.row("k") == before


async def test_a_file_that_is_no_database_is_corrupt_and_left_alone(
    tmp_path: pathlib.Path,
) -> None:
    file = tmp_path / "ltm.db"
    text = f"{SECRET} is no database\n" * 1000
    file.write_text(text)
    rig = make_rig("sqlite+local", tmp_path)
    for call in (rig.ltm.retrieve("k"), rig.ltm.store("k", 1)):
        with pytest.raises(CorruptError) as caught:
            await call
        assert SECRET not in said(caught.value)
    await rig.aclose()
    assert file.read_text() == text


async def test_the_table_itself_refuses_a_value_and_a_blob_at_once(
    tmp_path: pathlib.Path,
) -> None:
    rig = make_rig("sqlite+local", tmp_path)
    await rig.ltm.store("k", 1)
    with closing(sqlite3.connect(tmp_path / "ltm.db")) as db:
        for columns in ("blob_id = 'x'", "inlined_value = NULL"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(f"UPDATE ltm_entries SET {columns}")
    await rig.aclose()


async def test_all_forgeries_at_once_spoil_nothing_else(tmp_path: pathlib.Path) -> None:
    rig = make_rig("sqlite+local", tmp_path)
    values = {"b small": SMALL, "b large": LARGE}
    await rig.ltm.store_batch(
        [{"key": case, "value": values[base]} for case, (base, _) in FORGED.items()]
    )
    await rig.ltm.store("sound", LARGE)
    for case, (_, columns) in FORGED.items():
        Forger(rig, tmp_path).change(case, **columns)
    found = await rig.ltm.retrieve_batch([*FORGED, "sound"])
    problems = (await rig.ltm.verify()).problems
    await rig.aclose()
    assert list(found.results) == ["sound"]
    assert (set(found.errors), found.missing) == (set(FORGED), [])
    assert set(problems) == set(FORGED)
