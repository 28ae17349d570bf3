"""What a failed request means: from the driver's exceptions and S3's error codes to ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
)
from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.parsers import ResponseParserError

from ...clock import header_date_us
from ...errors import (
    AccessDeniedError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)

MOST_WORDS = 200
"""Characters of a server's own message that are repeated in ours."""

_CREDENTIALS = frozenset({
    "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidSecurity",
    "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
})  # fmt: skip
_THROTTLING = frozenset({
    "BandwidthLimitExceeded", "RequestLimitExceeded", "RequestThrottled", "ServiceUnavailable",
    "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException",
    "TooManyRequests",
})  # fmt: skip
_NOT_TAKEN = frozenset({
    # Bytes were damaged or missing on the way, so that nothing was written.
    "BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
    # Another request for the same object was at work.
    "ConditionalRequestConflict", "OperationAborted",
})  # fmt: skip
_OTHER_REGION = frozenset({
    "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect",
    "Redirect", "TemporaryRedirect",
})  # fmt: skip


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Raise a StoreError for whatever the driver raises, chained to it."""
    try:
        yield
    except ClientError as exc:
        raise refusal(exc) from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise AccessDeniedError(
            "s3: there are no credentials: give access_key_id and secret_access_key, or set them "
            "where AWS's tools look for them",
            store="s3",
        ) from exc
    except SSOError as exc:
        raise AccessDeniedError(f"s3: {exc}", store="s3") from exc
    except (CredentialRetrievalError, MetadataRetrievalError):
        # What a provider or a program said may hold the credentials themselves.
        raise UnavailableError("s3: the credentials could not be retrieved", store="s3") from None
    except ResponseParserError as exc:
        raise OutcomeUnknownError("s3: the reply is none of S3", store="s3") from exc
    except NotConnectedError as exc:
        raise UnavailableError(f"s3: {exc}", store="s3") from exc
    except (HTTPClientError, IncompleteReadError, aiohttp.ClientError, OSError) as exc:
        raise OutcomeUnknownError(f"s3: the reply was cut: {exc}", store="s3") from exc
    except BotoCoreError as exc:
        raise StoreError(f"s3: {exc}", store="s3") from exc


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """The same, where nothing that is lost can have had an effect."""
    try:
        with translating():
            yield
    except OutcomeUnknownError as exc:
        raise UnavailableError(str(exc), store="s3") from exc


def error_code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def status(exc: ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def refusal(exc: ClientError) -> StoreError:
    """What the server's answer means."""
    error: Mapping[str, Any] = exc.response.get("Error", {})
    headers: Mapping[str, str] = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    code = error_code(exc)
    if code in _OTHER_REGION or status(exc) in (301, 302, 303, 307, 308):
        return _elsewhere(error, headers)
    return classified(
        code, status(exc), str(error.get("Message", "")), headers.get("retry-after", "")
    )


def classified(code: str, status: int, message: str, retry_after: str = "") -> StoreError:
    """By error code, and by HTTP status where the code says nothing."""
    what = f"s3: {code or status}: {message[:MOST_WORDS]}".removesuffix(": ")
    if code == "RequestTimeTooSkewed":
        return AccessDeniedError(f"{what} (set this machine's clock)", store="s3")
    if code in _CREDENTIALS or status in (401, 403):
        return AccessDeniedError(what, store="s3")
    if code == "NoSuchBucket":
        return StoreError("s3: the bucket does not exist", store="s3")
    if code in _THROTTLING or status in (429, 503):
        return RateLimitedError(what, store="s3", retry_after_s=_seconds(retry_after))
    if code in _NOT_TAKEN or status in (408, 409):
        return UnavailableError(what, store="s3")
    if code == "NotImplemented" or status == 501:
        return StoreError(
            f"{what} (this server may need create_only=False or checksum=False)", store="s3"
        )
    # Written or not: a put may be repeated, and a gateway says the same of a server that hangs.
    if code == "InternalError" or status >= 500:
        return OutcomeUnknownError(what, store="s3")
    return StoreError(what, store="s3")


def _elsewhere(error: Mapping[str, Any], headers: Mapping[str, str]) -> StoreError:
    region = str(error.get("Region") or headers.get("x-amz-bucket-region") or "")
    where = f": pass region={region[:40]!r}" if region else ""
    return StoreError(
        f"s3: the bucket is in another region or at another endpoint{where}", store="s3"
    )


def _seconds(retry_after: str) -> float | None:
    """The value of a Retry-After header, which may be a date; None if it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    return None


def age_us(headers: Mapping[str, str], modified_us: int) -> int:
    """How old an object is by the clock of the server that lists it; 0 if it does not say."""
    now_us = header_date_us(headers.get("date"))
    return 0 if now_us is None else max(0, now_us - modified_us)
