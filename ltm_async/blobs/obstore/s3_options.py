"""Where in S3 a blob store is and whom it takes us for, checked before any I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...buckets import check_s3_bucket, split_uri
from ...errors import ConfigError
from .options import Options, endpoint, printable, settings, text

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
DEFAULT_REGION = "us-east-1"

_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_location(uri: object) -> tuple[str, str]:
    """The bucket and the prefix, which is empty or ends in a slash, of ``s3://bucket/prefix/``."""
    bucket, prefix = split_uri(uri, "s3")
    check_s3_bucket(bucket)
    return bucket, prefix


def check_options(
    bucket: str,
    *,
    endpoint_url: object,
    region: object,
    access_key_id: object,
    secret_access_key: object,
    session_token: object,
    ca_file: object,
    allow_http: object,
    environ: Mapping[str, str],
) -> Options:
    """The options of a client, or ConfigError naming the one that cannot be used."""
    name = printable("region", region) or _first(REGIONS, environ) or DEFAULT_REGION
    if not _REGION.fullmatch(name):
        raise ConfigError("region must be a name like eu-west-1")
    key = printable("access_key_id", access_key_id)
    secret = printable("secret_access_key", secret_access_key)
    token = printable("session_token", session_token)
    if (key is None) != (secret is None):
        raise ConfigError("access_key_id and secret_access_key go together; one is missing")
    if token is not None and key is None:
        raise ConfigError("session_token needs access_key_id and secret_access_key")
    given = text("endpoint_url", endpoint_url)
    source = "endpoint_url" if given else next((e for e in ENDPOINTS if environ.get(e)), "")
    url = given or environ.get(source)
    # A certificate of Amazon's is for one label before its own name.
    in_host = url is None and "." not in bucket
    if url is None:
        domain = "amazonaws.com.cn" if name.startswith("cn-") else "amazonaws.com"
        url = f"https://{f'{bucket}.' if in_host else ''}s3.{name}.{domain}"
    return Options(
        cloud="s3",
        bucket=bucket,
        endpoint_url=endpoint(source or "region", url, allow_http=allow_http)[0],
        settings=settings(
            region=name,
            access_key_id=key,
            secret_access_key=secret,
            session_token=token,
            virtual_hosted_style_request=in_host,
        ),
        ca_file=text("ca_file", ca_file),
    )


def _first(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)
