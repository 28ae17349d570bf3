"""The XML API of GCS over HTTP, as far as obstore needs it: what it does not know it refuses.

Paths, headers and answers are those of https://cloud.google.com/storage/docs/xml-api/overview.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from .gcs_objects import Buckets, RefusedError, StoredObject, rfc3339

Enter = Callable[..., None]
"""From a request, a bucket, the name of the method and the verbs it needs: raises if refused."""

_PARAMETERS = frozenset({"continuation-token", "list-type", "prefix"})
_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "OperationAborted",
    412: "PreconditionFailed",
}


async def serve(request: web.BaseRequest, buckets: Buckets, enter: Enter) -> web.Response:
    try:
        return await _route(request, buckets, enter)
    except RefusedError as exc:
        code = "NoSuchBucket" if "bucket does not" in exc.message else _CODES[exc.status]
        return error(exc.status, code, exc.message)


def error(status: int, code: str, message: str = "a test says so") -> web.Response:
    body = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
        f"<Message>{escape(message)}</Message></Error>"
    )
    return web.Response(status=status, text=body, content_type="application/xml")


async def _route(request: web.BaseRequest, buckets: Buckets, enter: Enter) -> web.Response:
    path = request.raw_path.partition("?")[0]
    bucket, _, name = (unquote(part) for part in path[1:].partition("/"))
    if unknown := set(request.query) - _PARAMETERS:
        raise RefusedError(400, "invalidParameter", f"unknown here: {sorted(unknown)}")
    if not bucket:
        raise RefusedError(400, "invalid", "Invalid argument.")
    buckets.check_exists(bucket)
    match request.method, bool(name):
        case "GET", False:
            enter(request, bucket, "xml list", "list")
            return _list(request, buckets, bucket)
        case "GET", True:
            enter(request, bucket, "xml get", "get")
            stored = buckets.get(bucket, name)
            return web.Response(body=stored.data, headers=_headers(stored))
        case "PUT", True:
            body = await request.content.read()
            enter(request, bucket, "xml put", "create")
            stored = buckets.put(
                bucket,
                body,
                {"name": name, "contentType": request.headers.get("Content-Type")},
                _conditions(request),
            )
            return web.Response(headers=_headers(stored))
        case "DELETE", True:
            enter(request, bucket, "xml delete", "delete")
            buckets.delete(bucket, name, {})
            return web.Response(status=204)
    raise RefusedError(400, "invalid", "The request is not known here.")


def _conditions(request: web.BaseRequest) -> dict[str, Any]:
    generation = request.headers.get("x-goog-if-generation-match")
    return {} if generation is None else {"ifGenerationMatch": generation}


def _headers(stored: StoredObject) -> dict[str, str]:
    return {
        "Content-Type": stored.content_type,
        "ETag": f'"{stored.generation:x}"',
        "Last-Modified": email.utils.formatdate(stored.created_us // 1_000_000, usegmt=True),
        "x-goog-generation": str(stored.generation),
        "x-goog-hash": f"crc32c={stored.crc32c},md5={stored.md5}",
    }


def _list(request: web.BaseRequest, buckets: Buckets, bucket: str) -> web.Response:
    """https://cloud.google.com/storage/docs/xml-api/get-bucket-list."""
    found, more = buckets.list(
        bucket,
        prefix=request.query.get("prefix", ""),
        start="",
        after=request.query.get("continuation-token", ""),
        most=1_000,
    )
    parts = [
        f"<Contents><Key>{escape(stored.name)}</Key>"
        f"<LastModified>{rfc3339(stored.created_us)}</LastModified>"
        f'<ETag>"{stored.generation:x}"</ETag><Size>{len(stored.data)}</Size></Contents>'
        for stored in found
    ]
    if more is not None:
        parts.append(f"<NextContinuationToken>{escape(more)}</NextContinuationToken>")
    body = (
        "<?xml version='1.0' encoding='UTF-8'?>"
        "<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>"
        f"<Name>{bucket}</Name><IsTruncated>{str(more is not None).lower()}</IsTruncated>"
        f"{''.join(parts)}</ListBucketResult>"
    )
    return web.Response(text=body, content_type="application/xml")
