"""DuckDB's extension fts: only on request, only from this machine, only of the same version."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
from collections.abc import AsyncIterator
from typing import Any

import duckdb
import pytest

from ltm_async import ConfigError, DuckDBQueryEngine, LTMBackend, QueryError

from .servers.need import missing

VERSION = f"v{duckdb.__version__}"


def in_wheel() -> pathlib.Path | None:
    """The file of the wheel for this DuckDB, of which there is none for 1.5.6 and 2.0."""
    spec = importlib.util.find_spec("duckdb_extension_fts")
    roots = [] if spec is None else spec.submodule_search_locations or []
    files = [pathlib.Path(root, "extensions", VERSION, "fts.duckdb_extension") for root in roots]
    return next((file for file in files if file.exists()), None)


@pytest.fixture
def fts() -> pathlib.Path:
    """The extension's file."""
    file = in_wheel()
    if file is None:
        missing("fts", f"there is none for DuckDB {VERSION}; make duckdb has another DuckDB")
    return file


@pytest.fixture
async def ltm() -> AsyncIterator[LTMBackend]:
    async with LTMBackend("memory:", "memory:", on_unavailable="raise") as ltm:
        yield ltm


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extensions": "fts"}, "a list of names"),
        ({"extensions": 7}, "a list of names"),
        ({"extensions": ["fts", "spatial"]}, "'spatial', it can have 'fts'"),
        ({"extensions": [7]}, "it can have 'fts'"),
        ({"extensions": ["httpfs"]}, "httpfs, which could do nothing here"),
        ({"extension_directory": ""}, "extension_directory must be the path of a folder"),
        ({"extension_directory": "a\0b"}, "extension_directory must be"),
        ({"extension_directory": 7}, "extension_directory must be"),
    ],
)
def test_what_is_no_extension_here_is_refused_at_once(options: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DuckDBQueryEngine(LTMBackend("memory:", "memory:"), **options)


def platform() -> str:
    with duckdb.connect() as connection:
        (found,) = connection.execute("PRAGMA platform").fetchone() or ("",)
    return str(found)


def left(folder: pathlib.Path) -> list[str]:
    return [path.name for path in folder.glob("ltm-duckdb-*")]


async def test_a_folder_without_the_extension_is_named_with_what_it_lacks(
    ltm: LTMBackend, tmp_path: pathlib.Path
) -> None:
    engine = DuckDBQueryEngine(
        ltm, extensions=["fts"], extension_directory=tmp_path, temp_directory=tmp_path
    )
    with pytest.raises(ConfigError, match=f"no {VERSION}/{platform()}/fts.duckdb_extension"):
        await engine.query("SELECT 1")
    assert left(tmp_path) == []


async def test_a_wheel_of_another_version_is_not_taken(
    ltm: LTMBackend, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "duckdb_extension_fts" / "extensions" / "v1.4.0"
    older.mkdir(parents=True)
    (older / "fts.duckdb_extension").write_bytes(b"")
    (older.parents[1] / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    engine = DuckDBQueryEngine(ltm, extensions=["fts"])
    with pytest.raises(ConfigError, match=f"none for DuckDB {VERSION}.*duckdb-extension-fts=="):
        await engine.open()


async def test_a_file_that_is_no_extension_is_refused(
    ltm: LTMBackend, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / VERSION / platform()
    folder.mkdir(parents=True)
    (folder / "fts.duckdb_extension").write_bytes(b"x" * 4096)
    engine = DuckDBQueryEngine(
        ltm, extensions=["fts"], extension_directory=tmp_path, temp_directory=tmp_path
    )
    with pytest.raises(ConfigError, match=f"DuckDB {VERSION} refuses its extension fts"):
        await engine.open()
    assert left(tmp_path) == []


async def test_without_a_request_nothing_is_loaded(ltm: LTMBackend) -> None:
    async with DuckDBQueryEngine(ltm) as engine:
        with pytest.raises(QueryError, match="stem"):
            await engine.query("SELECT stem('running', 'english')")


@pytest.mark.usefixtures("fts")
async def test_stems_are_found_beside_words(ltm: LTMBackend) -> None:
    texts = {"a": "she brewed tea", "b": "brewing 茶", "c": "coffee"}
    await ltm.store_batch({"key": key, "value": text} for key, text in texts.items())
    by_stem = "SELECT key FROM entries WHERE fts_main_entries.match_bm25(key, $1) > 0 ORDER BY key"
    async with DuckDBQueryEngine(ltm, extensions=["fts", "fts"]) as engine:
        assert (await engine.query("SELECT stem('running', 'english')")).rows == [("run",)]
        both = f"WITH stems AS ({by_stem}) SELECT (SELECT count(*) FROM stems), key FROM matches"
        assert (await engine.query(both, ["brews"], search="brewed")).rows == [(2, "a")]
        async with (
            await engine.load(index_text=True) as loaded,
            await engine.load(index_text=True, prefix="b") as others,
        ):
            assert (await loaded.query(by_stem, ["brew"])).rows == [("a",), ("b",)]
            assert (await loaded.query(by_stem, ["茶"])).rows == [("b",)]
            assert (await others.query(by_stem, ["brew"])).rows == [("b",)], "its own"
        with pytest.raises(QueryError):
            await engine.query(by_stem, ["brew"])


async def test_a_folder_as_install_lays_it_out_is_taken(
    ltm: LTMBackend, tmp_path: pathlib.Path, fts: pathlib.Path
) -> None:
    folder = tmp_path / "it's" / VERSION / platform()
    folder.mkdir(parents=True)
    shutil.copy(fts, folder)
    async with DuckDBQueryEngine(
        ltm, extensions=("fts",), extension_directory=tmp_path / "it's"
    ) as engine:
        assert (await engine.query("SELECT stem('teas', 'english')")).rows == [("tea",)]
