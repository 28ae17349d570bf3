"""SupabaseCatalog on a real PostgREST: its contract, its requests, its limits."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ltm_async import (
    AccessDeniedError,
    ConflictError,
    LTMBackend,
    LTMError,
    SupabaseCatalog,
    UnavailableError,
)
from ltm_async.catalogs.supabase.client import Client
from ltm_async.catalogs.supabase.connecting import tls_of
from ltm_async.protocols import Catalog
from ltm_async.testing import CatalogContract, ChangesContract, SearchContract, VectorContract
from ltm_async.testing.writes import new_write_id, small
from ltm_async.tls import default_context

from .projects import Project
from .servers.http_proxy import HttpProxy
from .servers.postgrest import MAX_ROWS, token_of


class TestSupabaseCatalog(CatalogContract, ChangesContract, SearchContract, VectorContract):
    """As a user, under row-level security."""

    @pytest.fixture
    async def catalog(self, project: Project) -> AsyncIterator[Catalog]:
        self.project = project
        self.clock = project.clock_at(None)
        catalog = project.catalog()
        yield catalog
        await catalog.aclose()

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        self.clock.advance(seconds)

    async def raw_rows(self, catalog: Catalog, namespace: str) -> dict[str, str | None]:
        return self._select("SELECT key, inlined_value FROM {}ltm_entries", namespace)

    async def raw_ledger(self, catalog: Catalog, namespace: str) -> dict[str, str]:
        return self._select("SELECT blob_id, state FROM {}ltm_blobs", namespace)

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        return {*self._select("SELECT key, 1 FROM {}ltm_vectors", namespace)}

    def _select(self, query: str, namespace: str) -> dict[str, Any]:
        return dict(self.project.rows(f"{query} WHERE namespace = $1", namespace))


# Requests


@pytest.fixture
def proxy(project: Project, http_proxy: Callable[[int], HttpProxy]) -> HttpProxy:
    return http_proxy(project.api.port)


SMALL: list[dict[str, Any]] = [{"key": f"k{number:05}", "value": number} for number in range(500)]
LARGE: list[dict[str, Any]] = [
    {"key": f"l{number:02}", "value": "x" * 2_000} for number in range(20)
]
MANY: list[dict[str, Any]] = [{"key": f"m{number:05}", "value": number} for number in range(10_000)]


def keys_of(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["key"] for entry in entries]


async def test_each_operation_takes_as_few_requests_as_it_can(
    project: Project, proxy: HttpProxy
) -> None:
    catalog = project.catalog(url=proxy.endpoint_url)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    await catalog.open()
    counted: dict[str, list[str]] = {}
    for name, call in {
        "store": lambda: ltm.store("k", "small", ttl=60),
        "store_batch of 500": lambda: ltm.store_batch(SMALL),
        "store_batch of 20 large": lambda: ltm.store_batch(LARGE),
        "the same again": lambda: ltm.store_batch(LARGE),
        "retrieve": lambda: ltm.retrieve("k"),
        "retrieve_batch of 500": lambda: ltm.retrieve_batch(keys_of(SMALL)),
        "touch": lambda: ltm.touch("k", ttl=60),
        "list_entries": lambda: ltm.list_entries(limit=500),
        "list_entries with a filter": lambda: ltm.list_entries(metadata_filter={"n": 1}),
        "stats": ltm.stats,
        "delete": lambda: ltm.delete("k"),
        "delete_batch of 500": lambda: ltm.delete_batch(keys_of(SMALL)),
    }.items():
        proxy.plan = None
        await call()  # type: ignore[no-untyped-call]
        assert {asked.method for asked in proxy.asked} == {"POST"}
        counted[name] = [asked.target.removeprefix("/rpc/ltm_rpc_") for asked in proxy.asked]
    assert counted == {
        "store": ["commit"],
        "store_batch of 500": ["commit"],
        "store_batch of 20 large": ["reserve", "commit"],
        "the same again": ["reserve", "commit"],
        "retrieve": ["get"],
        "retrieve_batch of 500": ["get"],
        "touch": ["touch"],
        "list_entries": ["list"],
        "list_entries with a filter": ["filter"],
        "stats": ["stats"],
        "delete": ["delete"],
        "delete_batch of 500": ["delete"],
    }
    await catalog.aclose()


async def test_nothing_is_cut_off_at_the_rows_of_a_reply(
    project: Project, proxy: HttpProxy
) -> None:
    """Of which this server gives no more than 100, without saying so."""
    assert len(SMALL) > MAX_ROWS
    catalog = project.catalog(url=proxy.endpoint_url)
    ltm = LTMBackend(catalog, "memory:", batch_size=10_000, on_unavailable="raise")
    stored = await ltm.store_batch([{**entry, "ttl": 60} for entry in MANY])
    assert (stored.stored, len(set(stored.versions.values()))) == (10_000, 1)
    proxy.plan = None
    found = await ltm.retrieve_batch(keys_of(MANY))
    assert {key: result.value for key, result in found.results.items()} == {
        entry["key"]: entry["value"] for entry in MANY
    }
    assert len((await ltm.list_entries(limit=1_000)).entries) == 1_000
    assert len(proxy.asked) == 2
    project.clock_at(None).advance(3_600)
    assert (await ltm.cleanup_expired(limit=1_000)).deleted == 1_000
    assert (await ltm.delete_batch(keys_of(MANY))).deleted == 0
    await ltm.store_batch(MANY)
    assert (await ltm.delete_batch(keys_of(MANY))).deleted == 10_000
    await catalog.aclose()


async def test_plain_rows_would_be_cut_off(project: Project) -> None:
    """So that the test above shows something."""
    catalog = project.catalog()
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    await ltm.store_batch(SMALL)
    client = await catalog._share.get()
    arguments = {"in_namespace": "", "in_keys": keys_of(SMALL)}
    assert len(await client.call("ltm_get", arguments)) == MAX_ROWS
    assert len(await client.call("ltm_rpc_get", arguments)) == 500
    await catalog.aclose()


async def test_one_bad_row_of_a_batch_leaves_none(project: Project) -> None:
    project.run("ALTER TABLE {}ltm_entries ADD CONSTRAINT bad CHECK (key <> 'k00499')")
    catalog = project.catalog()
    try:
        ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
        done = await ltm.store_batch(SMALL)
        assert (done.stored, done.failed) == (0, 500)
        assert {failure.error for failure in done.errors.values()} == {
            "supabase: refused with SQLSTATE 23514"
        }
        assert project.rows("SELECT * FROM {}ltm_entries") == []
    finally:
        project.run("ALTER TABLE {}ltm_entries DROP CONSTRAINT bad")
        await catalog.aclose()


async def test_a_conflict_names_the_key_and_the_version_there_is(project: Project) -> None:
    catalog = project.catalog()
    project.run("SELECT setval('{}ltm_version', 9007199254740993)")  # no float has this number
    written = await catalog.track_entries_batch(
        "", [small(key, "1") for key in "cab"], write_id=new_write_id()
    )
    assert written.version == 9007199254740994
    expected = {"a": written.version, "b": 99, "c": written.version}
    with pytest.raises(ConflictError) as caught:
        await catalog.track_entries_batch(
            "",
            [small(key, "2", if_version=expected[key]) for key in "cab"],
            write_id=new_write_id(),
        )
    assert (caught.value.key, caught.value.version) == ("b", written.version)
    with pytest.raises(ConflictError) as caught:
        await catalog.delete_entries_batch("", ["x", "b"], write_id=new_write_id(), if_version=7)
    assert (caught.value.key, caught.value.version) == ("b", written.version)
    await catalog.aclose()


# Clients


def _pool_of(client: Client) -> Any:
    return vars(client._http._transport)["_pool"]


async def test_catalogs_with_the_same_arguments_share_a_client_and_no_others(
    project: Project,
) -> None:
    token = token_of("a")
    same = [project.catalog(access_token=token) for _ in range(3)]
    others = [
        project.catalog(access_token=token_of("b")),
        project.catalog(access_token=token, max_connections=3),
    ]
    clients = await asyncio.gather(*(each._share.get() for each in (*same, *others)))
    assert len({id(client) for client in clients}) == 3
    for catalog in (*same, *others):
        await catalog.aclose()
    assert all(client._http.is_closed for client in clients)


async def test_certificates_are_read_once_and_only_for_what_leaves_the_machine(
    project: Project,
) -> None:
    here = project.catalog()
    client = await here._share.get()
    context = await default_context()
    assert _pool_of(client)._ssl_context is not context
    await here.aclose()
    away = [SupabaseCatalog(f"supabase://{'abcd' * 5}", key=key) for key in ("sb_a", "sb_b")]
    assert [await tls_of(catalog._share._key) for catalog in away] == [context, context]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    for catalog in away:
        await catalog.aclose()


def test_each_loop_has_its_client_and_leaves_none(project: Project) -> None:
    ltm = LTMBackend(project.catalog(), "memory:", on_unavailable="raise")

    async def count_up() -> None:
        await ltm.update("counter", lambda value: value + 1, default=0)

    async def count() -> Any:
        return (await ltm.retrieve("counter")).value

    for number in range(1, 4):
        asyncio.run(count_up())
        assert asyncio.run(count()) == number
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: asyncio.run(count_up()), range(8)))
    assert asyncio.run(count()) == 11


async def test_a_function_is_asked_for_a_token_once_and_again_when_it_is_refused(
    project: Project, proxy: HttpProxy
) -> None:
    tokens = [token_of("a", owners=[""], valid_s=-3_600), project.rest_place.access_token]
    asked: list[str] = []

    async def ask() -> str:
        await asyncio.sleep(0)
        asked.append(tokens[min(len(asked), 1)])
        return asked[-1]

    catalog = project.catalog(url=proxy.endpoint_url, access_token=ask)
    ltm = LTMBackend(catalog, "memory:", on_unavailable="raise")
    await asyncio.gather(*(ltm.store(f"k{number}", number) for number in range(20)))
    assert asked == tokens
    refused = 1
    assert len(proxy.asked) == refused + 1 + 20
    await catalog.aclose()


async def test_a_token_that_stays_refused_is_an_error(project: Project) -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        return token_of("a", valid_s=-3_600)

    catalog = project.catalog(access_token=ask)
    with pytest.raises(AccessDeniedError, match="has expired"):
        await catalog.get_entry("a", "k")
    assert asked == 2
    await catalog.aclose()


@pytest.mark.parametrize(
    ("returned", "error", "said"),
    [
        (OSError("c4n4ry"), UnavailableError, "access_token raised OSError"),
        (None, AccessDeniedError, "access_token returned no JWT"),
        ("two words", AccessDeniedError, "access_token returned no JWT"),
        (UnavailableError("mine"), UnavailableError, "mine"),
    ],
)
async def test_a_function_that_has_no_token_is_an_error(
    project: Project, returned: Any, error: type[LTMError], said: str
) -> None:
    async def ask() -> str:
        if isinstance(returned, Exception):
            raise returned
        return str(returned) if returned else returned

    catalog = project.catalog(access_token=ask)
    with pytest.raises(error, match=said) as caught:
        await catalog.get_entry("a", "k")
    assert "c4n4ry" not in str(caught.value)
    await catalog.aclose()
