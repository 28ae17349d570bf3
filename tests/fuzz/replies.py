"""What servers answer: Firestore's messages, PostgREST's JSON, and the errors of buckets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from google.protobuf.message import DecodeError
from hypothesis import strategies as st

from ltm_async import CorruptError, LTMError
from ltm_async.blobs.gcs.replies import RefusedError, reading, whole_size, writing
from ltm_async.blobs.s3.replies import age_us, classified
from ltm_async.catalogs.firestore.layout import blob_of, is_live, to_row
from ltm_async.catalogs.firestore.messages import document, fill, to_us
from ltm_async.catalogs.firestore.wire import message_classes
from ltm_async.catalogs.supabase.failures import Reply, result_of
from ltm_async.clock import header_date_us
from ltm_async.reading import check_name, check_row
from ltm_async.sqlstates import CONFLICT

from .made import CANARY, changed, changed_text, json_texts, texts
from .running import target
from .stored import clean

_CLASSES = message_classes()
DATE = "Thu, 26 Nov 2026 10:00:00 GMT"
DATES = (
    changed_text(DATE)
    | texts
    | st.sampled_from(
        ["Thu, 26 Nov 2026 10:00:00 +99999999999999", "Thu, 26 Nov 0001 00:00:00 +2359", ""]
    )
)


def _answer() -> bytes:
    answer = _CLASSES["RunQueryResponse"]()
    found = answer.document
    found.name = "projects/p/databases/d/documents/ltm_entries/" + "0" * 64
    fill(
        found.fields,
        {
            "key": "k",
            "content_hash": "sha256:" + "0" * 64,
            "byte_size": 3,
            "inlined_value": '"v"',
            "blob_id": None,
            "metadata": "{}",
            "expires_at": None,
            "created_at": 1,
            "updated_at": 2,
            "words": ["a", "b"],
        },
    )
    found.update_time.seconds = 1_800_000_000
    answer.read_time.seconds = 1_800_000_001
    return bytes(answer.SerializeToString())


@target(changed(_answer()) | st.binary(max_size=60))
def firestore(data: bytes) -> None:
    try:
        answer = _CLASSES["RunQueryResponse"].FromString(data)
    except DecodeError:  # gRPC makes it an INTERNAL
        return
    to_us(answer.read_time)
    found = document(answer.document)
    is_live(found, 0)
    blob_of(found)
    row = to_row("k", found)
    assert isinstance(row.content_hash, str)
    assert isinstance(row.inlined_value, str | None)
    try:
        check_name(row)
        check_row(row)
    except CorruptError:
        pass


BODY = (
    b'{"code":"PT409","details":"{\\"place\\":1,\\"version\\":3}","hint":null,"message":"conflict"}'
)
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "date", "x"]), texts | DATES)
STATUSES = st.sampled_from([200, 204, 301, 400, 401, 403, 404, 408, 409, 416, 429, 500, 503, 599])
BODIES = (
    changed(BODY)
    | json_texts.map(lambda text: text.encode("utf-8", "replace"))
    | st.binary(max_size=40)
    | st.fixed_dictionaries(
        {
            "code": st.sampled_from([CONFLICT, "42501", "40001", "LTM01", "LTM09", "PGRST301"])
            | texts
        },
        optional={"details": json_texts, "message": texts},
    ).map(lambda said: repr(said).replace("'", '"').encode("utf-8", "replace"))
)


@target(st.tuples(STATUSES, HEADERS, BODIES))
def postgrest(given: tuple[int, Mapping[str, str], bytes]) -> None:
    status, headers, body = given
    try:
        result_of(Reply(status, headers, body), ["a", "b"], [1, None])
    except LTMError as exc:
        clean(exc)


ERROR = f'{{"error":{{"errors":[{{"reason":"r"}}],"message":"{CANARY} is wrong"}}}}'.encode()


@target(st.tuples(STATUSES, HEADERS, changed(ERROR) | BODIES))
def gcs(given: tuple[int, Mapping[str, str], bytes]) -> None:
    status, headers, body = given
    for translate in (reading, writing):
        with contextlib.suppress(LTMError), translate:
            json.loads(body)
        try:
            with translate:
                raise RefusedError.of(status, headers, body, secret=CANARY)
        except LTMError as exc:
            clean(exc)
    whole_size({"Content-Range": headers.get("x", "")})


@target(st.tuples(texts, STATUSES, texts, texts, DATES))
def dates_and_codes(given: tuple[str, int, str, str, str]) -> None:
    code, status, message, retry_after, date = given
    assert isinstance(classified(code, status, message, retry_after), LTMError)
    assert age_us({"date": date}, 0) >= 0
    header_date_us(date)
