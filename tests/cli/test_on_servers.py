"""The command line on catalogs that live on servers."""

from __future__ import annotations

import json
import pathlib

import pytest

from ltm_async.catalogs.firestore.indexes import indexes
from ltm_async.clock import system_clock
from ltm_async.schema import supabase_script

from ..databases import Console, Database
from ..projects import Project
from ..servers.firestore import Firestore, new_project
from ..servers.postgres import Postgres
from ..servers.postgrest import PostgREST, token_of
from .running import Run

DEFINITIONS = """
SELECT replace(pg_get_functiondef(p.oid), n.nspname, '…') AS made FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1
UNION ALL SELECT replace(indexdef, schemaname, '…') FROM pg_indexes WHERE schemaname = $1
ORDER BY 1
"""


def test_the_schema_is_what_the_catalog_installs(
    ltm: Run, folder: pathlib.Path, postgres_server: Postgres, console: Console
) -> None:
    printed = ltm("schema", "postgres", "--schema", "printed").out
    assert printed.startswith("BEGIN;\n")
    assert printed.endswith("COMMIT;\n")
    console.run(printed)
    url = f"{postgres_server.dsn}?schema=installed"
    assert ltm("--catalog", url, "store", "k", "1").code == 0
    made = [console.rows(DEFINITIONS, name) for name in ("printed", "installed")]
    assert len(made[0]) > 25
    assert made[0] == made[1]
    console.run("DROP SCHEMA printed CASCADE; DROP SCHEMA installed CASCADE")


def test_a_schema_that_is_no_name_is_wrong_usage(ltm: Run) -> None:
    done = ltm("schema", "postgres", "--schema", 'a"; DROP')
    assert (done.code, done.out) == (2, "")


def test_the_indexes_of_firestore(ltm: Run) -> None:
    done = ltm("schema", "firestore", "--collection-prefix", "a_")
    assert json.loads(done.out) == json.loads(indexes("a_"))
    assert ltm("schema", "firestore", "--collection-prefix", "a/b").code == 2
    done = ltm("schema", "firestore", "--dimensions", "384")
    assert json.loads(done.out) == json.loads(indexes(dimensions=384))
    assert ltm("schema", "firestore", "--dimensions", "2049").code == 2


def test_the_schema_of_supabase_can_be_run_again(
    ltm: Run, project: Project, console: Console
) -> None:
    printed = ltm("schema", "supabase", "--schema", project.schema).out
    assert printed.startswith("BEGIN;\n")
    assert printed.endswith("COMMIT;\n")
    assert supabase_script(project.schema) in printed
    before = console.rows(DEFINITIONS, project.schema)
    console.run(printed)
    project.use_clock("SECURITY DEFINER")
    assert console.rows(DEFINITIONS, project.schema) == before


@pytest.mark.parametrize("catalog", ["postgres", "supabase", "firestore"])
def test_a_memory_on_a_server_from_its_first_entry_to_its_last(
    ltm: Run,
    folder: pathlib.Path,
    catalog: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if catalog == "postgres":
        database: Database = request.getfixturevalue("database")
        database.clock_at(system_clock())
        url = f"{database.dsn}?schema={database.schema}"
    elif catalog == "supabase":
        project: Project = request.getfixturevalue("project")
        project.clock_at(system_clock())
        url = f"{project.api.url}?schema={project.schema}&rest_path=/"
        monkeypatch.setenv("SUPABASE_KEY", PostgREST.anon_key)
        monkeypatch.setenv("SUPABASE_USER_TOKEN", token_of("me"))
        monkeypatch.setenv("LTM_NAMESPACE", "me")
    else:
        server: Firestore = request.getfixturevalue("firestore_server")
        assert server.host
        url = f"firestore://{new_project()}"
    on = ("--catalog", url)
    checks = ltm(*on, "doctor").lines
    assert [check for check in checks if not check["ok"]] == []
    assert ltm(*on, "store", "small", '{"a": 1}', "--ttl", "3600").code == 0
    (folder / "large.txt").write_text("x" * 5_000)
    stored = ltm(*on, "store", "large", "--text", "--file", str(folder / "large.txt"))
    assert stored.json["inlined"] is False
    assert ltm(*on, "get", "small").json == {"a": 1}
    assert [line["key"] for line in ltm(*on, "list").lines] == ["large", "small"]
    assert ltm(*on, "verify").json["sound"] is True
    export = folder / "all.jsonl"
    assert ltm(*on, "export", str(export)).json["exported"] == 2
    for key in ("small", "large"):
        assert ltm(*on, "delete", key).code == 0
    assert ltm(*on, "import", str(export)).code == 0
    assert ltm(*on, "get", "large").json == "x" * 5_000
    assert ltm(*on, "stats").json["entries"] == 2
