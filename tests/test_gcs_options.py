"""Where a GCS store is and how it is reached: URLs, mappings, variables, and what is refused."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from ltm_async import ConfigError, GCSBlobStore, LTMBackend
from ltm_async.blobs.gcs.options import Options, check_location, check_options
from ltm_async.buckets import check_endpoint

GOOGLE = "https://storage.googleapis.com"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "STORAGE_EMULATOR_HOST",
        "STORAGE_EMULATOR_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)


def options(environ: Mapping[str, str] | None = None, **given: object) -> Options:
    unset = dict.fromkeys(("endpoint_url", "service_file", "token"))
    defaults: dict[str, Any] = {**unset, "max_connections": 50, "allow_http": False}
    return check_options(**{**defaults, **given}, environ=environ or {})


def made(storage: object) -> GCSBlobStore:
    blobs = LTMBackend("memory:", storage)._runner.stores().blobs  # type: ignore[arg-type]
    assert isinstance(blobs, GCSBlobStore)
    return blobs


# Places


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("gs://abc", "abc", ""),
        ("gs://abc/", "abc", ""),
        ("gs://abc/p", "abc", "p/"),
        ("gs://abc/p/q/", "abc", "p/q/"),
        ("gs://a-b_c.d-9.example.com/p", "a-b_c.d-9.example.com", "p/"),
        ("gs://abc/ü ß/100%", "abc", "ü ß/100%/"),
        (f"gs://{'a' * 63}/{'p' * 511}", "a" * 63, "p" * 511 + "/"),
        (f"gs://{'.'.join(['a' * 54] * 4)}00/", ".".join(["a" * 54] * 4) + "00", ""),
    ],
)
def test_a_place_is_a_bucket_and_a_prefix(uri: str, bucket: str, prefix: str) -> None:
    assert check_location(uri) == (bucket, prefix)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "gs:",
        "gs://",
        "gs:///p",
        "s3://abc",
        "GS://abc",
        "abc",
        "gs://ab",
        "gs://Abc",
        "gs://-abc",
        "gs://abc-",
        "gs://a..b",
        "gs://192.168.5.4",
        "gs://user:secret@abc/",
        "gs://a b c",
        f"gs://{'a' * 64}",
        f"gs://{'.'.join(['a' * 62] * 4)}",
        "gs://abc//",
        "gs://abc//p",
        "gs://abc/p//q",
        "gs://abc/./p",
        "gs://abc/p/..",
        "gs://abc/p\n",
        "gs://abc/p\0",
        "gs://abc/p#q",
        f"gs://abc/{'p' * 512}",
        f"gs://abc/{'ü' * 256}",
        None,
        5,
        b"gs://abc",
    ],
    ids=repr,
)
def test_a_wrong_place_is_refused_before_anything_is_opened(uri: Any) -> None:
    with pytest.raises(ConfigError, match=r"^uri ") as caught:
        GCSBlobStore(uri)
    assert "secret" not in str(caught.value)


# Servers


@pytest.mark.parametrize(
    ("given", "environ", "url", "is_google"),
    [
        (None, {}, GOOGLE, True),
        (None, {"STORAGE_EMULATOR_HOST": ""}, GOOGLE, True),
        (None, {"STORAGE_EMULATOR_HOST": "http://localhost:9"}, "http://localhost:9", False),
        (None, {"STORAGE_EMULATOR_HOST": "localhost:9"}, "http://localhost:9", False),
        (GOOGLE, {"STORAGE_EMULATOR_HOST": "http://localhost:9"}, GOOGLE, True),
        ("https://private-me.p.googleapis.com/", {}, "https://private-me.p.googleapis.com", True),
        ("https://googleapis.com", {}, "https://googleapis.com", True),
        ("https://evilgoogleapis.com", {}, "https://evilgoogleapis.com", False),
        ("https://googleapis.com.evil.example", {}, "https://googleapis.com.evil.example", False),
        ("https://host/path/", {}, "https://host/path", False),
        ("http://[::1]:9", {}, "http://[::1]:9", False),
    ],
)
def test_the_server_is_googles_unless_another_is_named(
    given: str | None, environ: dict[str, str], url: str, is_google: bool
) -> None:
    found = options(environ, endpoint_url=given)
    assert (found.endpoint_url, found.is_google) == (url, is_google)


@pytest.mark.parametrize("name", ["endpoint_url", "STORAGE_EMULATOR_HOST"])
@pytest.mark.parametrize(
    "url",
    [
        "http://storage.googleapis.com",
        "http://emulator:4443",
        "http://10.0.0.1",
        "http://127.0.0.1.example",
        "http://localhost.example",
    ],
)
def test_values_are_sent_to_other_machines_encrypted_unless_that_is_waived(
    name: str, url: str
) -> None:
    given: dict[str, str] = {"endpoint_url": url} if name == "endpoint_url" else {}
    environ = {} if given else {name: url}
    with pytest.raises(ConfigError, match=rf"^{name} is http, so anyone on the way"):
        options(environ, **given)
    found = options(environ, **given, allow_http=True)
    assert (found.endpoint_url, found.is_google) == (url, False)


@pytest.mark.parametrize(
    "url",
    [
        "host",
        "host:9",
        "ftp://host",
        "https://",
        "https://host:port",
        "https://host:99999",
        "https://user:hunter2@host",
        "https://hunter2@host",
        "https://host?hunter2",
        "https://host/#hunter2",
        "https://ho st",
        "https://host\n",
        "https://hüst",
        "https://[::1",
        "https://-host",
    ],
)
def test_a_wrong_endpoint_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^endpoint_url ") as caught:
        options(endpoint_url=url)
    assert "hunter2" not in str(caught.value)


def test_an_endpoints_name_is_that_of_its_argument() -> None:
    assert check_endpoint("other", "https://host.example:5/", allow_http=False) == "host.example"
    with pytest.raises(ConfigError, match=r"^other "):
        check_endpoint("other", "nothing", allow_http=False)


# Credentials


def test_credentials_are_for_google_or_where_their_file_was_named() -> None:
    variables = {
        "GOOGLE_APPLICATION_CREDENTIALS": "/env.json",
        "STORAGE_EMULATOR_TOKEN": "from-env",
    }

    def found(**given: object) -> tuple[str | None, str | None, bool]:
        checked = options(variables, **given)
        return checked.service_file, checked.token, checked.has_google_credentials

    elsewhere = "http://localhost:9"
    assert found() == ("/env.json", None, True)
    assert found(service_file="/mine.json") == ("/mine.json", None, True)
    assert found(endpoint_url=elsewhere) == (None, "from-env", False)
    assert found(endpoint_url=elsewhere, token="mine") == (None, "mine", False)
    assert found(endpoint_url=elsewhere, service_file="/mine.json") == ("/mine.json", None, True)
    assert options().has_google_credentials
    assert options(endpoint_url=elsewhere).token is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"token": "t"}, "token is for an endpoint_url other than Google's"),
        (
            {"token": "t", "endpoint_url": "http://localhost:9", "service_file": "f"},
            "token is for an endpoint_url other than Google's, and goes without a service_file",
        ),
        ({"token": "hunter2 ", "endpoint_url": "http://localhost:9"}, "token has a space"),
        ({"token": "hunter2\n", "endpoint_url": "http://localhost:9"}, "token has a space"),
        ({"token": "hünter2", "endpoint_url": "http://localhost:9"}, "token has a space"),
        ({"token": ""}, "token is empty or has a NUL"),
        ({"token": 5}, "token must be text, not int"),
        ({"service_file": ""}, "service_file is empty or has a NUL"),
        ({"service_file": "a\0hunter2"}, "service_file is empty or has a NUL"),
        ({"service_file": b"hunter2"}, "service_file must be text, not bytes"),
        ({"endpoint_url": 5}, "endpoint_url must be text, not int"),
        ({"max_connections": 0}, "max_connections is 0, it must be 1 to 1000"),
        ({"max_connections": 1_001}, "max_connections is 1001, it must be 1 to 1000"),
        ({"max_connections": True}, "max_connections must be int, not bool"),
        ({"max_connections": "5"}, "max_connections must be int, not str"),
        ({"allow_http": 1}, "allow_http must be True or False, not 1"),
    ],
    ids=repr,
)
def test_a_wrong_option_is_refused_and_no_secret_repeated(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        GCSBlobStore("gs://bucket/", **given)
    assert str(caught.value).startswith(message)
    text = "".join(traceback.format_exception(caught.value)).split("ltm_async.errors")[-1]
    assert "hunter2" not in text
    assert "hünter2" not in text


def test_the_token_is_in_no_repr() -> None:
    found = options(endpoint_url="http://localhost:9", token="hunter2")
    assert found.token == "hunter2"
    assert "hunter2" not in repr(found)


# From URLs and mappings


def test_a_url_carries_options() -> None:
    blobs = made("gs://bucket/some/prefix?max_connections=7&endpoint_url=http%3A//localhost:9")
    assert repr(blobs) == "GCSBlobStore('gs://bucket/some/prefix/')"
    key = blobs._share._key
    assert (key.max_connections, key.endpoint_url) == (7, "http://localhost:9")
    assert made("gs://bucket")._share._key == options()


def test_a_mapping_carries_options_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTM_TEST_TOKEN", "hunter2")
    blobs = made(
        {
            "uri": "gs://bucket/p/",
            "endpoint_url": "http://emulator:4443",
            "token": "${LTM_TEST_TOKEN}",
            "max_connections": "7",
            "allow_http": "true",
        }
    )
    assert blobs.uri("x") == "gs://bucket/p/x"
    assert blobs._share._key == options(
        endpoint_url="http://emulator:4443", token="hunter2", max_connections=7, allow_http=True
    )


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("gs://", "uri has no valid bucket"),
        ("gs://bucket/?token=hunter2", "storage_uri has token in its URL, which others may read"),
        (
            "gs://bucket/?max_connections=hunter",
            "storage_uri 'gs': max_connections must be a",
        ),
        ("gs://bucket/?max_connections=0", "max_connections is 0"),
        ("gs://bucket/?a=1", "storage_uri 'gs' has no option 'a'"),
        ("gs://bucket/?allow_http=perhaps", "storage_uri 'gs': allow_http must be true or false"),
        ("gs://bucket/?allow_http=true&allow_http=true", "storage_uri gives 'allow_http' twice"),
        (
            {"uri": "gs://bucket/?allow_http=true", "allow_http": True},
            "storage_uri gives 'allow_http' twice",
        ),
        ({"uri": "gs://bucket/?uri=gs://x"}, "storage_uri gives 'uri' twice"),
        (
            {"uri": "gs://bucket/", "token": ["hunter2"]},
            "storage_uri 'gs': token must be text, not",
        ),
        (
            {"uri": "gs://bucket/", "token": "hunter2\0"},
            "storage_uri 'gs': token must be text, not",
        ),
    ],
    ids=repr,
)
def test_a_wrong_storage_is_refused_when_the_backend_is_made(storage: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend("memory:", storage)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)
