"""A catalog's schema behind PostgREST, with the roles and privileges of a Supabase project."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ltm_async import SupabaseCatalog
from ltm_async.schema import supabase_script

from .corpus import INJECTIONS
from .databases import Console, Database, DatabasePlace
from .servers.postgres import Postgres
from .servers.postgrest import DEFAULT_PRIVILEGES, SUPABASE, PostgREST, token_of

_USED = (
    "",
    "contract",
    "search contract",
    "search contract ",
    "SEARCH CONTRACT",
    "vector contract",
    "vector contract ",
    "VECTOR CONTRACT",
    "'; --",
    "a" * 256,
    "other",
    "mine",
    "n",
    "agent",
    "crash",
    "neighbour",
    "ltm-doctor",
    "n" * 256,
    "ü" * 128,
    *INJECTIONS,
)
OWNED = sorted(name.partition("/")[0] for name in _USED)
"""Whose namespaces the suites use."""
OPERATORS_RULE = """
CREATE OR REPLACE FUNCTION {}ltm_owners() RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT json_array_elements_text(claims -> 'owners')) || (claims ->> 'sub')
    FROM (SELECT nullif(current_setting('request.jwt.claims', true), '')::json) AS jwt (claims)
$$
"""
"""One that an operator has put in the place of ours: some JWTs name further owners."""


class RestPlace(NamedTuple):
    """Where a project is, for a process that finds it installed."""

    dsn: str
    schema: str
    clock_file: str
    url: str
    access_token: str

    @property
    def database(self) -> DatabasePlace:
        return DatabasePlace(self.dsn, self.schema, self.clock_file)

    def catalog(self, **options: Any) -> SupabaseCatalog:
        given = {
            "key": PostgREST.anon_key,
            "access_token": self.access_token,
            "schema": self.schema,
            "rest_path": "/",
            **options,
        }
        return SupabaseCatalog(given.pop("url", self.url), **given)


class Project(Database):
    """A schema that is served by *api*; its suites' user is all of ``OWNED``.

    Args:
        rule: SQL that replaces the rule of who owns what; None leaves ours.
    """

    def __init__(
        self, api: PostgREST, console: Console, *, rule: str | None = OPERATORS_RULE
    ) -> None:
        self.api = api
        self._rule = rule
        super().__init__(api.postgres, console)
        api.expose(console.run, self.schema)

    def install(self) -> None:
        self.run(f"CREATE SCHEMA {self.schema}")
        self.run(DEFAULT_PRIVILEGES.format(schema=self.schema))
        self.install_again()
        if self._rule is not None:
            self.run(self._rule)

    def install_again(self) -> None:
        self.console.run(supabase_script(self.schema))
        # Who calls it may not read the server's files.
        self.use_clock("SECURITY DEFINER")

    @property
    def rest_place(self) -> RestPlace:
        token = token_of("the suites", owners=OWNED)
        return RestPlace(*self.place, self.api.url, token)

    def catalog(self, **options: Any) -> SupabaseCatalog:
        return self.rest_place.catalog(**options)


@pytest.fixture(scope="session")
def supabase_server(postgres_server: Postgres, console: Console) -> Iterator[PostgREST]:
    """A PostgREST before ``postgres_server``, which then has the roles of Supabase."""
    console.run(SUPABASE)
    with PostgREST(postgres_server) as server:
        yield server


@pytest.fixture(scope="session")
def _project(supabase_server: PostgREST, console: Console) -> Project:
    return Project(supabase_server, console)


@pytest.fixture(scope="session")
def _strict_project(supabase_server: PostgREST, console: Console) -> Project:
    return Project(supabase_server, console, rule=None)


@pytest.fixture
def strict_project(_strict_project: Project) -> Project:
    """A project without rows, where the rule is ours."""
    _strict_project.clear()
    return _strict_project


@pytest.fixture
def project(_project: Project) -> Project:
    """A project without rows."""
    _project.clear()
    return _project
