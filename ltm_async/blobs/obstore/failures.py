"""What a failed call means: from the driver's exceptions, which say it in prose, to ours.

Their classes tell little: most are ``GenericError``. The text ends with the driver's own
structures, a field a line, in which what a server said is quoted within one line, and cannot pass
for a field. URLs may be there, and whatever a server repeats; we show but a status and a word.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...errors import (
    AccessDeniedError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)
from .options import Cloud

_STRUCTURES = "\n\nDebug source:\n"
_STATUS = re.compile(r'^ *(?:status: (\d{3})|code: "(\d{3})"),$', re.MULTILINE)
_KIND = re.compile(r"^ *kind: (Connect|Request|Timeout|Interrupted|Decode|Unknown),$", re.MULTILINE)
_CODE = re.compile(
    r'^ *(?:"[^\n]*<Code>([A-Za-z][A-Za-z0-9]{0,59})</Code>|code: "([A-Za-z][A-Za-z0-9]{0,59})")',
    re.MULTILINE,
)
_REFUSED_KEY = re.compile(r"^ *source: DeleteFailed \{$", re.MULTILINE)
_NO_BLOB = re.compile(r'^ *reason: "The specified blob does not exist', re.MULTILINE)
_NO_CONTAINER = re.compile(r'^ *reason: "The specified container does not exist', re.MULTILINE)
_NO_TOKEN = re.compile(
    r"^ *source: Token\w+ \{$"
    r"|^ *https?://(?:169\.254\.169\.254|169\.254\.170\.\d+|metadata\.google\.internal|metadata)/",
    re.MULTILINE,
)
_NOT_TRUSTED = re.compile(r"^ *InvalidCertificate\($|^ *error: InvalidCertificate\(", re.MULTILINE)

_ABSENT = frozenset({"BlobNotFound", "NoSuchKey"})
_NO_BUCKET = frozenset({"ContainerNotFound", "NoSuchBucket"})
_CREDENTIALS = frozenset({
    "AccessDenied", "AuthenticationFailed", "AuthorizationFailure", "ExpiredToken",
    "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
})  # fmt: skip
_THROTTLING = frozenset({
    "BandwidthLimitExceeded", "RequestLimitExceeded", "ServerBusy", "ServiceUnavailable",
    "SlowDown", "Throttling", "TooManyRequests",
})  # fmt: skip
_NOT_TAKEN = frozenset({"BadDigest", "IncompleteBody", "Md5Mismatch", "RequestTimeout"})
"""Bytes were damaged or missing on the way, so that nothing was written."""


class Failure(NamedTuple):
    """What can be told of one."""

    status: int
    """Of the server's answer; 0 where there was none."""
    code: str
    """The server's own word, such as ``BlobNotFound``."""
    kind: str
    """How the connection failed, in the driver's words."""
    details: str

    @classmethod
    def of(cls, exc: BaseException) -> Failure:
        details = str(exc).rpartition(_STRUCTURES)[2]
        status, code, kind = (found.search(details) for found in (_STATUS, _CODE, _KIND))
        return cls(
            status=int(status[1] or status[2]) if status else 0,
            code=(code[1] or code[2]) if code else "",
            kind=kind[1] if kind else "",
            details=details,
        )

    @property
    def is_absence(self) -> bool:
        """There is no such object, says the store itself."""
        return self.status == 404 and (
            self.code in _ABSENT or _NO_BLOB.search(self.details) is not None
        )

    @property
    def is_of_one_key(self) -> bool:
        """Of a request for many, which may have gone well with others."""
        return _REFUSED_KEY.search(self.details) is not None

    def meaning(self, cloud: Cloud, *, lost: type[StoreError]) -> StoreError:
        """As one of ours; *lost* is the class for a request that may have been served."""
        if _NO_TOKEN.search(self.details):
            return self._no_token(cloud)
        if not self.status:
            return self._unanswered(cloud, lost)
        what = f"{cloud}: {self.status} {self.code}".rstrip()
        if self.code in _CREDENTIALS or self.status in (401, 403):
            return AccessDeniedError(what, store=cloud)
        if self.code in _THROTTLING or self.status == 429:
            return RateLimitedError(what, store=cloud)
        if self.code in _NO_BUCKET or _NO_CONTAINER.search(self.details):
            bucket = "container" if cloud == "azure" else "bucket"
            return StoreError(f"{cloud}: the {bucket} does not exist", store=cloud)
        if self.status < 400:
            return StoreError(
                f"{cloud}: {self.status}: this endpoint sends its clients elsewhere", store=cloud
            )
        if self.code in _NOT_TAKEN or self.status in (408, 409):
            return UnavailableError(what, store=cloud)
        return (lost if self.status >= 500 else StoreError)(what, store=cloud)

    def _no_token(self, cloud: Cloud) -> StoreError:
        what = (
            f"{cloud}: no access token: {f'status {self.status}' if self.status else 'no answer'}"
        )
        if 400 <= self.status < 500 and self.status not in (408, 429):
            return AccessDeniedError(what, store=cloud)
        return UnavailableError(
            f"{what} (no credentials were given, so the machine's were asked for)", store=cloud
        )

    def _unanswered(self, cloud: Cloud, lost: type[StoreError]) -> StoreError:
        if _NOT_TRUSTED.search(self.details):
            return StoreError(
                f"{cloud}: the server's certificate is not trusted; ca_file names the "
                "authorities that are",
                store=cloud,
            )
        match self.kind:
            case "Connect":
                return UnavailableError(f"{cloud}: there is no connection", store=cloud)
            case "":
                return lost(f"{cloud}: the reply is none of this API", store=cloud)
            case "Timeout":
                return lost(f"{cloud}: there was no answer in time", store=cloud)
        return lost(f"{cloud}: the reply was lost or cut short", store=cloud)
