"""Exports and imports: nothing is changed on the way, nothing is lost when they are cut short."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ltm_async import CorruptError, InvalidEntryError, LTMBackend, UnavailableError, jsonl
from ltm_async.jsonl import Channel, Chunk, Imported, InvalidLineError, exporting, files, importing
from ltm_async.jsonl import lines as lines_of_exports
from ltm_async.testing import Faults, Mode

from .backends import PAIRS, Rig, make_rig
from .corpus import nested, said, same

ROOT = pathlib.Path(__file__).parents[1]
CANARY = "canary-81b7"
HEADER = b'{"format":"ltm-async-export","version":1}\n'
KEYS = (
    "plain",
    "two\nlines",
    "carriage\rreturn\u2028\u2029\x85",
    "tab\t\x01\x7f\x9b",
    "snow ☃ and 🧑‍🚀",
    "combining e\u0301, not é",
    "k" * 1024,
    "../../etc/passwd",
    '"quoted\\"',
    " ",
    "\ufeff",
    "\U0010ffff",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -0.0,
    0.1,
    5e-324,
    1.7976931348623157e308,
    10**4299,
    -(2**64),
    1.0,
    "",
    "NUL \0 and a lone \ud800 surrogate",
    "\udfff\ud800",
    "🧑‍🚀\u2028\n\r",
    [],
    {},
    {"": {"\0": [None, {"\ud800": -0.0}]}},
    nested(500),
    nested(500, of=dict),
    "large ☃ " * 40_000,
    list(range(20_000)),
)


@pytest.fixture(params=PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    (tmp_path / "from").mkdir()
    rig = make_rig(request.param, tmp_path / "from")
    yield rig
    await rig.aclose()


@pytest.fixture
async def other(tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    (tmp_path / "into").mkdir()
    other = make_rig("sqlite+local", tmp_path / "into")
    yield other
    await other.aclose()


def no_damage(key: str, why: str) -> None:
    raise AssertionError(f"{key!r}: {why}")


async def chunks(ltm: LTMBackend, **options: Any) -> list[Chunk]:
    options = {"on_damaged": no_damage, **options}
    return [chunk async for chunk in jsonl.export_entries(ltm, **options)]


async def export(ltm: LTMBackend, **options: Any) -> bytes:
    return b"".join(chunk.data for chunk in await chunks(ltm, **options))


async def lines(data: bytes) -> AsyncIterator[bytes]:
    for line in io.BytesIO(data):
        yield line


async def everything(ltm: LTMBackend) -> dict[str, tuple[Any, Any, datetime | None]]:
    page = await ltm.list_entries(limit=1000)
    assert page.cursor is None
    read = await ltm.retrieve_batch(entry.key for entry in page.entries)
    assert read.success
    return {
        key: (hit.value, dict(hit.metadata), hit.expires_at) for key, hit in read.results.items()
    }


def line_of(key: str, value: Any = 1, **more: Any) -> bytes:
    return json.dumps({"key": key, "value": value, **more}).encode() + b"\n"


def in_file(count: int) -> bytes:
    return HEADER + b"".join(line_of(f"k{number:03}", number) for number in range(count))


class TestRoundTrip:
    async def test_every_key_and_value_comes_back_equal(self, rig: Rig, other: Rig) -> None:
        entries = [
            {"key": key, "value": value, "metadata": {"of": key}}
            for key, value in zip(KEYS, VALUES, strict=False)
        ]
        entries += [{"key": f"value {n}", "value": value} for n, value in enumerate(VALUES)]
        (await rig.ltm.store_batch(entries)).raise_for_error()
        data = await export(rig.ltm)
        assert data.isascii()
        assert data.count(b"\n") == len(entries) + 1
        done = await jsonl.import_entries(other.ltm, lines(data))
        assert (done.imported, done.invalid, done.expired) == (len(entries), 0, 0)
        before, after = await everything(rig.ltm), await everything(other.ltm)
        assert before.keys() == after.keys() == {entry["key"] for entry in entries}
        for key, (value, metadata, expires_at) in before.items():
            assert same(after[key][0], value), key
            assert after[key][1:] == (metadata, expires_at)
        assert (await other.ltm.verify()).sound
        assert await export(other.ltm) == data

    @pytest.mark.parametrize(
        "ends_at",
        [
            datetime.now(UTC) + timedelta(days=1, microseconds=1),
            datetime(2999, 12, 31, 23, 59, 59, 999_999, UTC),
            datetime.max.replace(tzinfo=UTC),
            None,
        ],
    )
    async def test_an_expiry_is_the_same_instant(
        self, rig: Rig, other: Rig, ends_at: datetime | None
    ) -> None:
        await rig.ltm.store("k", 1, expires_at=ends_at)
        await jsonl.import_entries(other.ltm, lines(await export(rig.ltm)))
        assert (await other.ltm.retrieve("k")).expires_at == ends_at

    async def test_a_ttl_goes_as_the_instant_it_ends(self, rig: Rig, other: Rig) -> None:
        stored = await rig.ltm.store("k", 1, ttl=60)
        await jsonl.import_entries(other.ltm, lines(await export(rig.ltm)))
        assert (await other.ltm.retrieve("k")).expires_at == stored.expires_at
        other.clock.advance(61)
        assert not (await other.ltm.retrieve("k")).found


DAMAGE = {
    "a blob of another size": ("k1", "a blob does not have the size that its row says"),
    "a blob of another content": ("k1", "a blob does not have the content that its row says"),
    "a blob that is gone": ("k1", "a blob that a row names is missing"),
    "metadata that is no JSON": ("k1", "stored text is not JSON"),
    "metadata that is no text": ("k1", "a row's metadata is not UTF-8"),
    "an instant that is none": ("k1", "a row has an instant beyond all calendars"),
    "a hash of something else": ("k1", "a blob does not have the content that its row says"),
    "a key that is no text": ("k1\udcff", "a row's key has a lone surrogate"),
    "a key with NUL": ("k1\0", "a row's key has a NUL character"),
}
"""What is done to k1: under which key it is told, and how."""
_STATEMENTS = {
    "metadata that is no JSON": f"metadata = '{{ {CANARY}'",
    "metadata that is no text": "metadata = CAST(x'7b2261223a22ff227d' AS TEXT)",
    "an instant that is none": "created_at = 9223372036854775807",
    "a hash of something else": "content_hash = 'sha256:00'",
    "a key that is no text": "key = CAST(x'6b31ff' AS TEXT)",
    "a key with NUL": "key = CAST(x'6b3100' AS TEXT)",
}


async def _rig_with_damage(folder: pathlib.Path, damage: str) -> Rig:
    """Three blobs, and something done to that of k1 or to its row."""
    rig = make_rig("sqlite+local", folder)
    await rig.ltm.store("k1", f"{CANARY} " * 1000)
    await asyncio.to_thread(_damage, folder, damage)
    await rig.ltm.store_batch({"key": key, "value": f"{CANARY} " * 1000} for key in ("k0", "k2"))
    return rig


def _damage(folder: pathlib.Path, damage: str) -> None:
    (blob,) = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
    match damage:
        case "a blob of another size":
            blob.write_text('"something else"')
        case "a blob of another content":
            blob.write_bytes(blob.read_bytes().replace(b"c", b"C"))
        case "a blob that is gone":
            blob.unlink()
        case _:
            with closing(sqlite3.connect(folder / "ltm.db")) as db, db:
                db.execute(f"UPDATE ltm_entries SET {_STATEMENTS[damage]}")


class TestExport:
    async def test_an_empty_memory_is_a_header(self, rig: Rig) -> None:
        assert await export(rig.ltm) == HEADER == jsonl.header()

    async def test_entries_come_in_the_order_of_their_keys(self, rig: Rig) -> None:
        keys = [f"{number % 7}/{number}" for number in range(1234)]
        await rig.ltm.store_batch({"key": key, "value": key} for key in keys)
        exported = [json.loads(line)["key"] for line in (await export(rig.ltm)).splitlines()[1:]]
        assert exported == sorted(keys)

    async def test_expired_entries_are_left_out(self, rig: Rig) -> None:
        await rig.ltm.store("gone", 1, ttl=10)
        await rig.ltm.store("here", 1)
        rig.clock.advance(11)
        assert await export(rig.ltm) == HEADER + (
            b'{"key":"here","value":1,"metadata":{},"expires_at":null}\n'
        )

    async def test_a_prefix_and_a_start_choose_entries(self, rig: Rig) -> None:
        await rig.ltm.store_batch({"key": key, "value": 1} for key in ("a1", "a2", "a3", "b1"))
        data = await export(rig.ltm, prefix="a", after="a1", with_header=False)
        assert [json.loads(line)["key"] for line in data.splitlines()] == ["a2", "a3"]

    async def test_chunks_are_bounded_by_bytes(self, rig: Rig) -> None:
        await rig.ltm.store_batch({"key": f"k{n}", "value": "x" * 10_000} for n in range(20))
        got = await chunks(rig.ltm, slice_bytes=30_100)
        assert [len(chunk.keys) for chunk in got] == [0, *[3] * 6, 2]
        assert max(len(chunk.data) for chunk in got) < 31_000

    async def test_a_chunk_names_the_entries_in_it(self, rig: Rig) -> None:
        await rig.ltm.store_batch({"key": f"k{n}", "value": n} for n in range(3))
        _, chunk = await chunks(rig.ltm)
        assert chunk.keys == ("k0", "k1", "k2")
        assert chunk.data.count(b"\n") == 3

    @pytest.mark.parametrize("damage", DAMAGE)
    async def test_a_damaged_entry_is_told_and_left_out(
        self, damage: str, tmp_path: pathlib.Path
    ) -> None:
        rig = await _rig_with_damage(tmp_path, damage)
        told: dict[str, str] = {}
        data = await export(rig.ltm, on_damaged=told.__setitem__)
        key, why = DAMAGE[damage]
        assert [json.loads(line)["key"] for line in data.splitlines()[1:]] == ["k0", "k2"]
        assert list(told) == [key]
        assert why in told[key]
        assert CANARY not in str(told)
        await rig.aclose()

    async def test_damage_at_the_end_of_a_page_is_told_once(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next page begins with it again, since its key is none to go on from."""
        monkeypatch.setattr(exporting, "PAGE", 2)
        rig = await _rig_with_damage(tmp_path, "a key that is no text")
        told: list[str] = []
        data = await export(rig.ltm, on_damaged=lambda key, _why: told.append(key))
        assert [json.loads(line)["key"] for line in data.splitlines()[1:]] == ["k0", "k2"]
        assert told == ["k1\udcff"]
        await rig.aclose()

    async def test_what_is_told_of_damage_may_end_it(self, tmp_path: pathlib.Path) -> None:
        rig = await _rig_with_damage(tmp_path, "a blob of another size")

        def refuse(key: str, why: str) -> None:
            raise CorruptError(f"{key}: {why}")

        with pytest.raises(CorruptError, match=r"^k1: a blob does not have the size"):
            await export(rig.ltm, on_damaged=refuse)
        await rig.aclose()

    async def test_a_blob_that_cannot_be_had_is_no_damage(self, tmp_path: pathlib.Path) -> None:
        """Also where the error of the whole page is that of a damaged one before it."""
        rig = await _rig_with_damage(tmp_path, "a blob that is gone")
        await rig.ltm.delete_batch(["k0", "k2"])
        await rig.ltm.store("k2", CANARY * 1000)

        def make_unreadable() -> None:
            (blob,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
            blob.unlink()
            blob.mkdir()

        await asyncio.to_thread(make_unreadable)
        told: list[str] = []
        with pytest.raises(UnavailableError):
            await export(rig.ltm, on_damaged=lambda key, _why: told.append(key))
        assert told == ["k1"]
        await rig.aclose()

    async def test_a_store_that_is_down_is_no_damage(self, tmp_path: pathlib.Path) -> None:
        """Going on would leave out everything that could be read a minute later."""
        faults = Faults(at=4, mode=Mode.DOWN)
        rig = make_rig("memory+memory", tmp_path, faults)
        await rig.ltm.store("k0", CANARY * 1000)
        assert faults.steps == ["catalog.reserve_blobs", "blobs.put", "catalog.track_entries_batch"]
        damaged: list[str] = []
        with pytest.raises(UnavailableError):
            await export(rig.ltm, on_damaged=lambda key, _why: damaged.append(key))
        assert damaged == []
        await rig.aclose()


class TestImport:
    async def test_twice_is_harmless_and_deduplicates(self, rig: Rig, other: Rig) -> None:
        await rig.ltm.store_batch(
            {"key": f"k{n}", "value": "text " * (500 * (n % 3))} for n in range(30)
        )
        data = await export(rig.ltm)
        first = await jsonl.import_entries(other.ltm, lines(data))
        objects = await other.objects()
        second = await jsonl.import_entries(other.ltm, lines(data))
        assert (first.imported, first.deduplicated) == (30, 0)
        assert (second.imported, second.deduplicated) == (30, 30)
        assert await other.objects() == objects
        assert await export(other.ltm) == data

    async def test_what_has_expired_is_counted_and_left_out(self, other: Rig) -> None:
        at = datetime(2030, 1, 1, tzinfo=UTC)
        data = HEADER + b"".join(
            line_of(f"k{number}", expires_at=jsonl.to_iso(at + timedelta(microseconds=number)))
            for number in (-1, 0, 1)
        )
        done = await jsonl.import_entries(other.ltm, lines(data), now=lambda: at)
        assert (done.imported, done.expired, done.lines) == (1, 2, 4)
        assert list(await everything(other.ltm)) == ["k1"]

    async def test_another_time_zone_is_the_same_instant(self, other: Rig) -> None:
        data = HEADER + line_of("k", expires_at="2999-01-01T02:00:00.000001+02:00")
        await jsonl.import_entries(other.ltm, lines(data))
        ends_at = datetime(2999, 1, 1, microsecond=1, tzinfo=UTC)
        assert (await other.ltm.retrieve("k")).expires_at == ends_at

    async def test_of_a_key_that_comes_twice_the_later_counts(self, other: Rig) -> None:
        data = HEADER + line_of("k", 1) + line_of("other") + line_of("k", 2)
        assert (await jsonl.import_entries(other.ltm, lines(data))).imported == 3
        assert (await other.ltm.retrieve("k")).value == 2

    async def test_empty_lines_and_a_missing_last_newline_are_fine(self, other: Rig) -> None:
        data = HEADER + b"\n" + line_of("a") + b"  \r\n" + line_of("b").rstrip()
        done = await jsonl.import_entries(other.ltm, lines(data))
        assert (done.imported, done.lines) == (2, 5)

    @pytest.mark.parametrize(("batch_size", "steps"), [(10, 3), (25, 1), (7, 4)])
    async def test_entries_are_stored_by_batches(
        self, tmp_path: pathlib.Path, batch_size: int, steps: int
    ) -> None:
        rig = make_rig("memory+memory", tmp_path)
        await jsonl.import_entries(rig.ltm, lines(in_file(25)), batch_size=batch_size)
        assert rig.faults.steps == ["catalog.track_entries_batch"] * steps

    async def test_entries_are_stored_by_bytes(self, tmp_path: pathlib.Path) -> None:
        rig = make_rig("memory+memory", tmp_path)
        data = HEADER + b"".join(line_of(f"k{n}", "x" * 500) for n in range(10))
        await jsonl.import_entries(rig.ltm, lines(data), slice_bytes=1500)
        assert rig.faults.steps == ["catalog.track_entries_batch"] * 4

    async def test_progress_counts_the_lines_that_are_stored(self, other: Rig) -> None:
        seen: list[tuple[int, int]] = []

        async def progress(done: Imported) -> None:
            seen.append((done.lines, len(await everything(other.ltm))))

        await jsonl.import_entries(
            other.ltm, lines(in_file(25)), batch_size=10, on_progress=progress
        )
        assert seen == [(11, 10), (21, 20), (26, 25)]

    async def test_an_import_goes_on_where_another_ended(self, tmp_path: pathlib.Path) -> None:
        rig = make_rig("memory+memory", tmp_path, Faults(at=2, mode=Mode.DOWN))
        seen = Imported()

        async def progress(done: Imported) -> None:
            seen.lines, seen.fingerprint = done.lines, done.fingerprint

        data = in_file(25)
        with pytest.raises(UnavailableError):
            await jsonl.import_entries(rig.ltm, lines(data), batch_size=10, on_progress=progress)
        assert seen.lines == 21
        rig.faults.at = None
        done = await jsonl.import_entries(
            rig.ltm, lines(data), skip=seen.lines, fingerprint=seen.fingerprint
        )
        assert (done.imported, done.lines) == (5, 26)
        assert len(await everything(rig.ltm)) == 25

    async def test_another_file_is_no_place_to_go_on(self, other: Rig) -> None:
        data = in_file(5)
        wrong = importing.fingerprint_of(b"a line of another file")
        with pytest.raises(InvalidLineError, match=r"^line 3: is not what the earlier import"):
            await jsonl.import_entries(other.ltm, lines(data), skip=3, fingerprint=wrong)
        with pytest.raises(InvalidLineError, match=r"^line 6: is the last, and 7 were"):
            await jsonl.import_entries(other.ltm, lines(data), skip=7)
        assert await everything(other.ltm) == {}


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "cut": (line_of("k", CANARY)[:-5], "not JSON from character"),
    "text": (CANARY.encode(), "not JSON from character 1 on"),
    "bytes": (b'{"key": "\xff"}', "not UTF-8"),
    "list": (b"[]", "is no JSON object"),
    "no value": (b'{"key":"k"}', "needs the fields"),
    "no key": (b'{"value":1}', "needs the fields"),
    "number as key": (b'{"key":1,"value":1}', "needs the fields"),
    "empty key": (line_of("", CANARY), "key is empty"),
    "NUL in the key": (line_of("\0", CANARY), "key has a NUL character"),
    "surrogate in the key": (line_of("\ud800", CANARY), "key has a lone surrogate"),
    "NaN": (b'{"key":"k","value":NaN}', "a number that cannot be kept"),
    "huge float": (b'{"key":"k","value":1e999}', "a number that cannot be kept"),
    "huge int": (b'{"key":"k","value":' + b"9" * 5000 + b"}", "a number that cannot be kept"),
    "too deep": (line_of("k", nested(501)), "value is nested deeper than 500 levels"),
    "far too deep": (b'{"key":"k","value":' + b"[" * 99_999, "nested too deep"),
    "metadata no object": (line_of("k", metadata=[CANARY]), "metadata must be a mapping"),
    "large metadata": (line_of("k", metadata={"a": CANARY * 2000}), "metadata has 22008 bytes"),
    "no time zone": (line_of("k", expires_at="2999-01-01T00:00:00"), "no instant with its time"),
    "no instant": (line_of("k", expires_at=CANARY), "no instant with its time zone"),
    "number as instant": (line_of("k", expires_at=1), "no instant with its time zone"),
    "beyond calendars": (line_of("k", expires_at="0001-01-01T00:00:00+23:59"), "no instant with"),
    "unknown field": (line_of("k", ttl=CANARY), "has 1 fields that an entry has not"),
}


class TestBadLines:
    @pytest.mark.parametrize("name", BAD_LINES)
    async def test_it_is_named_and_those_before_are_kept(self, other: Rig, name: str) -> None:
        bad, why = BAD_LINES[name]
        data = HEADER + line_of("a") + line_of("b") + bad.rstrip(b"\n") + b"\n" + line_of("c")
        with pytest.raises(InvalidLineError, match=f"^line 4: .*{why}") as caught:
            await jsonl.import_entries(other.ltm, lines(data))
        assert caught.value.number == 4
        assert CANARY not in said(caught.value)
        assert list(await everything(other.ltm)) == ["a", "b"]

    @pytest.mark.parametrize("name", BAD_LINES)
    async def test_the_others_are_imported_when_it_goes_on(self, other: Rig, name: str) -> None:
        bad = BAD_LINES[name][0].rstrip(b"\n") + b"\n"
        seen: list[int] = []
        done = await jsonl.import_entries(
            other.ltm,
            lines(HEADER + line_of("a") + bad + line_of("b") + bad),
            on_invalid=lambda exc: seen.append(exc.number),
        )
        assert seen == [3, 5]
        assert (done.imported, done.invalid, done.lines) == (2, 2, 5)
        assert list(await everything(other.ltm)) == ["a", "b"]

    async def test_a_line_that_is_too_long_is_refused_unread(
        self, other: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lines_of_exports, "MAX_LINE_BYTES", 1000)
        monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
        file = io.BytesIO(HEADER + line_of("a") + line_of("b", "x" * 5000) + line_of("c"))
        channel = Channel(file)
        seen: list[str] = []
        done = await jsonl.import_entries(
            other.ltm, channel.lines(), on_invalid=lambda exc: seen.append(str(exc))
        )
        await channel.aclose()
        assert seen == ["line 3: is longer than 1000 bytes"]
        assert (done.imported, done.lines) == (2, 4)

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "line 1: there is none"),
            (b"\n", "line 1: is not the header"),
            (line_of("k", CANARY), "line 1: is not the header"),
            (CANARY.encode(), "line 1: is not the header"),
            (b"[1]\n", "line 1: is not the header"),
            (HEADER.replace(b":1}", b":2}"), "line 1: says another version of the format than 1"),
        ],
    )
    async def test_what_is_no_export_is_refused(self, other: Rig, data: bytes, why: str) -> None:
        with pytest.raises(InvalidLineError, match=f"^{why}") as caught:
            await jsonl.import_entries(other.ltm, lines(data))
        assert CANARY not in said(caught.value)


class TestEndOfExport:
    ONE, TWO = line_of("one"), line_of("two")

    @pytest.mark.parametrize(
        ("data", "end", "key"),
        [
            (b"", 0, None),
            (HEADER[:20], 0, None),
            (HEADER[:-1], 0, None),
            (HEADER, len(HEADER), None),
            (HEADER + ONE[:-1], len(HEADER), None),
            (HEADER + ONE, len(HEADER + ONE), "one"),
            (HEADER + ONE + TWO[:1], len(HEADER + ONE), "one"),
            (HEADER + ONE + TWO, len(HEADER + ONE + TWO), "two"),
            (HEADER + line_of("big", "x" * 600_000), len(HEADER) + 600_028, "big"),
        ],
    )
    def test_it_is_after_the_last_complete_line(
        self, data: bytes, end: int, key: str | None
    ) -> None:
        assert jsonl.end_of_export(io.BytesIO(data)) == (end, key)

    def test_every_cut_of_an_export_has_an_end(self) -> None:
        data = HEADER + self.ONE + self.TWO
        for cut in range(len(data) + 1):
            end, key = jsonl.end_of_export(io.BytesIO(data[:cut]))
            assert end <= cut < end + max(map(len, (HEADER, self.ONE, self.TWO)))
            assert data[:end].endswith(b"\n") or end == 0
            assert key == {len(HEADER + self.ONE): "one", len(data): "two"}.get(end)

    @pytest.mark.parametrize("data", [b"my diary\n", b"my diary", line_of("k"), b"\n" + HEADER])
    def test_another_file_is_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidLineError, match=r"^line 1: is not the header"):
            jsonl.end_of_export(io.BytesIO(data))

    def test_a_last_line_that_is_no_entry_is_refused(self) -> None:
        with pytest.raises(InvalidEntryError, match=r"^the last complete line of the file is"):
            jsonl.end_of_export(io.BytesIO(HEADER + b"[]\n"))


class TestProgressFiles:
    def test_it_comes_back(self, tmp_path: pathlib.Path) -> None:
        jsonl.save_progress(tmp_path / "state", Imported(lines=7, fingerprint="abc"))
        assert jsonl.load_progress(tmp_path / "state") == (7, "abc")
        assert [path.name for path in tmp_path.iterdir()] == ["state"]

    def test_no_file_is_no_progress(self, tmp_path: pathlib.Path) -> None:
        assert jsonl.load_progress(tmp_path / "state") == (0, "")

    @pytest.mark.parametrize("data", [b"", HEADER, b'{"lines":1}', b"my diary", b"\xff"])
    def test_another_file_is_refused(self, tmp_path: pathlib.Path, data: bytes) -> None:
        (tmp_path / "state").write_bytes(data)
        with pytest.raises(InvalidEntryError, match=r"^the file with the state is not one"):
            jsonl.load_progress(tmp_path / "state")


class Trickle(io.BytesIO):
    """Takes three bytes at a time, as a pipe that is full may."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data)[:3])


class TestChannel:
    async def test_all_is_written_in_order(self) -> None:
        file = Trickle()
        channel = Channel(file)
        for part in (b"first line\n", b"", b"second"):
            await channel.write(part)
        await channel.aclose()
        assert file.getvalue() == b"first line\nsecond"

    async def test_lines_come_as_they_are(self) -> None:
        data = [b"a\n", b"\n", b"\xff\r\n", b"x" * 300_000 + b"\n", b"last"]
        channel = Channel(io.BytesIO(b"".join(data)))
        assert [line async for line in channel.lines()] == data
        await channel.aclose()

    async def test_what_a_file_raises_reaches_the_caller(self, tmp_path: pathlib.Path) -> None:
        with (tmp_path / "file").open("wb") as file:
            channel = Channel(file)
            file.close()
            with pytest.raises(ValueError, match="closed file"):
                await channel.write(b"x")
            await channel.aclose()

    async def test_closing_does_not_wait_for_a_reader_that_has_stopped(self) -> None:
        """Who reads nothing fills the pipe, and the write never ends."""
        reads, writes = os.pipe()
        file = io.FileIO(writes, "w")
        channel = Channel(file)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await channel.write(b"x" * 10_000_000)
        async with asyncio.timeout(5):
            await channel.aclose(timeout_s=0.1)
        os.close(reads)  # ends the write
        for thread in threading.enumerate():
            if thread.name == "ltm-file":
                await asyncio.to_thread(thread.join)
        file.close()


MEASURE = """
import asyncio, sys, pathlib
from ltm_async import LTMBackend, jsonl

def status(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

async def main(folder, count):
    ltm = LTMBackend(f"sqlite:///{folder}/ltm.db", f"{folder}/blobs", timeout=None)
    async with ltm:
        for start in range(0, count, 5000):
            done = await ltm.store_batch(
                {"key": f"user:{n:06}", "value": {"n": n, "text": f"note {n}"}}
                for n in range(start, start + 5000)
            )
            assert done.stored == 5000
    async with LTMBackend(f"sqlite:///{folder}/ltm.db", f"{folder}/blobs") as ltm:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        lines = 0
        with open(f"{folder}/export", "wb") as file:
            async for chunk in jsonl.export_entries(ltm, on_damaged=print):
                file.write(chunk.data)
                lines += len(chunk.keys)
        exported = status("VmHWM")
    async with LTMBackend(f"sqlite:///{folder}/into.db", f"{folder}/blobs2") as ltm:
        with open(f"{folder}/export", "rb") as file:
            done = await jsonl.import_entries(ltm, jsonl.Channel(file).lines())
    print(lines, exported - before, done.imported, status("VmHWM") - before)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_hundred_thousand_entries_stream_in_constant_memory(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), "100000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    exported, export_bytes, imported, both_bytes = map(int, done.stdout.split())
    size = (tmp_path / "export").stat().st_size
    sys.stdout.write(
        f"{exported:,} entries, {size:,} bytes of export: the process grew by "
        f"{export_bytes / 2**20:.1f} MiB exporting, {both_bytes / 2**20:.1f} MiB with the import\n"
    )
    assert exported == imported == 100_000
    assert export_bytes < 16 * 2**20
    assert both_bytes < 32 * 2**20


def keys_of(data: bytes) -> Sequence[str]:
    return [json.loads(line)["key"] for line in data.splitlines()[1:]]


async def test_an_export_in_two_parts_is_the_whole(tmp_path: pathlib.Path) -> None:
    """Wherever the first was cut."""
    rig = make_rig("memory+memory", tmp_path)
    await rig.ltm.store_batch({"key": key, "value": [key]} for key in KEYS)
    whole = await export(rig.ltm)
    assert keys_of(whole) == sorted(KEYS)
    for cut in range(0, len(whole), 7):
        end, last = jsonl.end_of_export(io.BytesIO(whole[:cut]))
        rest = await export(rig.ltm, after=last, with_header=end == 0)
        assert whole[:end] + rest == whole
    await rig.aclose()
