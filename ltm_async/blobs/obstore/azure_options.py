"""Where an Azure blob store is and whom it takes us for, checked before any I/O."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from ...buckets import split_uri
from ...errors import ConfigError
from .options import Options, endpoint, printable, settings, text

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT_NAME = "AZURE_STORAGE_ACCOUNT_NAME"
ENDPOINTS = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
"""Variables that the driver reads, too."""

_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_SUFFIX = re.compile(r"[a-z0-9.-]{1,100}")


def check_location(uri: object) -> tuple[str, str]:
    """The container and the prefix, which is empty or ends in a slash."""
    container, prefix = split_uri(uri, "az")
    if "@" in container:
        raise ConfigError("uri takes neither an account nor credentials; give account_name")
    if not _CONTAINER.fullmatch(container) or len(container) > 63:
        raise ConfigError(
            "uri has no valid container: 3 to 63 lower-case letters, digits and single hyphens, "
            "a letter or digit first and last"
        )
    return container, prefix


def check_options(
    container: str,
    *,
    account_name: object,
    account_key: object,
    sas_token: object,
    connection_string: object,
    endpoint_url: object,
    ca_file: object,
    allow_http: object,
    environ: Mapping[str, str],
) -> Options:
    """The options of a client, or ConfigError naming the one that cannot be used."""
    given: dict[str, str | None] = {
        "account_name": printable("account_name", account_name),
        "account_key": printable("account_key", account_key),
        "sas_token": printable("sas_token", sas_token),
    }
    connection = text("connection_string", connection_string)
    if connection is not None and any(given.values()):
        raise ConfigError(
            "connection_string goes without account_name, account_key and sas_token: it has them"
        )
    source, url = "endpoint_url", text("endpoint_url", endpoint_url)
    if not any(given.values()):
        connection = connection or environ.get(CONNECTION_STRING) or None
    if connection is not None:
        given, found = _connection(connection)
        if url is None and found is not None:
            source, url = "connection_string", found
    key, sas = given["account_key"], given["sas_token"]
    if key is not None and sas is not None:
        raise ConfigError("account_key and sas_token are both given, one is enough")
    account = given["account_name"] or environ.get(ACCOUNT_NAME)
    if not account:
        raise ConfigError(f"account_name is missing, and so is the variable {ACCOUNT_NAME}")
    if not _ACCOUNT.fullmatch(account):
        raise ConfigError("account_name must be 3 to 24 lower-case letters and digits")
    if key is not None:
        _check_key(key)
    if url is None:
        source = next((name for name in ENDPOINTS if environ.get(name)), source)
        url = environ.get(source) or f"https://{account}.blob.core.windows.net"
    return Options(
        cloud="azure",
        bucket=container,
        endpoint_url=endpoint(source, url, allow_http=allow_http)[0],
        settings=settings(
            account_name=account,
            account_key=key,
            sas_key=None if sas is None else sas.removeprefix("?"),
            # Otherwise a token of the environment would go before what was given.
            credential_type=(key and "access_key") or (sas and "sas_token") or None,
            use_emulator=False,  # it would leave the endpoint for port 10000 of this machine
        ),
        ca_file=text("ca_file", ca_file),
    )


def _check_key(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ConfigError("account_key is no base 64") from None


def _connection(connection: str) -> tuple[dict[str, str | None], str | None]:
    """Account and credentials, and the endpoint if there is one, of a connection string:
    https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string."""
    parts: dict[str, str] = {}
    for part in filter(None, connection.strip().split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError("connection_string is no list like AccountName=…;AccountKey=…")
        parts[name.strip().lower()] = value.strip()
    if "usedevelopmentstorage" in parts:
        raise ConfigError(
            "connection_string names no emulator: give account_name, account_key and endpoint_url"
        )
    given = {
        "account_name": printable("connection_string", parts.get("accountname")),
        "account_key": printable("connection_string", parts.get("accountkey")),
        "sas_token": printable("connection_string", parts.get("sharedaccesssignature")),
    }
    url = parts.get("blobendpoint")
    if url is None and "endpointsuffix" in parts and given["account_name"]:
        if not _SUFFIX.fullmatch(parts["endpointsuffix"]):
            raise ConfigError("connection_string has no valid EndpointSuffix")
        scheme = parts.get("defaultendpointsprotocol", "https")
        url = f"{scheme}://{given['account_name']}.blob.{parts['endpointsuffix']}"
    return given, url
