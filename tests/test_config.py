"""Configuration: environment variables, unknown names, URLs, limits, and doing nothing early."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Mapping
from typing import Any

import pytest

import ltm_async
from ltm_async import (
    ConfigError,
    LocalBlobStore,
    LTMBackend,
    MemoryBlobStore,
    MemoryCatalog,
    MissingDriverError,
    RetryPolicy,
    SQLiteCatalog,
    create_catalog_backend,
    create_ltm_backend,
    registry,
)
from ltm_async.catalogs.postgres.options import PoolKey
from ltm_async.config import expand_env
from ltm_async.dsn import Address

CATALOG_NAMES = "sqlite, postgresql, postgres, firestore, supabase, memory"
ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}

# Environment variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${NAME}", "value"),
        ("a${NAME}b${NAME}", "avaluebvalue"),
        ("${NAME:-other}", "value"),
        ("${ABSENT:-other}", "other"),
        ("${ABSENT:-}", ""),
        ("${ABSENT:-a:-b}", "a:-b"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("$$", "$"),
        ("$${NAME}", "${NAME}"),
        ("$$$${NAME}", "$${NAME}"),
        ("$$${NAME}", "$value"),
        ("$NAME", "$NAME"),
        ("${1}", "${1}"),
        ("${NAME", "${NAME"),
        ("${NESTED}", "${NAME}"),
    ],
)
def test_variables_are_replaced(text: str, expected: str) -> None:
    assert expand_env(text, ENVIRON) == expected
    assert expand_env({"a": [text, {"b": text}]}, ENVIRON) == {"a": [expected, {"b": expected}]}


def test_only_text_is_searched_for_variables() -> None:
    given = {"${NAME}": 1, "b": True, "c": None, "d": 1.5}
    assert expand_env(given, ENVIRON) == given


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^the environment variable ABSENT is not set$"):
        expand_env({"a": ["${NAME}/${ABSENT}"]}, ENVIRON)


def test_the_configuration_takes_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("LTM_TEST_FOLDER", str(tmp_path))
    monkeypatch.setenv("LTM_TEST_LIMIT", "7")
    ltm = LTMBackend.from_config(
        {
            "catalog": {"type": "sqlite", "path": "${LTM_TEST_FOLDER}/ltm.db"},
            "storage": "${LTM_TEST_FOLDER}/blobs",
            "batch_size": "${LTM_TEST_LIMIT}",
            "timeout": "${LTM_TEST_TIMEOUT:-2.5}",
            "retry": {"attempts": "${LTM_TEST_LIMIT}", "base_s": "0.5"},
            "namespace": "${LTM_TEST_LIMIT}",
        }
    )
    stores, options = ltm._runner.stores(), ltm._runner.options
    assert repr(stores.catalog) == f"SQLiteCatalog('{tmp_path}/ltm.db')"
    assert repr(stores.blobs) == f"LocalBlobStore('{tmp_path}/blobs')"
    assert (options.batch_size, options.timeout, options.namespace) == (7, 2.5, "7")
    assert options.retry == RetryPolicy(attempts=7, base_s=0.5)


@pytest.mark.parametrize("part", ["catalog", "storage"])
def test_a_variable_s_value_is_not_searched_again(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A password may hold a dollar sign, and nobody's value may name another's variable."""
    monkeypatch.setenv("LTM_TEST_OUTER", "/tmp/${LTM_TEST_INNER}$$")
    monkeypatch.setenv("LTM_TEST_INNER", "secret")
    config = {
        "catalog": {"type": "sqlite", "path": "${LTM_TEST_OUTER}"},
        "storage": {"uri": "${LTM_TEST_OUTER}"},
    }
    stores = LTMBackend.from_config(config)._runner.stores()
    shown = repr(stores.catalog if part == "catalog" else stores.blobs)
    assert "/tmp/${LTM_TEST_INNER}$$'" in shown


@pytest.mark.parametrize("part", ["catalog", "storage"])
def test_two_dollar_signs_are_one_in_every_part(part: str) -> None:
    config = {
        "catalog": {"type": "sqlite", "path": "/tmp/$${HOME}"},
        "storage": {"uri": "/tmp/$${HOME}"},
    }
    stores = LTMBackend.from_config(config)._runner.stores()
    assert "/tmp/${HOME}'" in repr(stores.catalog if part == "catalog" else stores.blobs)


def test_variables_in_a_catalog_s_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTM_TEST_PATH", "here.db")
    made = create_catalog_backend({"type": "sqlite", "path": "${LTM_TEST_PATH}"})
    assert repr(made) == "SQLiteCatalog('here.db')"
    assert repr(create_catalog_backend("sqlite", path="${LTM_TEST_PATH}")) == repr(made)


# Names

GOOD: Mapping[str, Any] = {"catalog": "memory:", "storage": "memory:"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"catalgo": "memory:"}, "ltm has no option 'catalgo', did you mean 'catalog'?"),
        ({"batchsize": 5}, "ltm has no option 'batchsize', did you mean 'batch_size'?"),
        ({"retry": {"atempts": 5}}, "retry has no option 'atempts', did you mean 'attempts'?"),
        (
            {"retry": {"xyzzy": 5}},
            "retry has no option 'xyzzy'; there are attempts, base_s, cap_s, throttled_base_s",
        ),
        (
            {"catalog": {"type": "sqlite", "paht": "x"}},
            "catalog 'sqlite' has no option 'paht', did you mean 'path'?",
        ),
        (
            {"catalog": {"type": "sqlite", "path": "x", "clock": 1}},
            "catalog 'sqlite' has no option 'clock'; there are path, synchronous",
        ),
        (
            {"catalog": "sqlite:///x.db?synchronus=FULL"},
            "catalog 'sqlite' has no option 'synchronus', did you mean 'synchronous'?",
        ),
        (
            {"storage": {"uri": "./b", "rooot": "x"}},
            "storage_uri 'file' has no option 'rooot'",
        ),
        ({5: 1}, "ltm has no option '5'; there are batch_size, catalog, "),
        ({"catalog": {"type": "postgre"}}, "catalog: there is no 'postgre'; there are sqlite, "),
        ({"catalog": {"path": "x"}}, "catalog needs the key 'type', such as 'sqlite'"),
        ({"catalog": {"type": 5}}, "catalog needs the key 'type', such as 'sqlite'"),
        ({"storage": {"root": "x"}}, "storage needs the key 'uri', such as './blobs'"),
        ({"storage_uri": "memory:"}, "ltm needs one of the keys 'storage' and 'storage_uri'"),
        ({"catalog": None}, "catalog must be a catalog, a URL or a mapping, not NoneType"),
        ({"storage": None}, "storage_uri must be a blob store, a URI or a path, not NoneType"),
        ({"storage": ""}, "storage_uri is not the path of a folder"),
        ({"retry": 5}, "retry must be a RetryPolicy, not int"),
        ({"batch_size": "many"}, "batch_size is 'many', it must be a number"),
        ({"timeout": "NaN"}, "timeout is nan s, it must be above 0 and at most 86400"),
        ({"retry": {"cap_s": "x"}}, "cap_s is 'x', it must be a number"),
    ],
    ids=str,
)
def test_a_configuration_that_is_wrong_says_where(change: Mapping[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend.from_config({**GOOD, **change})
    assert str(caught.value).startswith(message)
    with pytest.raises(ConfigError):
        create_ltm_backend({**GOOD, **change})


@pytest.mark.parametrize("missing", ["catalog", "storage"])
def test_a_configuration_that_lacks_a_part_names_it(missing: str) -> None:
    config = {name: part for name, part in GOOD.items() if name != missing}
    with pytest.raises(ConfigError, match=f"'{missing}'"):
        LTMBackend.from_config(config)


@pytest.mark.parametrize("config", [None, [], "sqlite:///x.db", 5])
def test_a_configuration_that_is_no_mapping_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"^the configuration must be a mapping, not "):
        LTMBackend.from_config(config)


@pytest.mark.parametrize("storage", ["storage", "storage_uri"])
def test_storage_has_two_names(storage: str) -> None:
    ltm = LTMBackend.from_config({"catalog": "memory:", storage: "memory:"})
    assert isinstance(ltm._runner.stores().blobs, MemoryBlobStore)


def test_the_given_configuration_stays_as_it_was() -> None:
    catalog, storage = {"type": "memory"}, {"uri": "memory:"}
    config = {"catalog": catalog, "storage": storage, "retry": {"attempts": "2"}}
    LTMBackend.from_config(config)._runner.stores()
    assert (catalog, storage) == ({"type": "memory"}, {"uri": "memory:"})
    assert config == {"catalog": catalog, "storage": storage, "retry": {"attempts": "2"}}


# URLs


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///rel.db", "rel.db"),
        ("sqlite:///a/rel.db", "a/rel.db"),
        ("sqlite:////abs/x.db", "/abs/x.db"),
        ("sqlite://", ":memory:"),
        ("sqlite:", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite:///x.db?", "x.db"),
        ("sqlite:///x.db?synchronous=NORMAL", "x.db"),
        ("sqlite://?synchronous=FULL", ":memory:"),
    ],
)
def test_sqlite_urls(url: str, path: str) -> None:
    catalog = create_catalog_backend(url)
    assert isinstance(catalog, SQLiteCatalog)
    assert catalog._path == path
    assert catalog._synchronous == ("NORMAL" if "NORMAL" in url else "FULL")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:/x.db", "a SQLite URL has three slashes before its path: sqlite:///memory.db"),
        ("sqlite://x.db", "a SQLite URL has three slashes before its path: sqlite:///memory.db"),
        ("sqlite:x.db", "a SQLite URL has three slashes before its path: sqlite:///memory.db"),
        ("sqlite:///", "a SQLite URL has three slashes before its path: sqlite:///memory.db"),
        ("memory.db", "catalog is no URL; a file is written sqlite:///path/to/memory.db"),
        ("", "catalog is no URL; a file is written sqlite:///path/to/memory.db"),
        ("SQLITE:///x.db", f"catalog: there is no 'SQLITE'; there are {CATALOG_NAMES}"),
        ("mysql://host/db", f"catalog: there is no 'mysql'; there are {CATALOG_NAMES}"),
        ("memory:x", "catalog 'memory:' takes nothing after its colon"),
        ("memory://x", "catalog 'memory:' takes nothing after its colon"),
    ],
)
def test_a_wrong_catalog_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend(url, "memory:")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "url",
    [
        "postgre://me:hunter2@host/db",
        "postgresql://me:hunter2@host:port/db",
        "postgresql://me:hunter2@host:70000/db",
        "postgresql://me:hunter2@[::1/db",
        "postgresql://me:hunter2#@host/db",
        "postgresql:me:hunter2@host/db",
        "postgresql://me:hunter2@host/db?schema=hunter2!",
        "postgresql://me:hunter2@host/db?max_size=many",
        "postgresql://me:hunter2@host/db?pooler=perhaps",
        "postgresql://me:hunter2@host/db?schema=a&schema=b",
        "postgresql://me:hunter2@host/db?sslmode",
        "postgresql://me:hunter2@host/db%00",
    ],
)
def test_a_wrong_url_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend(url, "memory:")
    text = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in text.replace(repr(url), "")


def test_postgres_urls() -> None:
    catalog = create_catalog_backend(
        "postgresql://me:hunter2@db.example:5433/agents?sslmode=require&schema=memory"
        "&max_size=2&pooler=true&min_size=0&install=false"
    )
    assert repr(catalog) == "PostgresCatalog('postgresql://me@db.example:5433/agents')"
    assert catalog._share._key == PoolKey(  # type: ignore[attr-defined]
        Address.of("postgresql://me:hunter2@db.example:5433/agents?sslmode=require"),
        schema="memory",
        min_size=0,
        max_size=2,
        pooler=True,
        install=False,
    )
    same = create_catalog_backend(
        "postgres", dsn="postgresql://me:${PASSWORD:-x}@localhost/db", max_size="3", install=True
    )
    assert same._share._key.max_size == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_memory_urls(url: str) -> None:
    assert isinstance(create_catalog_backend(url), MemoryCatalog)
    assert isinstance(LTMBackend("memory:", url)._runner.stores().blobs, MemoryBlobStore)


@pytest.mark.parametrize(
    ("storage", "root"),
    [
        ("./blobs", "{cwd}/blobs"),
        ("blobs", "{cwd}/blobs"),
        ("/abs/blobs", "/abs/blobs"),
        ("file:///abs/blobs", "/abs/blobs"),
        (pathlib.Path("/abs/blobs"), "/abs/blobs"),
        ({"uri": "/abs/blobs"}, "/abs/blobs"),
        ({"uri": "file:///abs/blobs"}, "/abs/blobs"),
    ],
)
def test_local_storage(storage: Any, root: str) -> None:
    blobs = LTMBackend("memory:", storage)._runner.stores().blobs
    assert isinstance(blobs, LocalBlobStore)
    assert blobs.uri("x") == f"{root.format(cwd=pathlib.Path.cwd())}/x"


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("", "storage_uri is not the path of a folder"),
        ("file://", "storage_uri is not the path of a folder"),
        ("a\0b", "storage_uri is not the path of a folder"),
        ("ftp://host/x", "storage_uri: there is no 'ftp'; there are file, memory, s3, gs, az"),
        ("memory://x", "storage_uri 'memory:' takes nothing after its colon"),
        ({"uri": 5}, "storage needs the key 'uri', such as './blobs'"),
        ({}, "storage needs the key 'uri', such as './blobs'"),
    ],
    ids=str,
)
def test_a_wrong_storage_is_refused(storage: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend("memory:", storage)
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [create_catalog_backend, lambda spec: LTMBackend(spec, "memory:")])
@pytest.mark.parametrize(
    "spec",
    [
        {"type": "sqlite"},
        {"type": "sqlite", "path": 5},
        {"type": "sqlite", "path": None},
        {"type": "sqlite", "path": "x.db", "synchronous": "OFF"},
        "sqlite:///x.db?synchronous=OFF",
        "sqlite:///x.db?synchronous",
    ],
    ids=str,
)
def test_a_catalog_that_cannot_be_made_is_refused_at_once(make: Any, spec: Any) -> None:
    with pytest.raises(ConfigError):
        make(spec)


def test_a_url_s_query_does_not_change_its_path() -> None:
    with pytest.raises(ConfigError):
        create_catalog_backend("sqlite:///a.db?path=b.db")


def test_a_storage_s_folder_is_named_once() -> None:
    with pytest.raises(ConfigError, match="root"):
        LTMBackend("memory:", {"uri": "./blobs", "root": "/elsewhere"})


# Factories


def test_a_catalog_by_its_type() -> None:
    made = create_catalog_backend("sqlite", path="x.db", synchronous="NORMAL")
    assert isinstance(made, SQLiteCatalog)
    assert (made._path, made._synchronous) == ("x.db", "NORMAL")
    assert isinstance(create_catalog_backend("memory"), MemoryCatalog)
    assert isinstance(create_catalog_backend({"type": "memory"}), MemoryCatalog)


def test_a_catalog_s_url_takes_no_options_beside_it() -> None:
    with pytest.raises(ConfigError, match=r"^a catalog's URL carries its options itself$"):
        create_catalog_backend("sqlite:///x.db", synchronous="FULL")


def test_a_backend_from_parts_or_from_one_mapping() -> None:
    parts = create_ltm_backend("memory:", "memory:", batch_size=7)
    whole = create_ltm_backend({**GOOD, "batch_size": 5}, batch_size=7)
    assert parts._runner.options == whole._runner.options
    with pytest.raises(ConfigError, match=r"^storage_uri is missing; "):
        create_ltm_backend("memory:")


def test_stores_may_be_handed_in() -> None:
    catalog, blobs = MemoryCatalog(), MemoryBlobStore()
    stores = create_ltm_backend(catalog, blobs)._runner.stores()
    assert (stores.catalog, stores.blobs) == (catalog, blobs)


def test_a_driver_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "needs_a_driver.py").write_text("import ltm_test_absent_driver\n")
    monkeypatch.setattr(ltm_async, "__path__", [*ltm_async.__path__, str(tmp_path)])
    adapter = registry.Adapter(
        "needs_a_driver", "StrangeCatalog", "strange", {"dsn": registry.Option()}
    )
    monkeypatch.setattr(registry, "CATALOGS", {**registry.CATALOGS, "strange": adapter})
    message = r"^StrangeCatalog needs ltm_test_absent_driver: pip install 'ltm-async\[strange\]'$"
    with pytest.raises(MissingDriverError, match=message) as caught:
        create_catalog_backend("strange", dsn="x")
    assert caught.value.name == "ltm_test_absent_driver"
    assert isinstance(caught.value, ImportError)


async def test_a_driver_is_missed_at_the_first_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "needs_a_driver.py").write_text("import ltm_test_absent_driver.inner\n")
    monkeypatch.setattr(ltm_async, "__path__", [*ltm_async.__path__, str(tmp_path)])
    adapter = registry.Adapter("needs_a_driver", "StrangeCatalog", "strange", {})
    monkeypatch.setattr(registry, "CATALOGS", {**registry.CATALOGS, "strange": adapter})
    ltm = LTMBackend("strange:", "memory:")
    for _ in range(2):
        with pytest.raises(MissingDriverError, match="strange"):
            await ltm.retrieve("k")


def test_a_module_of_ours_that_is_missing_is_no_missing_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = registry.Adapter("no_such_module", "StrangeCatalog", "strange", {})
    monkeypatch.setattr(registry, "CATALOGS", {**registry.CATALOGS, "strange": adapter})
    with pytest.raises(ModuleNotFoundError) as caught:
        create_catalog_backend("strange")
    assert not isinstance(caught.value, MissingDriverError)


# Limits of options


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("inline_threshold", 0, 512 * 1024),
        ("batch_size", 1, 10_000),
        ("max_concurrency", 1, 1_000),
        ("max_inflight_bytes", 64 * 1024, 1 << 40),
    ],
)
def test_a_whole_number_has_its_range(name: str, low: int, high: int) -> None:
    def options(value: object) -> dict[str, Any]:
        return {name: value}

    for edge in (low, high):
        ltm = LTMBackend("memory:", "memory:", **options(edge))
        assert getattr(ltm._runner.options, name) == edge
    for beyond in (low - 1, high + 1):
        with pytest.raises(ConfigError) as caught:
            LTMBackend("memory:", "memory:", **options(beyond))
        assert str(caught.value) == f"{name} is {beyond}, it must be {low} to {high}"
    for kind in (True, 5.0, "5", None):
        with pytest.raises(ConfigError) as caught:
            LTMBackend("memory:", "memory:", **options(kind))
        assert str(caught.value) == f"{name} must be int, not {type(kind).__name__}"


@pytest.mark.parametrize("timeout", [None, 1e-9, 1, 86_400])
def test_a_timeout_within_its_range(timeout: float | None) -> None:
    assert LTMBackend("memory:", "memory:", timeout=timeout)._runner.options.timeout == timeout


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 86_401, True, "5"])
def test_a_timeout_beyond_its_range(timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"^timeout "):
        LTMBackend("memory:", "memory:", timeout=timeout)


@pytest.mark.parametrize("mode", ["", "Degrade", None, True])
def test_there_are_two_ways_to_meet_an_outage(mode: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend("memory:", "memory:", on_unavailable=mode)
    assert str(caught.value) == f"on_unavailable is {mode!r}, it must be 'degrade' or 'raise'"


@pytest.mark.parametrize("attempts", [1, 100])
def test_attempts_within_their_range(attempts: int) -> None:
    assert RetryPolicy(attempts=attempts).attempts == attempts


@pytest.mark.parametrize("attempts", [0, 101, True, 4.0, "4", None])
def test_attempts_beyond_their_range(attempts: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(attempts=attempts)
    assert str(caught.value) == f"retry.attempts is {attempts!r}, it must be 1 to 100"


@pytest.mark.parametrize("name", ["base_s", "throttled_base_s", "cap_s"])
def test_waits_have_their_range(name: str) -> None:
    def policy(value: object) -> RetryPolicy:
        options: dict[str, Any] = {name: value}
        return RetryPolicy(**options)

    for edge in (1e-9, 3600):
        assert getattr(policy(edge), name) == edge
    for beyond in (0, -1, 3601, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=rf"^retry.{name} is {beyond}, it must be above 0"):
            policy(beyond)
    for kind in (True, "1", None):
        with pytest.raises(ConfigError, match=rf"^retry.{name} must be a number of seconds$"):
            policy(kind)


# Nothing before it is needed


def test_a_backend_that_is_made_has_touched_and_imported_nothing(tmp_path: pathlib.Path) -> None:
    script = """
        import os, sys
        from ltm_async import LTMBackend, create_ltm_backend
        LTMBackend("sqlite:///sub/ltm.db", "./sub/blobs", namespace="n")
        LTMBackend.from_config({"catalog": "sqlite:///ltm.db", "storage": {"uri": "./blobs"}})
        create_ltm_backend("sqlite:///ltm.db", "file://blobs")
        print(os.listdir())
        print([name for name in sys.modules if name.startswith(("sqlite3", "_sqlite3"))])
        print([name for name in sys.modules if name.startswith(("ltm_async.c", "ltm_async.b"))])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    listed, drivers, modules = done.stdout.splitlines()
    assert (listed, drivers) == ("[]", "[]")
    assert "catalogs" not in modules and "blobs" not in modules
    assert "ltm_async.backend" in modules


async def test_stores_are_made_by_the_first_call(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs")
    assert repr(ltm) == "<LTMBackend namespace='' new>"
    await ltm.retrieve("k")
    assert repr(ltm) == "<LTMBackend namespace='' in use>"
    await ltm.aclose()
    assert repr(ltm) == "<LTMBackend namespace='' closed>"


async def test_a_backend_that_was_never_used_closes(tmp_path: pathlib.Path) -> None:
    ltm = LTMBackend(f"sqlite:///{tmp_path}/ltm.db", tmp_path / "blobs")
    await ltm.aclose()
    assert os.listdir(tmp_path) == []
