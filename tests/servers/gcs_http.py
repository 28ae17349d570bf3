"""The JSON API of GCS over HTTP, as far as blob stores need it: what it does not know it refuses.

Paths, parameters and answers are those of https://cloud.google.com/storage/docs/json_api/v1. Batch
requests, copies, composed objects and ACLs are not here; the XML API is in :mod:`.gcs_xml`.
"""

from __future__ import annotations

import email.utils
import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from . import gcs_xml
from .gcs_objects import Buckets, RefusedError, Session, StoredObject

OBJECTS = frozenset(
    f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")
)
CHUNK = 256 * 1024
"""Pieces of a resumable upload but the last are multiples of it."""
_PARAMETERS = frozenset({
    "alt", "fields", "ifGenerationMatch", "maxResults", "name", "pageToken", "prefix",
    "prettyPrint", "project", "startOffset", "uploadType", "upload_id",
})  # fmt: skip
_CONDITIONS = ("ifGenerationMatch",)
_RANGE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class Api:
    """Answers requests about *buckets*, by their clock."""

    def __init__(self, buckets: Buckets) -> None:
        self.requests: Counter[str] = Counter()
        """How often each method was called, such as ``"objects.insert"``."""
        self.private: set[str] = set()
        """Buckets in which not everybody may do everything."""
        self.grants: dict[str, frozenset[str]] = {}
        """The permissions of each access token."""
        self._buckets = buckets
        self._sessions: dict[str, Session] = {}

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.raw_path.startswith(("/storage/v1/", "/upload/")):
                answer = await self._route(request)
            else:
                answer = await gcs_xml.serve(request, self._buckets, self._enter)
        except RefusedError as exc:
            answer = _refusal(exc, plain=request.query.get("alt") == "media")
        now_s = self._buckets.clock() // 1_000_000
        answer.headers["Date"] = email.utils.formatdate(now_s, usegmt=True)
        return answer

    async def _route(self, request: web.BaseRequest) -> web.Response:
        """Names may hold a slash, so the path is split before it is decoded."""
        parts = [unquote(part) for part in request.raw_path.partition("?")[0].split("/")[1:]]
        if unknown := set(request.query) - _PARAMETERS:
            raise RefusedError(400, "invalidParameter", f"unknown here: {sorted(unknown)}")
        match request.method, parts:
            case "POST", ["storage", "v1", "b"]:
                return await self._create_bucket(request)
            case "GET", ["storage", "v1", "b", bucket]:
                return self._get_bucket(request, bucket)
            case "GET", ["storage", "v1", "b", bucket, "o"]:
                return self._list(request, bucket)
            case "GET", ["storage", "v1", "b", bucket, "o", name]:
                return self._get(request, bucket, name)
            case "DELETE", ["storage", "v1", "b", bucket, "o", name]:
                self._enter(request, bucket, "objects.delete", "delete")
                self._buckets.delete(bucket, name, _conditions(request))
                return web.Response(status=204)
            case "POST" | "PUT", ["upload", "storage", "v1", "b", bucket, "o"]:
                return await self._upload(request, bucket)
        raise RefusedError(404, "notFound", "Not Found")

    def _enter(self, request: web.BaseRequest, bucket: str, method: str, *verbs: str) -> None:
        """Count a call, and refuse one without the permissions it needs:
        https://cloud.google.com/storage/docs/access-control/iam-json."""
        self.requests[method] += 1
        header = request.headers.get("Authorization")
        if header == "Bearer":  # an empty token, as obstore sends it to emulators
            header = None
        if header is None:
            if bucket not in self.private:
                return
            granted, who = frozenset[str](), "Anonymous caller"
        else:
            token = header.removeprefix("Bearer ")
            if token not in self.grants:
                raise RefusedError(401, "authError", "Invalid Credentials")
            granted, who = self.grants[token], "test@example.iam.gserviceaccount.com"
        for needed in (f"storage.objects.{verb}" for verb in verbs):
            if needed not in granted:
                raise RefusedError(
                    401 if header is None else 403,
                    "required" if header is None else "forbidden",
                    f"{who} does not have {needed} access to the Google Cloud Storage object. "
                    f"Permission '{needed}' denied on resource (or it may not exist).",
                )

    async def _create_bucket(self, request: web.BaseRequest) -> web.Response:
        self.requests["buckets.insert"] += 1
        bucket = (await request.json())["name"]
        self._buckets.create(bucket)
        return _json({"kind": "storage#bucket", "id": bucket, "name": bucket}, request)

    def _get_bucket(self, request: web.BaseRequest, bucket: str) -> web.Response:
        self.requests["buckets.get"] += 1
        self._buckets.check_exists(bucket)
        return _json({"kind": "storage#bucket", "id": bucket, "name": bucket}, request)

    def _list(self, request: web.BaseRequest, bucket: str) -> web.Response:
        self._buckets.check_exists(bucket)
        self._enter(request, bucket, "objects.list", "list")
        found, more = self._buckets.list(
            bucket,
            prefix=request.query.get("prefix", ""),
            start=request.query.get("startOffset", ""),
            after=_decoded(request.query.get("pageToken", "")),
            most=int(request.query.get("maxResults", "1000")),
        )
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if found:  # an empty page has no items at all
            answer["items"] = [stored.resource() for stored in found]
        if more is not None:
            answer["nextPageToken"] = more.encode().hex()
        return _json(answer, request)

    def _get(self, request: web.BaseRequest, bucket: str, name: str) -> web.Response:
        media = request.query.get("alt") == "media"
        self._enter(request, bucket, "objects.get media" if media else "objects.get", "get")
        stored = self._buckets.get(bucket, name)
        return _media(stored, request) if media else _json(stored.resource(), request)

    async def _upload(self, request: web.BaseRequest, bucket: str) -> web.Response:
        body = await request.content.read()
        self._buckets.check_exists(bucket)
        kind = request.query.get("uploadType")
        if kind == "resumable":
            if request.method == "PUT":
                return self._go_on(request, body)
            self._enter(request, bucket, "objects.insert resumable", "create")
            return self._begin(request, bucket, body)
        self._enter(request, bucket, f"objects.insert {kind}", "create")
        if kind == "multipart":
            metadata, data = _parts(request.headers.get("Content-Type", ""), body)
        elif kind == "media":
            metadata, data = {"contentType": request.headers.get("Content-Type")}, body
        else:
            raise RefusedError(400, "invalid", "Upload type is unknown.")
        metadata.setdefault("name", request.query.get("name"))
        return _json(
            self._buckets.put(bucket, data, metadata, _conditions(request)).resource(), request
        )

    def _begin(self, request: web.BaseRequest, bucket: str, body: bytes) -> web.Response:
        """https://cloud.google.com/storage/docs/performing-resumable-uploads."""
        metadata = json.loads(body or b"{}")
        metadata.setdefault("name", request.query.get("name"))
        metadata.setdefault("contentType", request.headers.get("X-Upload-Content-Type"))
        conditions = _conditions(request)
        self._buckets.check_conditions(bucket, metadata["name"], conditions)
        upload_id = uuid.uuid4().hex
        self._sessions[upload_id] = Session(bucket, metadata, conditions)
        place = f"http://{request.host}/upload/storage/v1/b/{bucket}/o"
        query = f"uploadType=resumable&upload_id={upload_id}"
        return web.Response(headers={"Location": f"{place}?{query}"})

    def _go_on(self, request: web.BaseRequest, body: bytes) -> web.Response:
        """A piece of an upload, or a question how far it is; the session's address is its key."""
        self.requests["objects.insert resumed"] += 1
        session = self._sessions.get(request.query.get("upload_id", ""))
        if session is None:
            raise RefusedError(404, "notFound", "No such upload session.")
        if session.stored is None:
            end = _end_of(request.headers.get("Content-Range"), len(session.received), len(body))
            session.received += body
            if len(session.received) != end:
                last = len(session.received) - 1
                headers = {"Range": f"bytes=0-{last}"} if session.received else {}
                return web.Response(status=308, headers=headers)
            session.stored = self._buckets.put(
                session.bucket, bytes(session.received), session.metadata, session.conditions
            )
        return _json(session.stored.resource(), request)


def _conditions(request: web.BaseRequest) -> dict[str, str]:
    return {name: request.query[name] for name in _CONDITIONS if name in request.query}


def _decoded(token: str) -> str:
    try:
        return bytes.fromhex(token).decode()
    except ValueError:
        raise RefusedError(400, "invalid", "Invalid page token.") from None


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The metadata and the data of a multipart/related body:
    https://cloud.google.com/storage/docs/uploading-objects#rest-upload-objects."""
    boundary = content_type.partition("boundary=")[2].strip("\"' ").encode()
    delimiter = b"\r\n--" + boundary
    begin, second = body.find(b"{"), body.find(delimiter)
    head_end, end = body.find(b"\r\n\r\n", second), body.rfind(delimiter + b"--")
    if not boundary or not body.startswith(b"--" + boundary) or not 0 < second < head_end < end:
        raise RefusedError(400, "badContent", "Missing end boundary in multipart body.")
    metadata = json.loads(body[begin:second])
    for line in body[second + len(delimiter) : head_end].decode().split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-type":
            metadata.setdefault("contentType", value.strip())
    return metadata, body[head_end + 4 : end]


def _end_of(content_range: str | None, received: int, size: int) -> int | None:
    """How long the whole object is, if it can be told already."""
    if content_range is None:
        return size
    found = _CONTENT_RANGE.fullmatch(content_range)
    if found is None:
        raise RefusedError(400, "invalid", "Failed to parse Content-Range header.")
    first, last, whole = found.groups()
    end = None if whole == "*" else int(whole)
    if first is None:
        if size:
            raise RefusedError(400, "invalid", "A status check has no body.")
        return end
    if int(first) != received or int(last) - int(first) + 1 != size:
        raise RefusedError(400, "invalid", "The piece does not go on where the last one ended.")
    if received + size != end and size % CHUNK:
        raise RefusedError(400, "invalid", "There were not a multiple of 256 KiB.")
    return end


def _media(stored: StoredObject, request: web.BaseRequest) -> web.Response:
    """The data or a range of it; a range of nothing cannot be satisfied:
    https://github.com/googleapis/google-cloud-go/issues/242."""
    size = len(stored.data)
    headers = {
        "Content-Type": stored.content_type,
        "x-goog-generation": str(stored.generation),
        "x-goog-hash": f"crc32c={stored.crc32c},md5={stored.md5}",
        "x-goog-stored-content-length": str(size),
    }
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    if found is None:
        return web.Response(body=stored.data, headers=headers)
    first, last, suffix = found.groups()
    begin = int(first) if first else max(0, size - int(suffix))
    end = min(int(last), size - 1) if last else size - 1
    if begin >= size:
        raise RefusedError(
            416,
            "requestedRangeNotSatisfiable",
            "Request range not satisfiable",
            {"Content-Range": f"bytes */{size}"},
        )
    headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
    return web.Response(status=206, body=stored.data[begin : end + 1], headers=headers)


def _json(answer: Mapping[str, Any], request: web.BaseRequest) -> web.Response:
    fields = request.query.get("fields")
    shown = answer if fields is None else _selected(answer, fields)
    return web.Response(text=json.dumps(shown, indent=1), content_type="application/json")


def _selected(answer: Mapping[str, Any], fields: str) -> dict[str, Any]:
    """What *fields*, such as ``a,b(c,d)``, leaves of it:
    https://cloud.google.com/storage/docs/json_api#partial-response."""
    chosen: dict[str, Any] = {}
    for name, inner in re.findall(r"(\w+)(?:\(([^()]*)\))?(?:,|$)", fields):
        if name in answer:
            value = answer[name]
            chosen[name] = [_selected(item, inner) for item in value] if inner else value
    return chosen


def _refusal(exc: RefusedError, *, plain: bool) -> web.Response:
    """JSON as in https://cloud.google.com/storage/docs/json_api/v1/status-codes; for a download,
    plain text."""
    if plain:
        return web.Response(status=exc.status, text=exc.message, headers=exc.headers)
    body = error_body(exc.status, exc.reason, exc.message)
    return web.Response(
        status=exc.status, body=body, headers=exc.headers, content_type="application/json"
    )


def error_body(status: int, reason: str, message: str) -> bytes:
    detail = {"message": message, "domain": "global", "reason": reason}
    if reason in ("authError", "required"):
        detail |= {"locationType": "header", "location": "Authorization"}
    elif reason == "conditionNotMet":
        detail |= {"locationType": "header", "location": "If-Match"}
    error = {"code": status, "message": message, "errors": [detail]}
    return json.dumps({"error": error}, indent=1).encode()
