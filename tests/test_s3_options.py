"""What an S3 blob store accepts and refuses before it does anything."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ltm_async import ConfigError, LTMBackend, S3BlobStore
from ltm_async.blobs.s3.options import Options
from ltm_async.registry import plan_blob_store

CANARY = "canary-7d1f"
URI = "s3://bucket/prefix/"


def options_of(store: Any) -> Options:
    options = store._share._key
    assert isinstance(options, Options)
    return options


# Where it is


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/", "s3://bucket/"),
        ("s3://a.b-c.0/x", "s3://a.b-c.0/x/"),
        ("s3://bucket/x/y/", "s3://bucket/x/y/"),
        ("s3://bucket/a%20b/ü", "s3://bucket/a%20b/ü/"),
        (f"s3://{'b' * 63}/{'p' * 511}", f"s3://{'b' * 63}/{'p' * 511}/"),
    ],
)
def test_a_bucket_and_a_prefix_are_taken_as_they_stand(uri: str, shown: str) -> None:
    store = S3BlobStore(uri)
    assert store.uri("path") == f"{shown}path"
    assert repr(store) == f"S3BlobStore({shown!r})"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (None, "uri must be text like s3://bucket/prefix/, not NoneType"),
        ("", "uri must start with s3://"),
        ("bucket/prefix", "uri must start with s3://"),
        (f"gs://{CANARY}", "uri must start with s3://"),
        ("s3:bucket", "uri must start with s3://"),
        ("s3://", "uri has no valid bucket"),
        ("s3:///prefix", "uri has no valid bucket"),
        ("s3://ab", "uri has no valid bucket"),
        (f"s3://{'b' * 64}", "uri has no valid bucket"),
        ("s3://Bucket", "uri has no valid bucket"),
        ("s3://a_b", "uri has no valid bucket"),
        ("s3://-bucket", "uri has no valid bucket"),
        ("s3://bucket-", "uri has no valid bucket"),
        ("s3://a..b", "uri has no valid bucket"),
        ("s3://192.168.0.1", "uri has no valid bucket"),
        ("s3://bucket\n/x", "uri has no valid bucket"),
        ("s3://bücket/x", "uri has no valid bucket"),
        (f"s3://AKIA:{CANARY}@bucket/x", "uri takes no credentials"),
        ("s3://bucket//x", "uri has an empty part, '.' or '..' in its prefix"),
        ("s3://bucket/x//y", "uri has an empty part"),
        ("s3://bucket/../y", "uri has an empty part"),
        ("s3://bucket/x/..", "uri has an empty part"),
        ("s3://bucket/./y", "uri has an empty part"),
        ("s3://bucket/a\0b", "uri has a character in its prefix that cannot be printed"),
        ("s3://bucket/a\nb", "uri has a character in its prefix"),
        ("s3://bucket/a\ud800b", "uri has a character in its prefix"),
        (f"s3://bucket/x?secret_access_key={CANARY}", "uri has '?' or '#' in its prefix"),
        ("s3://bucket/x#y", "uri has '?' or '#' in its prefix"),
        (f"s3://bucket/{'ü' * 256}", "uri has a prefix of over 512 bytes"),
    ],
    ids=lambda text: repr(text)[:60],
)
def test_a_wrong_uri_is_refused_and_not_repeated(uri: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S3BlobStore(uri)
    assert str(caught.value).startswith(message)
    assert CANARY not in str(caught.value)
    if isinstance(uri, str) and uri.startswith("s3://"):
        with pytest.raises(ConfigError) as caught:
            LTMBackend("memory:", uri)
        assert CANARY not in str(caught.value)


# How it is reached


@pytest.mark.parametrize(
    "endpoint_url",
    [
        "https://s3.example.org",
        "https://s3.example.org:9000/",
        "https://ref.supabase.co/storage/v1/s3",
        "http://127.0.0.1:9000",
        "http://127.8.9.1",
        "http://[::1]:9000",
        "http://localhost:9000",
    ],
)
def test_an_endpoint_is_encrypted_or_on_this_machine(endpoint_url: str) -> None:
    options = options_of(S3BlobStore(URI, endpoint_url=endpoint_url))
    assert options.endpoint_url == endpoint_url.rstrip("/")
    assert options.is_encrypted == endpoint_url.startswith("https")


@pytest.mark.parametrize(
    "endpoint_url",
    ["http://10.0.0.1:9000", "http://minio:9000", "http://localhost.example.org", "http://0.0.0.0"],
)
def test_an_endpoint_that_others_can_listen_to_has_to_be_asked_for(endpoint_url: str) -> None:
    with pytest.raises(ConfigError, match=r"^endpoint_url is http, so anyone on the way"):
        S3BlobStore(URI, endpoint_url=endpoint_url)
    S3BlobStore(URI, endpoint_url=endpoint_url, allow_http=True)


@pytest.mark.parametrize(
    "endpoint_url",
    [
        "s3.example.org", "ftp://host", "https://", "https:///x", "https://host:port",
        "https://host:99999", f"https://user:{CANARY}@host", "https://ho st", "https://[::1",
        "https://host?x=1", "https://host#x", "https://host\n", "https://hößt", "https://-host",
    ],
)  # fmt: skip
def test_an_endpoint_that_is_none_is_refused(endpoint_url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S3BlobStore(URI, endpoint_url=endpoint_url, allow_http=True)
    assert str(caught.value).startswith("endpoint_url ")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint_url", "path_style", "addressing_style"),
    [
        (None, None, "auto"),
        ("https://s3.eu-west-1.amazonaws.com", None, "auto"),
        ("https://vpce-1.s3.eu-west-1.vpce.amazonaws.com", None, "auto"),
        ("https://account.r2.cloudflarestorage.com", None, "path"),
        ("https://amazonaws.com.example.org", None, "path"),
        ("http://127.0.0.1:9000", None, "path"),
        (None, True, "path"),
        ("https://account.r2.cloudflarestorage.com", False, "virtual"),
    ],
)
def test_a_bucket_is_part_of_the_path_where_hosts_have_no_buckets(
    endpoint_url: str | None, path_style: bool | None, addressing_style: str
) -> None:
    store = S3BlobStore(URI, endpoint_url=endpoint_url, path_style=path_style)
    assert options_of(store).addressing_style == addressing_style


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": ""}, "region is empty"),
        ({"region": "EU"}, "region must be a name like eu-west-1"),
        ({"region": "eu-west-1.evil.org/"}, "region must be a name like eu-west-1"),
        ({"region": 5}, "region must be text, not int"),
        ({"path_style": "yes"}, "path_style must be True or False, not 'yes'"),
        ({"allow_http": 1}, "allow_http must be True or False, not 1"),
        ({"create_only": None}, "create_only must be True or False, not None"),
        ({"checksum": "no"}, "checksum must be True or False, not 'no'"),
        ({"max_connections": 0}, "max_connections is 0, it must be 1 to 1000"),
        ({"max_connections": 1001}, "max_connections is 1001, it must be 1 to 1000"),
        ({"max_connections": True}, "max_connections must be int, not bool"),
        ({"max_connections": 1.5}, "max_connections must be int, not float"),
        ({"ca_file": ""}, "ca_file is empty"),
        ({"ca_file": "a\0b"}, "ca_file is empty, or has"),
        ({"access_key_id": "a"}, "access_key_id and secret_access_key go together"),
        ({"secret_access_key": CANARY}, "access_key_id and secret_access_key go together"),
        ({"session_token": CANARY}, "session_token needs access_key_id"),
        (
            {"access_key_id": "a", "secret_access_key": f"{CANARY}\r\nHost: evil"},
            "secret_access_key is empty, or has a space or a character that is not ASCII",
        ),
        (
            {"access_key_id": "a", "secret_access_key": "b", "session_token": f"{CANARY} "},
            "session_token is empty, or has a space",
        ),
    ],
    ids=str,
)
def test_a_wrong_option_is_named_and_no_secret_repeated(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        S3BlobStore(URI, **options)
    assert str(caught.value).startswith(message)
    assert CANARY not in str(caught.value)


def test_no_secret_is_shown() -> None:
    store = S3BlobStore(
        URI,
        access_key_id=f"id-{CANARY}",
        secret_access_key=f"secret-{CANARY}",
        session_token=f"token-{CANARY}",
    )
    for shown in (repr(store), str(store), repr(options_of(store)), repr(store.__dict__)):
        assert CANARY not in shown
    assert CANARY not in repr(LTMBackend("memory:", store))


def test_the_constructor_imports_no_driver() -> None:
    code = (
        "import sys; from ltm_async import LTMBackend; "
        "LTMBackend('memory:', 's3://bucket/x?region=eu-west-1'); "
        "print({'aiobotocore', 'botocore', 'aiohttp', 'ssl'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("set()", "{'ssl'}")  # asyncio brings it


# From a URL or a mapping


def made(spec: object) -> S3BlobStore:
    store = plan_blob_store(spec)()
    assert isinstance(store, S3BlobStore)
    return store


def test_a_url_may_carry_options() -> None:
    store = made(
        "s3://bucket/a%20b?region=eu-west-1&endpoint_url=http%3A%2F%2F127.0.0.1:9000"
        "&path_style=false&max_connections=7&create_only=no&checksum=True"
    )
    options = options_of(store)
    assert store.uri("") == "s3://bucket/a%20b/"
    assert (options.region, options.endpoint_url) == ("eu-west-1", "http://127.0.0.1:9000")
    assert (options.addressing_style, options.max_connections) == ("virtual", 7)
    assert (store._create_only, store._checksum) == (False, True)


def test_a_mapping_may_carry_options_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTM_TEST_SECRET", CANARY)
    monkeypatch.setenv("LTM_TEST_NUMBER", "9")
    monkeypatch.setenv("LTM_TEST_BOOL", "true")
    ltm = LTMBackend.from_config(
        {
            "catalog": "memory:",
            "storage": {
                "uri": "s3://bucket/prefix?region=eu-west-1",
                "access_key_id": "AKIA",
                "secret_access_key": "${LTM_TEST_SECRET}",
                "max_connections": "${LTM_TEST_NUMBER}",
                "path_style": "${LTM_TEST_BOOL}",
                "checksum": False,
            },
        }
    )
    store = ltm._runner.stores().blobs
    assert isinstance(store, S3BlobStore)
    options = options_of(store)
    assert (options.access_key_id, options.secret_access_key) == ("AKIA", CANARY)
    assert (options.max_connections, options.addressing_style) == (9, "path")
    assert (options.region, store._checksum) == ("eu-west-1", False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s3://bucket?regoin=x", "storage_uri 's3' has no option 'regoin', did you mean 'region'?"),
        ("s3://bucket?region=a&region=b", "storage_uri gives 'region' twice"),
        ("s3://bucket?uri=s3://other", "storage_uri gives 'uri' twice"),
        ("s3://bucket?region=", "storage_uri 's3': region must be text, not ''"),
        ("s3://bucket?max_connections=x", "storage_uri 's3': max_connections must be a number"),
        ("s3://bucket?max_connections=-1", "storage_uri 's3': max_connections must be a number"),
        ("s3://bucket?max_connections=0", "max_connections is 0, it must be 1 to 1000"),
        (f"s3://bucket?max_connections={'9' * 5000}", "max_connections is 999"),
        ("s3://bucket?path_style=maybe", "storage_uri 's3': path_style must be true or false"),
        ("s3://bucket?endpoint_url=http://10.0.0.1", "endpoint_url is http"),
        (
            f"s3://bucket?secret_access_key={CANARY}",
            "storage_uri has secret_access_key in its URL, which others may read",
        ),
        (f"s3://bucket?access_key_id={CANARY}", "storage_uri has access_key_id in its URL"),
        (f"s3://bucket?session_token={CANARY}", "storage_uri has session_token in its URL"),
        (
            {"uri": "s3://bucket?region=a", "region": "b"},
            "storage_uri gives 'region' twice",
        ),
        (
            {"uri": "s3://bucket", "secret_access_key": [CANARY]},
            "storage_uri 's3': secret_access_key must be text, not list",
        ),
        ({"uri": "s3://bucket", "max_connections": True}, "storage_uri 's3': max_connections must"),
        ({"uri": "s3://bucket", "path_style": 1}, "storage_uri 's3': path_style must be true or"),
        ({"uri": "s3://b"}, "uri has no valid bucket"),
    ],
    ids=lambda spec: str(spec)[:70],
)
def test_a_wrong_configuration_is_refused_when_the_backend_is_made(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend("memory:", spec)
    assert str(caught.value).startswith(message)
    assert CANARY not in str(caught.value)
