"""What SupabaseCatalog takes, as arguments, as a URL and from the environment."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from ltm_async import ConfigError, LTMBackend, SupabaseCatalog, create_catalog_backend
from ltm_async.catalogs.supabase.options import role_of

from .servers.postgrest import PostgREST, signed, token_of

SECRET = "hunter2hunter2"
URL = "https://abc.supabase.co"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_KEY", "SUPABASE_USER_TOKEN", "SUPABASE_SERVICE_ROLE_KEY"):
        monkeypatch.delenv(name, raising=False)


def key_of(catalog: Any) -> Any:
    return catalog._share._key


@pytest.mark.parametrize(
    ("url", "rest_url"),
    [
        ("supabase://abcdefghijklmnopqrst", "https://abcdefghijklmnopqrst.supabase.co/rest/v1"),
        (URL, f"{URL}/rest/v1"),
        (f"{URL}/", f"{URL}/rest/v1"),
        ("https://memory.example:8443", "https://memory.example:8443/rest/v1"),
        ("http://127.0.0.1:54321", "http://127.0.0.1:54321/rest/v1"),
        ("http://localhost:54321", "http://localhost:54321/rest/v1"),
    ],
)
def test_a_project_is_named_by_its_reference_or_by_its_url(url: str, rest_url: str) -> None:
    catalog = SupabaseCatalog(url, key="sb_publishable_x")
    assert key_of(catalog).rest_url == rest_url
    assert repr(catalog) == f"SupabaseCatalog('{rest_url}')"
    assert key_of(create_catalog_backend("supabase", url=url, key="sb_publishable_x")) == key_of(
        catalog
    )


def test_a_url_carries_options_and_the_environment_the_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUPABASE_KEY", "the-key")
    monkeypatch.setenv("SUPABASE_USER_TOKEN", "the.user.token")
    catalog = create_catalog_backend(
        f"{URL}?schema=memory&max_connections=3&rest_path=/&service_role=false"
    )
    key = key_of(catalog)
    assert (key.rest_url, key.schema, key.max_connections) == (URL, "memory", 3)
    assert (key.key, key.access_token) == ("the-key", "the.user.token")
    assert "the-key" not in repr(key)
    assert "the.user.token" not in repr(key)


def test_service_role_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_KEY", PostgREST.anon_key)
    monkeypatch.setenv("SUPABASE_USER_TOKEN", "a.user.token")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", PostgREST.service_key)
    key = key_of(create_catalog_backend(f"{URL}?service_role=true"))
    assert (key.key, key.access_token) == (PostgREST.service_key, None)
    assert key_of(create_catalog_backend(URL)).key == PostgREST.anon_key


def test_a_configuration_takes_variables_and_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "the-key")

    async def token() -> str:
        return "a.user.token"

    config = {"type": "supabase", "url": URL, "key": "${A_KEY}", "access_token": token}
    key = key_of(create_catalog_backend(config))
    assert (key.key, key.access_token) == ("the-key", token)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": 7}, "url must be text"),
        ({"url": "supabase://"}, "the project's reference"),
        ({"url": "supabase://A/b"}, "the project's reference"),
        ({"url": "http://memory.example"}, "url is http"),
        ({"url": f"{URL}/rest/v1"}, "url has a path"),
        ({"url": f"{URL}?a=b"}, "neither a query nor a fragment"),
        ({"url": f"https://me:{SECRET}@abc.supabase.co"}, "without credentials"),
        ({"url": "ftp://abc.supabase.co"}, "url must be a URL"),
        ({"url": "https://abc.supabase.co:port"}, "url is no URL"),
        ({"key": None}, "SUPABASE_KEY"),
        ({"key": None, "service_role": True}, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"key": ""}, "key must be text"),
        ({"key": f"{SECRET}\n"}, "key must be text"),
        ({"key": 7}, "key must be text"),
        ({"access_token": f"{SECRET} "}, "access_token must be"),
        ({"access_token": ""}, "access_token must be"),
        ({"access_token": 7}, "access_token must be"),
        ({"schema": 'a"; DROP'}, "schema must be"),
        ({"schema": None}, "schema must be"),
        ({"service_role": "yes"}, "service_role must be"),
        ({"rest_path": "rest"}, "rest_path must be"),
        ({"rest_path": "/../x"}, "rest_path must be"),
        ({"rest_path": "/a?b=c"}, "rest_path must be"),
        ({"rest_path": None}, "rest_path must be"),
        ({"max_connections": 0}, "max_connections must be"),
        ({"max_connections": True}, "max_connections must be"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_repeated(
    options: dict[str, Any], said: str
) -> None:
    given = {"url": URL, "key": SECRET, **options}
    with pytest.raises(ConfigError, match=said) as caught:
        SupabaseCatalog(given.pop("url"), **given)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"{URL}?key={SECRET}",
        f"{URL}?access_token={SECRET}",
        f"supabase://abc?key={SECRET}",
        f"https://me:{SECRET}@abc.supabase.co",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend(url, "memory:")
    text = "".join(traceback.format_exception(caught.value))
    assert SECRET not in text.replace(repr(url), "")


@pytest.mark.parametrize(
    ("token", "role"),
    [
        (PostgREST.service_key, "service_role"),
        (PostgREST.anon_key, "anon"),
        (token_of("a"), "authenticated"),
        ("sb_secret_abc", "service_role"),
        ("sb_publishable_abc", None),
        (signed({"role": 7}), None),
        (signed({}), None),
        ("", None),
        ("a.b.c", None),
        ("a.é.c", None),
        (f"a.{'W' * 100_000}.c", None),  # [[[…
    ],
)
def test_the_role_of_a_token_is_read_without_a_server(token: str, role: str | None) -> None:
    assert role_of(token) == role


def test_no_request_is_made_by_a_constructor(http_proxy: Callable[[int], Any]) -> None:
    proxy = http_proxy(1)
    SupabaseCatalog(proxy.endpoint_url, key="k")
    assert proxy.asked == []
