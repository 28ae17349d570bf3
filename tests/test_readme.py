"""What README says is so: its programs run as printed, its commands and limits exist."""

from __future__ import annotations

import importlib.util
import itertools
import pathlib
import re
import subprocess
import sys
import textwrap
import tomllib
from typing import Any, NamedTuple

import pytest

from ltm_async import backend, config, entry, errors, filters, listing, registry, searching, text

from .servers.postgrest import token_of

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Block(NamedTuple):
    line: int
    language: str
    text: str


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(README.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in found]


def programs() -> list[tuple[Block, str | None]]:
    """Each Python block that is a program, with the output printed right below it."""
    return [
        (block, after.text if after.language == "text" else None)
        for block, after in itertools.pairwise([*blocks(), Block(0, "", "")])
        if block.language == "python" and not is_test(block)
    ]


def is_test(block: Block) -> bool:
    return block.text.startswith("# test_")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def python(*args: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_every_block_has_a_language_that_is_checked_here() -> None:
    assert {block.language for block in blocks()} == {"python", "sh", "text"}
    assert len(programs()) >= 3


@pytest.mark.parametrize(
    ("program", "output"), programs(), ids=[f"line {program.line}" for program, _ in programs()]
)
def test_a_program_runs_as_printed(
    program: Block,
    output: str | None,
    tmp_path: pathlib.Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "program.py").write_text(program.text)
    if "DATABASE_URL" in program.text:
        database = request.getfixturevalue("database")
        monkeypatch.setenv("DATABASE_URL", f"{database.dsn}?schema={database.schema}")
    if "SUPABASE_URL" in program.text:
        project = request.getfixturevalue("strict_project")
        (user,) = re.findall('^USER = "(.*?)"', program.text, re.MULTILINE)
        monkeypatch.setenv("SUPABASE_URL", f"{project.api.url}?schema={project.schema}&rest_path=/")
        monkeypatch.setenv("SUPABASE_KEY", project.api.anon_key)
        monkeypatch.setenv("SUPABASE_USER_TOKEN", token_of(user))
    done = python("-W", "error", "program.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output, "the output printed below the program is another"


def test_the_tests_of_an_own_catalog_run_as_printed(tmp_path: pathlib.Path) -> None:
    (block,) = [block for block in blocks() if block.language == "python" and is_test(block)]
    name = block.text.split()[1]
    (tmp_path / name).write_text(block.text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[4-9]\d passed", done.stdout)


def commands() -> list[list[str]]:
    lines = "".join(block.text for block in blocks() if block.language == "sh").splitlines()
    return [line.partition("#")[0].split() for line in lines]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_exists(command: list[str]) -> None:
    match command:
        case ["make", target]:
            assert target in targets()
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case ["pip", "install", "."]:
            assert (ROOT / "pyproject.toml").is_file()
        case _:
            pytest.fail(f"nothing here checks {command}")


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.* ## ", makefile, re.MULTILINE))


def test_every_command_in_running_text_exists() -> None:
    named = set(re.findall(r"`make ([a-z-]+)[^`]*`", README))
    assert named
    assert named <= targets()


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert set(listed) == targets() >= {"setup", "demo", "test", "check", "format", "bench"}


def test_every_extra_is_in_the_table_and_every_name_there_is_one() -> None:
    table = section("Install").split("| extra | brings |")[1]
    first_cells = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(PROJECT["optional-dependencies"])


def test_the_adapters_named_are_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_KEY", "a-key")
    table = section("Install").split("| extra | brings |")[0]
    assert set(re.findall(r"`(\w+)` \|$", table, re.MULTILINE)) == set(registry.ADAPTERS)
    for cell in re.findall(r"^\| catalog.*?\| (.*?) \|", table, re.MULTILINE):
        for url in re.findall(r"`(.*?)`", cell):
            registry.plan_catalog(url)
    for cell in re.findall(r"^\| blobs.*?\| (.*?) \|", table, re.MULTILINE):
        for uri in re.findall(r"`(.*?)`", cell):
            registry.plan_blob_store(uri)


def test_the_options_of_s3_are_those_there_are() -> None:
    table = section("S3").split("| option |")[1]
    names = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert {*re.findall(r"`(\w+)`", names), "uri"} == set(registry.BLOB_STORES["s3"].options)


def test_the_tree_of_errors_is_the_one_of_the_module() -> None:
    shown = [block.text for block in blocks() if block.text.startswith("LTMError\n")]
    (tree,) = re.findall(r"^    LTMError\n.*?\n\n", errors.__doc__ or "", re.MULTILINE | re.DOTALL)
    assert shown == [textwrap.dedent(tree).rstrip("\n") + "\n"]


def test_the_limits_are_those_of_the_code() -> None:
    defaults = config.Options()
    mebibytes = 1024 * 1024
    limits = dict(re.findall(r"^\| (.*?) \| (.*) \|$", section("Limits"), re.MULTILINE))
    expected = {
        "key": f"1 to {entry.MAX_KEY_BYTES:,} bytes",
        "namespace": f"up to {entry.MAX_NAMESPACE_BYTES} bytes",
        "value": (
            f"up to {entry.MAX_VALUE_BYTES // mebibytes} MiB as JSON, "
            f"nested up to {entry.MAX_DEPTH} levels"
        ),
        "refused rather than changed": f"more than {sys.int_info.default_max_str_digits:,} digits",
        "metadata": f"up to {entry.MAX_METADATA_BYTES // 1024} KiB",
        "TTL": f"above 0, up to {entry.MAX_TTL_S // 86_400:,} days",
        "`batch_size`": f"1 to 10,000, by default {defaults.batch_size}",
        "`inline_threshold`": f"0 to 524,288 bytes, by default {defaults.inline_threshold:,}",
        "`max_concurrency`": f"1 to 1,000 blobs at once, by default {defaults.max_concurrency}",
        "`max_inflight_bytes`": (
            f"at least 65,536, by default {defaults.max_inflight_bytes // mebibytes} MiB"
        ),
        "`list_entries`": f"1 to {listing.MAX_PAGE:,} entries a page, by default 100",
        "`search`": (
            f"up to {text.MAX_QUERY_BYTES:,} bytes and {text.MAX_TERMS} words; "
            f"the {searching.MAX_RANKED} best"
        ),
        "`metadata_filter`": (
            f"100 conditions, {filters.MAX_FILTER_DEPTH} levels, {filters.MAX_CHOICES:,} values"
        ),
        "`cleanup_expired`, `collect_garbage`": f"up to {backend.MAX_CLEANUP:,} a call",
    }
    for name, words in expected.items():
        assert words in limits[name]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("batch_size", 1, 10_000),
        ("inline_threshold", 0, 524_288),
        ("max_concurrency", 1, 1_000),
        ("max_inflight_bytes", 65_536, 1 << 40),
    ],
)
def test_the_limits_of_options_are_those_of_the_code(name: str, low: int, high: int) -> None:
    def options(value: Any) -> config.Options:
        return config.Options(**{name: value})

    assert [getattr(options(value), name) for value in (low, high)] == [low, high]
    for value in (low - 1, high + 1):
        with pytest.raises(errors.ConfigError, match=name):
            options(value)


@pytest.mark.parametrize(
    ("title", "adapter", "in_the_url"),
    [
        ("PostgreSQL", registry.CATALOGS["postgresql"], {"dsn"}),
        ("Supabase", registry.CATALOGS["supabase"], {"url"}),
        ("Firestore", registry.CATALOGS["firestore"], {"project", "database"}),
    ],
)
def test_every_option_of_an_adapter_is_in_its_table(
    title: str, adapter: registry.Adapter, in_the_url: set[str]
) -> None:
    table = section(title).split("| option |")[1].split("\n\n- ")[0]
    first_cells = "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == adapter.options.keys() - in_the_url


def test_every_option_is_in_the_configuration_shown() -> None:
    shown = section("Configuration").split("settings = {")[1].split("\n}")[0]
    assert set(re.findall(r'^    "(\w+)":', shown, re.MULTILINE)) == {
        "catalog",
        "storage",
        *config.OPTION_NAMES,
    }


def test_the_options_of_gcs_are_those_there_are() -> None:
    table = section("Google Cloud Storage").split("| option |")[1]
    names = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert {*names, "uri"} == set(registry.BLOB_STORES["gs"].options)


def test_the_options_of_azure_and_of_obstore_are_those_there_are() -> None:
    text = section("Azure Blob Storage and obstore")
    names = "".join(re.findall(r"^\| (`.*?) \|", text.split("| option |")[1], re.MULTILINE))
    azure = registry.BLOB_STORES["az"]
    assert {*re.findall(r"`(\w+)`", names), "uri"} == set(azure.options)
    for adapter in registry.OBSTORE_BLOB_STORES.values():
        (said,) = re.findall(rf"`{adapter.name}` with(.*?)(?:`Obstore|and both)", text, re.DOTALL)
        shared = {"uri", "ca_file", "allow_http"}
        assert {*re.findall(r"`(\w+)`", said), *shared} == set(adapter.options)


def test_what_the_page_on_reliability_names_is_there() -> None:
    page = (ROOT / "tests/RELIABILITY.md").read_text(encoding="utf-8")
    contracts = (ROOT / "ltm_async/testing").rglob("*.py")
    code = "".join(
        file.read_text(encoding="utf-8") for file in (*(ROOT / "tests").rglob("*.py"), *contracts)
    )
    tests = set(re.findall(r"`(test_\w+)`", page))
    assert len(tests) > 10
    assert {name for name in tests if f"def {name}(" not in code} == set()
    files = re.findall(r"`(tests/[\w*]+\.py)`", page)
    assert len(files) > 5
    assert all(list(ROOT.glob(name)) for name in files)
    assert set(re.findall(r"`make ([\w-]+)", page)) <= targets()
