"""Where in GCS a blob store is and whom it takes us for, checked before any I/O."""

from __future__ import annotations

from collections.abc import Mapping

from ...buckets import check_gcs_bucket, split_uri
from ...errors import ConfigError
from .options import Options, endpoint, printable, settings, text

GOOGLE = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
"""The variable that Google's own clients read: an address, with or without ``http://``."""

EMULATOR_TOKEN = "STORAGE_EMULATOR_TOKEN"  # noqa: S105  # its name


def check_location(uri: object) -> tuple[str, str]:
    """The bucket and the prefix, which is empty or ends in a slash, of ``gs://bucket/prefix/``."""
    bucket, prefix = split_uri(uri, "gs")
    check_gcs_bucket(bucket)
    return bucket, prefix


def check_options(
    bucket: str,
    *,
    endpoint_url: object,
    service_file: object,
    token: object,
    ca_file: object,
    allow_http: object,
    environ: Mapping[str, str],
) -> Options:
    """The options of a client, or ConfigError naming the one that cannot be used."""
    file, secret = text("service_file", service_file), printable("token", token)
    source, given = "endpoint_url", text("endpoint_url", endpoint_url)
    if given is None:
        source, given = EMULATOR, environ.get(EMULATOR) or GOOGLE
        given = given if "://" in given else f"http://{given}"
    url, host = endpoint(source, given, allow_http=allow_http)
    is_google = url.startswith("https:") and f".{host}".endswith(".googleapis.com")
    if secret is not None and (is_google or file is not None):
        raise ConfigError(
            "token is for an endpoint_url other than Google's, and goes without a service_file"
        )
    if secret is None and file is None and not is_google:
        # What the driver would find in the environment is for Google. Emulators take an empty
        # token for none.
        secret = printable(EMULATOR_TOKEN, environ.get(EMULATOR_TOKEN) or None) or ""
    return Options(
        cloud="gcs",
        bucket=bucket,
        endpoint_url=url,
        settings=settings(
            application_credentials=file,
            bearer_token=secret,
        ),
        ca_file=text("ca_file", ca_file),
    )
