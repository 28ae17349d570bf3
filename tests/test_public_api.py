"""What ``import ltm_async`` gives, and what it does not load."""

from __future__ import annotations

import ast
import inspect
import pathlib
import subprocess
import sys
import types
from collections.abc import Iterator

import pytest

import ltm_async
from ltm_async import LTMBackend

METHODS = {
    "store",
    "retrieve",
    "delete",
    "touch",
    "store_batch",
    "retrieve_batch",
    "delete_batch",
    "list_entries",
    "search",
    "retrieve_snippets",
    "cleanup_expired",
    "collect_garbage",
    "update",
    "stats",
    "verify",
    "create_snapshot",
    "delete_snapshot",
    "get_changed_entries",
    "open",
    "aclose",
    "release",
}
HEAVY = (
    "asyncio",
    "sqlite3",
    "json",
    "hashlib",
    "logging",
    "dataclasses",
    "threading",
    "ssl",
    "asyncpg",
    "google",
    "gcloud",
    "google_crc32c",
    "anyio",
    "httpx2",
    "aiobotocore",
    "aiohttp",
    "duckdb",
)


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    loaded = run(
        "import sys; before = set(sys.modules); import ltm_async;"
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert "ltm_async" in loaded
    assert [name for name in loaded if name.startswith("ltm_async.")] == []
    assert [name for name in loaded if name.partition(".")[0] in HEAVY] == []


def test_an_error_class_alone_loads_no_driver() -> None:
    script = "import sys; from ltm_async import {}; print(*sorted(sys.modules))"
    for name in ("LTMError", "RetryPolicy", "Catalog", "compute_content_hash"):
        loaded = run(script.format(name)).split()
        assert {"sqlite3", "ltm_async.catalogs", "ltm_async.blobs"}.isdisjoint(loaded), name


def test_using_the_memory_stores_loads_no_sqlite() -> None:
    script = """
import asyncio, sys
from ltm_async import LTMBackend
async def main():
    async with LTMBackend("memory:", "memory:") as ltm:
        await ltm.store("k", 1)
        assert (await ltm.retrieve("k")).value == 1
asyncio.run(main())
print("sqlite3" in sys.modules, "ltm_async.blobs.local" in sys.modules)
"""
    assert run(script) == "False False"


def test_a_first_call_on_sqlite_imports_nothing_that_only_other_calls_need() -> None:
    """A quarter of a cold start's imports, before they were left to who needs them."""
    script = """
import asyncio, sys, tempfile
before = set(sys.modules)
from ltm_async import LTMBackend
async def main(folder):
    async with LTMBackend(f"sqlite:///{folder}/ltm.db", f"{folder}/blobs") as ltm:
        await ltm.store("k", 1)
        assert (await ltm.retrieve("k")).value == 1
        assert (await ltm.store_batch([{"key": "a", "value": "x" * 2000}])).stored == 1
        assert (await ltm.retrieve_batch(["a", "k"])).found == 2
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
print(*sorted(set(sys.modules) - before))
"""
    loaded = set(run(script).split())
    others = "embedding encryption feed filters listing sealing searching snippets text updating"
    others += " verifying vectors"
    assert loaded.isdisjoint(f"ltm_async.{name}" for name in others.split())
    assert loaded.isdisjoint({"difflib", "opentelemetry"})
    assert len([name for name in loaded if name.startswith("ltm_async")]) <= 50


def test_the_names_for_type_checkers_are_the_public_names() -> None:
    tree = ast.parse(pathlib.Path(ltm_async.__file__).read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    homes: dict[str, str] = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        if statement.module == "typing":
            continue
        assert statement.level == 1
        for alias in statement.names:
            assert alias.asname is None
            homes[alias.name] = statement.module or ""
    assert {*homes, "__version__"} == set(ltm_async.__all__)
    for name, home in homes.items():
        module = inspect.getmodule(getattr(ltm_async, name))
        assert module is not None
        assert f"{module.__name__}.".startswith(f"ltm_async.{home}."), name


def test_all_names_are_there_once_and_in_order() -> None:
    assert len(ltm_async.__all__) == len(set(ltm_async.__all__))
    assert sorted(ltm_async.__all__) == ltm_async.__all__
    for name in ltm_async.__all__:
        assert getattr(ltm_async, name) is getattr(ltm_async, name)


def test_dir_shows_the_public_names_before_they_are_used() -> None:
    shown = run("import ltm_async; print(*dir(ltm_async))").split()
    assert set(ltm_async.__all__) <= set(shown)


def test_a_star_import_gives_the_public_names() -> None:
    space: dict[str, object] = {}
    exec("from ltm_async import *", space)
    assert space.keys() - {"__builtins__"} == set(ltm_async.__all__)


@pytest.mark.parametrize(
    ("url", "driver", "said"),
    [
        (
            "postgresql://localhost/db",
            "asyncpg",
            "PostgresCatalog needs asyncpg: pip install 'ltm-async[postgres]'",
        ),
        (
            "firestore://my-project",
            "google.cloud.firestore_v1",
            "FirestoreCatalog needs google.cloud.firestore_v1: pip install 'ltm-async[firestore]'",
        ),
        (
            "firestore://my-project?transport=light",
            "grpc.aio",
            "FirestoreCatalog needs grpc.aio: pip install 'ltm-async[firestore]'",
        ),
        (
            "http://127.0.0.1:9?rest_path=/",
            "httpx2",
            "SupabaseCatalog needs httpx2: pip install 'ltm-async[supabase]'",
        ),
    ],
)
def test_a_missing_driver_is_named_with_its_extra_by_the_first_call(
    url: str, driver: str, said: str
) -> None:
    script = f"""
import asyncio, os, sys
os.environ["SUPABASE_KEY"] = "a-key"
sys.modules["{driver}"] = None
from ltm_async import *
ltm = LTMBackend("{url}", "memory:")
try:
    asyncio.run(ltm.retrieve("k"))
except MissingDriverError as exc:
    print(exc)
"""
    assert run(script) == said


@pytest.mark.parametrize("name", ["nothing", "_nothing", "Backend", "asyncio"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"^module 'ltm_async' has no attribute '{name}'$"):
        getattr(ltm_async, name)


def test_the_backend_has_the_documented_methods_and_no_others() -> None:
    public = {name for name in vars(LTMBackend) if not name.startswith("_")}
    assert public == {*METHODS, "from_config", "changes"}
    for name in METHODS:
        assert inspect.iscoroutinefunction(getattr(LTMBackend, name)), name


@pytest.mark.parametrize("method", sorted(METHODS))
def test_options_after_the_first_argument_are_keywords(method: str) -> None:
    """But for what a method cannot do without."""
    parameters = list(inspect.signature(getattr(LTMBackend, method)).parameters.values())[1:]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = {"store": ["value"], "update": ["fn"], "retrieve_snippets": ["keys"]}
    assert positional[1:] == needed.get(method, [])
    assert {p.kind for p in parameters} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
    assert ("timeout" in [p.name for p in parameters]) is (
        method not in {"open", "aclose", "release"}
    )


def public_things() -> Iterator[tuple[str, object]]:
    for name in ltm_async.__all__:
        thing = getattr(ltm_async, name)
        if not callable(thing):
            continue
        yield name, thing
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and isinstance(
                    value, (types.FunctionType, classmethod, staticmethod, property)
                ):
                    yield f"{name}.{member}", getattr(thing, member)


@pytest.mark.parametrize(("name", "thing"), list(public_things()))
def test_everything_public_is_documented(name: str, thing: object) -> None:
    """In its own words, or for an adapter's method in its protocol's."""
    text = inspect.getdoc(thing)
    assert text
    first = text.partition("\n")[0]
    assert first[0].isupper() or first[0] in '*`"', name
    assert "." in text


def test_the_version_is_one() -> None:
    assert all(part.isdigit() for part in ltm_async.__version__.split("."))


def test_the_package_is_typed() -> None:
    assert (pathlib.Path(ltm_async.__file__).parent / "py.typed").is_file()
