"""Entries into Parquet files and back: nothing is lost, and nothing wrong is stored."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from ltm_async import (
    ConfigError,
    DuckDBQueryEngine,
    InvalidEntryError,
    LTMBackend,
    UnavailableError,
    compute_content_hash,
)
from ltm_async.testing import Faults, Mode

from .backends import Rig, make_rig

ENDS = datetime(2100, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "null": None,
    "text": "😀 '\"\\\n\t ́",
    "nul": "a\0b",
    "lone": "\ud800",
    "huge": 10**400,
    "floats": [0.1, -0.0, 1e308, 5e-324, 1.0, 1],
    "deep": [[[[[]]]]],
    "keys": {"": {"a.b": 1, "$c": [True, None]}},
    "large": {"text": "x" * 100_000},
    "k/e:y\\*?[ü]": 1,
}


@pytest.fixture
async def rig(tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig("sqlite+local", tmp_path)
    yield rig
    await rig.aclose()


@pytest.fixture
async def engine(rig: Rig, tmp_path: pathlib.Path) -> AsyncIterator[DuckDBQueryEngine]:
    (tmp_path / "temp").mkdir()
    engine = DuckDBQueryEngine(rig.ltm, threads=2, temp_directory=tmp_path / "temp")
    yield engine
    await engine.aclose()


async def fill(ltm: LTMBackend) -> None:
    for number, (key, value) in enumerate(VALUES.items()):
        await ltm.store(
            key,
            value,
            metadata={"kind": f"k{number % 2}", "n": number, "nested": {"ü": [1, 2.5, None]}},
            expires_at=ENDS if number % 2 else None,
        )


async def everything(ltm: LTMBackend) -> dict[str, Any]:
    """What is stored, without what the copy cannot have: versions and times of writing."""
    listed = await ltm.list_entries(limit=1000)
    read = await ltm.retrieve_batch(entry.key for entry in listed.entries)
    return {
        key: (repr(hit.value), hit.content_hash, hit.metadata, hit.expires_at)
        for key, hit in read.results.items()
    }


@pytest.mark.parametrize("partition_by", [[], ["kind"], ["kind", "n"]])
async def test_what_is_exported_comes_back_exactly(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path, partition_by: list[str]
) -> None:
    await fill(rig.ltm)
    path = tmp_path / "entries.parquet"
    out = await engine.export_parquet(path, partition_by=partition_by)
    assert (out.success, out.exported, out.errors) == (True, len(VALUES), {})
    assert len(out.files) == {0: 1, 1: 2, 2: len(VALUES)}[len(partition_by)]
    assert out.byte_size == sum(size_of(file) for file in out.files) > 0
    assert {mode_of(file) for file in out.files} == {0o600}
    async with LTMBackend("memory:", "memory:", on_unavailable="raise") as other:
        importer = DuckDBQueryEngine(other)
        for deduplicated in (0, len(VALUES)):
            done = await importer.import_parquet(path)
            assert (done.imported, done.deduplicated, done.expired) == (
                len(VALUES),
                deduplicated,
                0,
            )
        await importer.aclose()
        assert await everything(other) == await everything(rig.ltm)


def mode_of(file: str) -> int:
    return pathlib.Path(file).stat().st_mode & 0o777


def size_of(file: str) -> int:
    return pathlib.Path(file).stat().st_size


async def test_other_readers_find_the_documented_columns(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await fill(rig.ltm)
    await engine.export_parquet(tmp_path / "x.parquet")
    with duckdb.connect() as reader:
        described = reader.execute(f"DESCRIBE FROM '{tmp_path}/x.parquet'").fetchall()
        (rows,) = reader.execute(
            f"SELECT count(*) FROM '{tmp_path}/x.parquet' WHERE (metadata->>'n')::INT < 5"
        ).fetchall()
    assert {name: kind for name, kind, *_ in described} == {
        "key": "VARCHAR",
        "version": "BIGINT",
        "content_hash": "VARCHAR",
        "byte_size": "BIGINT",
        "inlined": "BOOLEAN",
        "metadata": "VARCHAR",
        "expires_at": "TIMESTAMP WITH TIME ZONE",
        "created_at": "TIMESTAMP WITH TIME ZONE",
        "updated_at": "TIMESTAMP WITH TIME ZONE",
        "value": "VARCHAR",
    }
    assert rows == (5,)


async def test_folders_say_what_is_in_them_and_lead_nowhere_else(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    kinds = ["../../x", "..", "a/b", "/etc", "", "ü", None, "q\"'"]
    for n, kind in enumerate(kinds):
        await rig.ltm.store(f"k{n}", n, metadata={} if kind is None else {"kind": kind})
    out = await engine.export_parquet(tmp_path / "parts", partition_by=["kind"])
    parts = tmp_path / "parts"
    assert {file.parent.parent for file in map(pathlib.Path, out.files)} == {parts}
    with duckdb.connect() as reader:
        found = reader.execute(
            f"SELECT kind FROM read_parquet('{parts}/*/*.parquet', hive_types_autocast = false)"
        ).fetchall()
    assert {kind for (kind,) in found} >= {"../../x", "..", "a/b", "/etc", "ü"}


async def test_a_member_may_be_named_like_a_word_of_sql(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await rig.ltm.store("k", 1, metadata={"order": 7})
    out = await engine.export_parquet(tmp_path / "parts", partition_by=["order", "select"])
    (file,) = out.files
    assert file.startswith(f"{tmp_path}/parts/order=7/select=__HIVE_DEFAULT_PARTITION__/")


@pytest.mark.parametrize("values", [{}, {"k": 1}])
async def test_an_export_of_few_entries_is_a_file_all_the_same(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path, values: dict[str, Any]
) -> None:
    await rig.ltm.store_batch({"key": key, "value": value} for key, value in values.items())
    out = await engine.export_parquet(tmp_path / "x.parquet")
    assert (out.exported, len(out.files)) == (len(values), 1)
    assert (await engine.import_parquet(tmp_path / "x.parquet")).imported == len(values)
    out = await engine.export_parquet(tmp_path / "parts", partition_by=["kind"])
    assert (out.exported, len(out.files)) == (len(values), len(values))


async def test_prefix_and_filter_say_what_is_exported(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await fill(rig.ltm)
    out = await engine.export_parquet(tmp_path / "a.parquet", prefix="n")
    assert out.exported == 2
    out = await engine.export_parquet(tmp_path / "b.parquet", metadata_filter={"kind": "k1"})
    assert out.exported == len(VALUES) // 2


async def test_an_export_replaces_only_a_file_and_only_when_told(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await rig.ltm.store("k", 1)
    path = tmp_path / "x.parquet"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is there already"):
        await engine.export_parquet(path)
    assert path.read_text() == "precious"
    assert (await engine.export_parquet(path, overwrite=True)).exported == 1
    assert (await engine.import_parquet(path)).imported == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    for options in ({"overwrite": True}, {"partition_by": ["kind"]}, {}):
        with pytest.raises(ConfigError, match="is there already"):
            await engine.export_parquet(folder, **options)
    with pytest.raises(ConfigError, match="does not exist"):
        await engine.export_parquet(tmp_path / "no" / "x.parquet")


def left(folder: pathlib.Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("ahead", [0, 1, 2])
async def test_an_export_that_fails_leaves_nothing(tmp_path: pathlib.Path, ahead: int) -> None:
    faults = Faults(mode=Mode.DOWN)
    rig = make_rig("memory+memory", tmp_path, faults)
    await rig.ltm.store("k", "x" * 3000)
    faults.at = len(faults.steps) + ahead
    (tmp_path / "out").mkdir()
    async with DuckDBQueryEngine(rig.ltm, temp_directory=tmp_path) as engine:
        with pytest.raises(UnavailableError):
            await engine.export_parquet(tmp_path / "out" / "x.parquet")
    assert left(tmp_path / "out") == []
    assert left(tmp_path) == ["out"]
    await rig.aclose()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": 7}, "path must be"),
        ({"path": ""}, "path is not"),
        ({"path": "gs://bucket/x", "overwrite": True}, "a storage URI gets a new folder"),
        ({"partition_by": "kind"}, "list of members"),
        ({"partition_by": ['k"; DROP TABLE entries']}, "a name is 1 to 64"),
        ({"partition_by": [7]}, "a name is"),
        ({"partition_by": ["key"]}, "that of a column"),
        ({"partition_by": ["a", "A"]}, "twice"),
        ({"partition_by": list("abcdefghi")}, "limit is 8"),
        ({"partition_by": ["kind"], "overwrite": True}, "overwrite replaces a file"),
    ],
)
async def test_bad_arguments_of_an_export_are_refused(
    engine: DuckDBQueryEngine, arguments: Any, said: str
) -> None:
    with pytest.raises(InvalidEntryError, match=said):
        await engine.export_parquet(arguments.pop("path", "x.parquet"), **arguments)


# Files of others

HASH = compute_content_hash(1)


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("SELECT 'k' AS key", "no column value"),
        ("SELECT '1' AS value", "no column key"),
        ("SELECT 7 AS key, '1' AS value", "column key is not of the type VARCHAR"),
        ("SELECT 'k' AS key, 1 AS value", "column value is not of the type VARCHAR"),
        ("SELECT 'k' AS key, '1' AS value, {'a': 1} AS metadata", "column metadata"),
        ("SELECT 'k' AS key, '1' AS value, now()::TIMESTAMP AS expires_at", "column expires_at"),
        ("SELECT '' AS key, '1' AS value", "'x.parquet', row 1: key is empty"),
        ("SELECT NULL::VARCHAR AS key, '1' AS value", "row 1: key must be str"),
        ("SELECT repeat('k', 1025) AS key, '1' AS value", "row 1: key has 1025 bytes"),
        ("SELECT 'k' AS key, NULL::VARCHAR AS value", "row 1: value is NULL"),
        ("SELECT 'k' AS key, '{' AS value", "row 1: stored text is not JSON"),
        ("SELECT 'k' AS key, 'NaN' AS value", "row 1: stored text is not JSON"),
        ("SELECT 'k' AS key, '1 2' AS value", "row 1: stored text has characters after"),
        ("SELECT 'k' AS key, '1' AS value, '[]' AS metadata", "row 1: metadata must be a mapping"),
        ("SELECT 'k' AS key, '1' AS value, 'x' AS metadata", "row 1: stored text is not JSON"),
        (f"SELECT 'k' AS key, '2' AS value, '{HASH}' AS content_hash", "another content"),
        (
            "SELECT 'k' AS key, '1' AS value, 'infinity'::TIMESTAMPTZ AS expires_at",
            "row 1: expires_at is no instant",
        ),
    ],
)
async def test_a_file_or_row_that_is_wrong_is_refused(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path, select: str, said: str
) -> None:
    write(tmp_path, select)
    with pytest.raises(InvalidEntryError, match=said):
        await engine.import_parquet(tmp_path / "x.parquet")
    assert (await rig.ltm.list_entries()).entries == []


def write(tmp_path: pathlib.Path, select: str) -> None:
    with duckdb.connect() as writer:
        writer.execute(f"COPY ({select}) TO '{tmp_path}/x.parquet' (FORMAT parquet)")


async def test_rows_before_one_that_is_wrong_are_stored(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    write(
        tmp_path,
        "SELECT 'k' || range AS key, if(range = 700, '{', range::VARCHAR) AS value"
        " FROM range(1000)",
    )
    with pytest.raises(InvalidEntryError, match="row 701: stored text is not JSON") as caught:
        await engine.import_parquet(tmp_path / "x.parquet")
    assert (await rig.ltm.stats()).entries == 700
    (note,) = caught.value.__notes__
    assert note.startswith("700 entries were stored before")


async def test_of_rows_with_the_same_key_the_last_counts_and_expired_ones_do_not(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    write(
        tmp_path,
        "SELECT 'k' AS key, '1' AS value, NULL::TIMESTAMPTZ AS expires_at UNION ALL "
        "SELECT 'k', '{\"b\": 1, \"a\": 2}', NULL UNION ALL "
        "SELECT 'old', '3', now() - INTERVAL 1 DAY",
    )
    done = await engine.import_parquet(tmp_path / "x.parquet")
    assert (done.imported, done.expired) == (2, 1)
    hit = await rig.ltm.retrieve("k")
    assert (hit.value, hit.expires_at) == ({"a": 2, "b": 1}, None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "neither a file nor a folder"),
        ("empty", "0 files"),
        ("text.parquet", "cannot be read as Parquet"),
        ("a*.parquet", "no pattern"),
    ],
)
async def test_a_path_that_cannot_be_imported_is_named(
    engine: DuckDBQueryEngine, tmp_path: pathlib.Path, name: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("PAR1 no PAR1")
    (tmp_path / "a*.parquet").write_text("")
    with pytest.raises(InvalidEntryError, match=said):
        await engine.import_parquet(tmp_path / name)


async def test_an_import_that_a_store_ends_says_how_far_it_came(
    tmp_path: pathlib.Path,
) -> None:
    write(tmp_path, "SELECT 'k' || range AS key, '1' AS value FROM range(1000)")
    faults = Faults(at=1, mode=Mode.DOWN)
    rig = make_rig("memory+memory", tmp_path, faults, on_unavailable="degrade")
    async with DuckDBQueryEngine(rig.ltm) as engine:
        done = await engine.import_parquet(tmp_path / "x.parquet")
    assert (done.success, done.degraded, done.imported, done.files) == (False, True, 500, 0)
    assert sorted(done.errors) == sorted(f"k{n}" for n in range(500, 1000))
    await rig.aclose()


async def test_what_a_torn_slice_has_stored_is_counted(tmp_path: pathlib.Path) -> None:
    """A slice of 500 rows is more than one batch here, of which the second fails."""
    write(tmp_path, "SELECT 'k' || range AS key, '1' AS value FROM range(400)")
    faults = Faults(at=1, mode=Mode.DOWN)
    rig = make_rig("memory+memory", tmp_path, faults, batch_size=100)
    async with DuckDBQueryEngine(rig.ltm) as engine:
        with pytest.raises(UnavailableError) as caught:
            await engine.import_parquet(tmp_path / "x.parquet")
        assert caught.value.__notes__[0].startswith("100 entries were stored before")
        faults.at = None
        done = await engine.import_parquet(tmp_path / "x.parquet")
        assert (done.imported, done.files, done.errors) == (400, 1, {})
    await rig.aclose()


async def test_a_row_is_named_by_its_file(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    for kind, value in (("a", "1"), ("b", "{")):
        (tmp_path / "in" / f"kind={kind}").mkdir(parents=True)
        write(tmp_path / "in" / f"kind={kind}", f"SELECT '{kind}' AS key, '{value}' AS value")
    with pytest.raises(InvalidEntryError, match=r"'kind=b/x\.parquet', row 1: stored text"):
        await engine.import_parquet(tmp_path / "in")
    assert (await rig.ltm.retrieve("a")).found


async def test_a_value_that_is_too_long_to_name_a_folder_is_refused(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    await rig.ltm.store("fits", 1, metadata={"kind": "é" * 41})
    out = await engine.export_parquet(tmp_path / "fits", partition_by=["kind"])
    assert len(pathlib.Path(out.files[0]).parent.name) == 5 + 6 * 41
    await rig.ltm.store("not", 1, metadata={"kind": "é" * 42})
    with pytest.raises(InvalidEntryError, match=r"kind, which is too long .* 257 bytes"):
        await engine.export_parquet(tmp_path / "not", partition_by=["kind"])
    assert not (tmp_path / "not").exists()


async def test_an_expiry_is_kept_to_the_microsecond(
    rig: Rig, engine: DuckDBQueryEngine, tmp_path: pathlib.Path
) -> None:
    ends = datetime.now(UTC).replace(microsecond=123457) + timedelta(days=1)
    await rig.ltm.store("k", 1, expires_at=ends)
    await engine.export_parquet(tmp_path / "x.parquet")
    await rig.ltm.delete("k")
    await engine.import_parquet(tmp_path / "x.parquet")
    assert (await rig.ltm.retrieve("k")).expires_at == ends
