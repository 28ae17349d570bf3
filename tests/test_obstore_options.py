"""Where stores on obstore are and how they are reached: URLs, mappings, variables, refusals."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import pytest

from ltm_async import (
    AzureBlobStore,
    ConfigError,
    GCSBlobStore,
    LTMBackend,
    ObstoreGCSBlobStore,
    ObstoreS3BlobStore,
    S3BlobStore,
)
from ltm_async.blobs.obstore import azure_options, gcs_options, s3_options
from ltm_async.blobs.obstore.options import Options

KEY = "aHVudGVyMg=="  # hunter2
SAS = "sv=2021-08-06&sig=hunter2%3D"
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY}"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        azure_options.CONNECTION_STRING,
        azure_options.ACCOUNT_NAME,
        *azure_options.ENDPOINTS,
        *s3_options.ENDPOINTS,
        *s3_options.REGIONS,
        gcs_options.EMULATOR,
    ):
        monkeypatch.delenv(name, raising=False)


def azure(environ: Mapping[str, str] | None = None, **given: object) -> Options:
    names = ("account_name", "account_key", "sas_token", "connection_string", "endpoint_url")
    defaults: dict[str, Any] = {**dict.fromkeys((*names, "ca_file")), "allow_http": False}
    return azure_options.check_options("box", **{**defaults, **given}, environ=environ or {})


def s3(environ: Mapping[str, str] | None = None, bucket: str = "box", **given: object) -> Options:
    names = ("endpoint_url", "region", "access_key_id", "secret_access_key", "session_token")
    defaults: dict[str, Any] = {**dict.fromkeys((*names, "ca_file")), "allow_http": False}
    return s3_options.check_options(bucket, **{**defaults, **given}, environ=environ or {})


def gcs(environ: Mapping[str, str] | None = None, **given: object) -> Options:
    names = ("endpoint_url", "service_file", "token", "ca_file")
    defaults: dict[str, Any] = {**dict.fromkeys(names), "allow_http": False}
    return gcs_options.check_options("box", **{**defaults, **given}, environ=environ or {})


def made(storage: object) -> Any:
    return LTMBackend("memory:", storage)._runner.stores().blobs  # type: ignore[arg-type]


# Places


@pytest.mark.parametrize(
    ("uri", "container", "prefix"),
    [
        ("az://abc", "abc", ""),
        ("az://abc/", "abc", ""),
        ("az://a-b-9/p", "a-b-9", "p/"),
        ("az://abc/p/q/", "abc", "p/q/"),
        ("az://abc/ü ß/100%", "abc", "ü ß/100%/"),
        (f"az://{'a' * 63}/{'p' * 511}", "a" * 63, "p" * 511 + "/"),
    ],
)
def test_a_place_is_a_container_and_a_prefix(uri: str, container: str, prefix: str) -> None:
    assert azure_options.check_location(uri) == (container, prefix)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "az:",
        "az://",
        "az:///p",
        "azure://abc",
        "AZ://abc",
        "az://ab",
        "az://Abc",
        "az://-abc",
        "az://abc-",
        "az://a--b",
        "az://a.b",
        "az://a_b",
        "az://user:secret@abc/",
        "az://box@acc.blob.core.windows.net/",
        f"az://{'a' * 64}",
        f"az://{'a-' * 31}aa",
        "az://abc//p",
        "az://abc/p//q",
        "az://abc/./p",
        "az://abc/p/..",
        "az://abc/p\n",
        "az://abc/p#q",
        "az://abc/p?sig=secret",
        f"az://abc/{'p' * 512}",
        None,
        b"az://abc",
    ],
    ids=repr,
)
def test_a_wrong_place_is_refused_before_anything_is_opened(uri: Any) -> None:
    with pytest.raises(ConfigError, match=r"^uri ") as caught:
        AzureBlobStore(uri, account_name="acc")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://B", "gs://bucket/", "s3://a:b@c/", "s3://192.168.0.1/"])
def test_a_wrong_bucket_of_s3_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"^uri "):
        ObstoreS3BlobStore(uri)


@pytest.mark.parametrize("uri", ["gs://B", "s3://bucket/", "gs://a..b/", "gs://192.168.0.1/"])
def test_a_wrong_bucket_of_gcs_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"^uri "):
        ObstoreGCSBlobStore(uri)


# Servers and credentials


@pytest.mark.parametrize(
    ("given", "environ", "url"),
    [
        ({}, {}, "https://acc.blob.core.windows.net"),
        ({}, {"AZURE_STORAGE_ENDPOINT": ""}, "https://acc.blob.core.windows.net"),
        ({}, {"AZURE_STORAGE_ENDPOINT": "http://localhost:9/acc"}, "http://localhost:9/acc"),
        ({}, {"AZURE_ENDPOINT": "https://h"}, "https://h"),
        ({"endpoint_url": "https://h/acc/"}, {"AZURE_ENDPOINT": "https://x"}, "https://h/acc"),
    ],
)
def test_the_server_is_the_accounts_unless_another_is_named(
    given: dict[str, str], environ: dict[str, str], url: str
) -> None:
    assert azure(environ, account_name="acc", **given).endpoint_url == url


@pytest.mark.parametrize("name", ["endpoint_url", "AZURE_STORAGE_ENDPOINT"])
def test_values_are_sent_to_other_machines_encrypted_unless_that_is_waived(name: str) -> None:
    url = "http://emulator:10000/acc"
    given = {"endpoint_url": url} if name == "endpoint_url" else {}
    environ = {} if given else {name: url}
    with pytest.raises(ConfigError, match=rf"^{name} is http, so anyone on the way"):
        azure(environ, account_name="acc", **given)
    assert azure(environ, account_name="acc", allow_http=True, **given).endpoint_url == url


def test_what_is_given_goes_before_what_the_environment_has() -> None:
    """The driver by itself would prefer a token of the environment to a key that was given."""
    assert dict(azure(account_name="acc", account_key=KEY).settings) == {
        "account_name": "acc",
        "account_key": KEY,
        "credential_type": "access_key",
        "use_emulator": False,
    }
    assert dict(azure({"AZURE_STORAGE_ACCOUNT_NAME": "env"}, sas_token=f"?{SAS}").settings) == {
        "account_name": "env",
        "sas_key": SAS,
        "credential_type": "sas_token",
        "use_emulator": False,
    }
    assert "credential_type" not in dict(azure(account_name="acc").settings)


@pytest.mark.parametrize(
    ("connection", "account", "credential", "url"),
    [
        (CONNECTION, "acc", ("account_key", KEY), "https://acc.blob.core.windows.net"),
        (
            f"{CONNECTION};EndpointSuffix=core.chinacloudapi.cn;",
            "acc",
            ("account_key", KEY),
            "https://acc.blob.core.chinacloudapi.cn",
        ),
        (
            f"BlobEndpoint=http://127.0.0.1:9/acc;AccountName=acc;AccountKey={KEY}",
            "acc",
            ("account_key", KEY),
            "http://127.0.0.1:9/acc",
        ),
        (
            f"AccountName=acc;SharedAccessSignature={SAS}",
            "acc",
            ("sas_key", SAS),
            "https://acc.blob.core.windows.net",
        ),
    ],
)
def test_a_connection_string_has_all(
    connection: str, account: str, credential: tuple[str, str], url: str
) -> None:
    for found in (
        azure(connection_string=connection),
        azure({"AZURE_STORAGE_CONNECTION_STRING": connection}),
    ):
        settings = dict(found.settings)
        assert (settings["account_name"], found.endpoint_url) == (account, url)
        assert settings[credential[0]] == credential[1]
    other = azure({"AZURE_STORAGE_CONNECTION_STRING": connection}, account_name="mine")
    assert dict(other.settings)["account_name"] == "mine"


def test_amazons_buckets_have_a_host_each_where_a_certificate_holds_for_it() -> None:
    assert s3().endpoint_url == "https://box.s3.us-east-1.amazonaws.com"
    assert s3(bucket="a.b").endpoint_url == "https://s3.us-east-1.amazonaws.com"
    assert dict(s3(bucket="a.b").settings)["virtual_hosted_style_request"] is False
    assert s3({"AWS_REGION": "eu-west-1"}).endpoint_url == "https://box.s3.eu-west-1.amazonaws.com"
    assert s3(region="cn-north-1").endpoint_url == "https://box.s3.cn-north-1.amazonaws.com.cn"
    elsewhere = s3({"AWS_ENDPOINT_URL": "http://localhost:9"}, region="x")
    assert elsewhere.endpoint_url == "http://localhost:9"
    assert dict(elsewhere.settings)["virtual_hosted_style_request"] is False


def test_google_credentials_are_for_google() -> None:
    assert gcs().settings == ()
    nobody = gcs({"STORAGE_EMULATOR_HOST": "localhost:9"})
    assert (nobody.endpoint_url, dict(nobody.settings)) == (
        "http://localhost:9",
        {"bearer_token": ""},
    )
    environ = {"STORAGE_EMULATOR_TOKEN": "t"}
    assert gcs(environ).settings == ()
    elsewhere = gcs(environ, endpoint_url="https://elsewhere")
    assert dict(elsewhere.settings) == {"bearer_token": "t"}
    found = gcs(endpoint_url="https://elsewhere", service_file="/mine.json")
    assert dict(found.settings) == {"application_credentials": "/mine.json"}
    assert dict(gcs(endpoint_url="https://elsewhere", token="t").settings) == {"bearer_token": "t"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "account_name is missing, and so is the variable AZURE_STORAGE_ACCOUNT_NAME"),
        ({"account_name": "Acc"}, "account_name must be 3 to 24 lower-case letters and digits"),
        ({"account_name": "hunter2.evil.example/"}, "account_name must be 3 to 24"),
        ({"account_name": 5}, "account_name must be text, not int"),
        ({"account_name": "acc", "account_key": "hunter2!"}, "account_key is no base 64"),
        ({"account_name": "acc", "account_key": ""}, "account_key is empty or has a NUL"),
        ({"account_name": "acc", "account_key": "hunter2 "}, "account_key has a space"),
        ({"account_name": "acc", "account_key": b"hunter2"}, "account_key must be text, not bytes"),
        (
            {"account_name": "acc", "account_key": KEY, "sas_token": SAS},
            "account_key and sas_token are both given",
        ),
        ({"account_name": "acc", "sas_token": "hünter2"}, "sas_token has a space or a character"),
        (
            {"connection_string": CONNECTION, "account_key": KEY},
            "connection_string goes without account_name, account_key and sas_token",
        ),
        ({"connection_string": "hunter2"}, "connection_string is no list like"),
        ({"connection_string": "AccountKey=hunter2"}, "account_name is missing"),
        (
            {"connection_string": "UseDevelopmentStorage=true"},
            "connection_string names no emulator",
        ),
        (
            {"connection_string": f"{CONNECTION};EndpointSuffix=hunter2/x"},
            "connection_string has no valid EndpointSuffix",
        ),
        (
            {"connection_string": f"{CONNECTION};BlobEndpoint=http://hunter2.example"},
            "connection_string is http, so anyone",
        ),
        ({"account_name": "acc", "endpoint_url": "https://me:hunter2@h"}, "endpoint_url must be"),
        (
            {"account_name": "acc", "endpoint_url": f"https://h/?{SAS}"},
            "endpoint_url takes neither",
        ),
        ({"account_name": "acc", "ca_file": 5}, "ca_file must be text, not int"),
        ({"account_name": "acc", "allow_http": 1}, "allow_http must be True or False, not 1"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_option_is_refused_and_no_secret_repeated(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        AzureBlobStore("az://box/", **given)
    assert str(caught.value).startswith(message)
    shown = "".join(traceback.format_exception(caught.value)).split("ltm_async.errors")[-1]
    assert not [secret for secret in ("hunter2", "hünter2", KEY) if secret in shown]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"region": "EU"}, "region must be a name like eu-west-1"),
        ({"region": "x/evil.example"}, "region must be a name like eu-west-1"),
        ({"access_key_id": "hunter2"}, "access_key_id and secret_access_key go together"),
        ({"session_token": "hunter2"}, "session_token needs access_key_id"),
        ({"endpoint_url": "http://other"}, "endpoint_url is http, so anyone"),
        ({"secret_access_key": "hunter2\n", "access_key_id": "a"}, "secret_access_key has a space"),
    ],
)
def test_a_wrong_option_of_s3_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ObstoreS3BlobStore("s3://bucket/", **given)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"token": "hunter2"}, "token is for an endpoint_url other than Google's"),
        ({"service_file": "a\0"}, "service_file is empty or has a NUL"),
        ({"endpoint_url": "http://other"}, "endpoint_url is http, so anyone"),
    ],
)
def test_a_wrong_option_of_gcs_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ObstoreGCSBlobStore("gs://bucket/", **given)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("options", [azure(account_name="acc", account_key=KEY), s3(), gcs()])
def test_no_secret_is_in_a_repr(options: Options) -> None:
    assert "settings" not in repr(options)
    assert KEY not in repr(options)


async def test_what_the_driver_refuses_is_refused_without_its_words(
    tmp_path: Any,
) -> None:
    """They could quote a file of credentials."""
    file = tmp_path / "service.json"
    file.write_text('{"private_key": "hunter2"')
    blobs = ObstoreGCSBlobStore("gs://bucket/", service_file=str(file))
    with pytest.raises(ConfigError, match="the options of the gcs blob store") as caught:
        await blobs.open()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    await blobs.aclose()
    blobs = ObstoreGCSBlobStore("gs://bucket/", ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match="ca_file cannot be read: No such file"):
        await blobs.open()
    await blobs.aclose()


# From URLs and mappings


def test_a_url_carries_options() -> None:
    blobs = made("az://box/some/prefix?account_name=acc&endpoint_url=http%3A//localhost:9/acc")
    assert repr(blobs) == "AzureBlobStore('az://box/some/prefix/')"
    assert blobs._objects._options == azure(
        account_name="acc", endpoint_url="http://localhost:9/acc"
    )


def test_a_mapping_carries_options_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTM_TEST_KEY", KEY)
    blobs = made({"uri": "az://box/p/", "account_name": "acc", "account_key": "${LTM_TEST_KEY}"})
    assert blobs.uri("x") == "az://box/p/x"
    assert blobs._objects._options == azure(account_name="acc", account_key=KEY)


@pytest.mark.parametrize(
    ("storage", "kind"),
    [
        ("s3://bucket/", S3BlobStore),
        ("s3://bucket/?driver=obstore&region=eu-west-1", ObstoreS3BlobStore),
        ({"uri": "s3://bucket/", "driver": "obstore"}, ObstoreS3BlobStore),
        ("gs://bucket/", GCSBlobStore),
        ("gs://bucket/?driver=obstore", ObstoreGCSBlobStore),
        ({"uri": "gs://bucket/", "driver": "obstore"}, ObstoreGCSBlobStore),
    ],
    ids=repr,
)
def test_the_driver_is_chosen_by_an_option(storage: object, kind: type) -> None:
    assert type(made(storage)) is kind


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("s3://bucket/?driver=boto", "storage_uri 's3': driver is 'boto', it can be 'obstore' or"),
        ({"uri": "gs://bucket/", "driver": 5}, "storage_uri 'gs': driver is 5, it can be"),
        ("az://box/?driver=obstore", "storage_uri 'az' has no option 'driver'"),
        ({"uri": "memory:", "driver": "obstore"}, "storage_uri 'memory' has no option 'driver'"),
        (
            "s3://bucket/?driver=obstore&checksum=false",
            "storage_uri 's3' has no option 'checksum'",
        ),
        (f"az://box/?account_name=acc&sas_token={SAS}", "storage_uri has sas_token in its URL"),
        (
            "az://box/?acount_name=acc",
            "storage_uri 'az' has no option 'acount_name', did you mean ",
        ),
        ("az://box/?allow_http=perhaps", "storage_uri 'az': allow_http must be true or false"),
        (
            {"uri": "az://box/", "account_key": ["hunter2"]},
            "storage_uri 'az': account_key must be text, not list",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_storage_is_refused_when_the_backend_is_made(storage: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LTMBackend("memory:", storage)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)
