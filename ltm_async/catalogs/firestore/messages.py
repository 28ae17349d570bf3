"""Fields as protobuf has them, and as we do: texts, whole numbers, true or false, and nothing.

Besides there are lists of texts and vectors, which we write and look up only, maps of instants,
which we read only, in nanoseconds, and distances, which are in no document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...vectors import to_floats
from .layout import GONE, Data, Document, Range, Since

FOREIGN = object()
"""Stands for a value of a kind that we never write."""
_OURS = {"string_value", "integer_value", "boolean_value", "double_value"}
_AND = 1
_LESS_THAN = 1
_LESS_THAN_OR_EQUAL = 2
_GREATER_THAN_OR_EQUAL = 4
_EQUAL = 5
_ARRAY_CONTAINS_ANY = 9
_COSINE = 2
_ASCENDING = 1
_REQUEST_TIME = 1


def fill(fields: Any, data: Data) -> None:
    for name, value in data.items():
        if isinstance(value, str):
            fields[name].string_value = value
        elif value is None:
            fields[name].null_value = 0
        elif isinstance(value, bool):
            fields[name].boolean_value = value
        elif isinstance(value, list):
            _fill_texts(fields[name].array_value, value)
        elif isinstance(value, bytes):
            _fill_vector(fields[name], value)
        elif value is not GONE:
            fields[name].integer_value = value


def _fill_texts(array: Any, texts: Sequence[str]) -> None:
    for text in texts:
        array.values.add().string_value = text


def _fill_vector(value: Any, vector: bytes) -> None:
    """As Google's client does it: https://cloud.google.com/firestore/docs/vector-search."""
    fields = value.map_value.fields
    fields["__type__"].string_value = "__vector__"
    numbers = fields["value"].array_value.values
    for number in to_floats(vector):
        numbers.add().double_value = number


def document(message: Any) -> Document:
    data: dict[str, Any] = {}
    fields = message.fields
    for name in fields:  # its items() takes twice as long
        value = fields[name]
        kind = value.WhichOneof("value_type")
        if kind in _OURS:
            data[name] = getattr(value, kind)
        elif kind == "map_value":
            data[name] = _instants(value.map_value.fields)
        else:
            data[name] = None if kind == "null_value" else FOREIGN
    updated = message.update_time
    return Document(message.name.rpartition("/")[2], data, updated, to_us(updated))


def _instants(fields: Any) -> dict[str, int]:
    return {
        name: fields[name].timestamp_value.seconds * 10**9 + fields[name].timestamp_value.nanos
        for name in fields
        if fields[name].WhichOneof("value_type") == "timestamp_value"
    }


def stamp(write: Any, field: str) -> None:
    """Have the server enter in *field* when it was asked for *write*."""
    write.update_transforms.add(field_path=field, set_to_server_value=_REQUEST_TIME)


def to_us(moment: Any) -> int:
    return int(moment.seconds * 1_000_000 + moment.nanos // 1_000)


def ask_range(
    query: Any, collection: str, within: Range, *, limit: int | None, fields: Iterable[str]
) -> None:
    """Make *query*, a message, ask for a range in the order of its field."""
    query.from_.add(collection_id=collection)
    both = query.where.composite_filter
    both.op = _AND
    for op, bound in ((_GREATER_THAN_OR_EQUAL, within.low), (_LESS_THAN, within.high)):
        half = both.filters.add().field_filter
        half.field.field_path = within.field
        half.op = op
        half.value.string_value = bound
    query.order_by.add(direction=_ASCENDING).field.field_path = within.field
    if limit is not None:
        query.limit.value = limit
    for name in fields:
        query.select.fields.add(field_path=name)


def ask_any(query: Any, collection: str, field: str, texts: Sequence[str]) -> None:
    """Make *query* ask for the documents whose list *field* has one of at most 30 *texts*."""
    query.from_.add(collection_id=collection)
    condition = query.where.field_filter
    condition.field.field_path = field
    condition.op = _ARRAY_CONTAINS_ANY
    _fill_texts(condition.value.array_value, texts)


def ask_nearest(
    query: Any,
    collection: str,
    field: str,
    vector: bytes,
    *,
    namespace: str,
    limit: int,
    fields: Iterable[str],
    distance: str,
) -> None:
    """Make *query* ask for those nearest to *vector*, with how far they are in *distance*."""
    query.from_.add(collection_id=collection)
    condition = query.where.field_filter
    condition.field.field_path = "namespace"
    condition.op = _EQUAL
    condition.value.string_value = namespace
    near = query.find_nearest
    near.vector_field.field_path = field
    _fill_vector(near.query_vector, vector)
    near.distance_measure = _COSINE
    near.limit.value = limit
    near.distance_result_field = distance
    for name in fields:
        query.select.fields.add(field_path=name)


def ask_since(
    query: Any, collection: str, since: Since, *, limit: int, fields: Iterable[str], home: str
) -> None:
    """Make *query* ask for the instants of a field, in their order and that of names."""
    query.from_.add(collection_id=collection)
    both = query.where.composite_filter
    both.op = _AND
    for op, bound in (
        (_GREATER_THAN_OR_EQUAL, since.low_us),
        (_LESS_THAN_OR_EQUAL, since.high_us),
    ):
        half = both.filters.add().field_filter
        half.field.field_path = since.field
        half.op = op
        _set_instant(half.value, bound * 1_000)
    for field in (since.field, "__name__"):
        query.order_by.add(direction=_ASCENDING).field.field_path = field
    if since.after_name:
        _set_instant(query.start_at.values.add(), since.after_ns)
        query.start_at.values.add().reference_value = f"{home}{collection}/{since.after_name}"
    query.limit.value = limit
    for name in fields:
        query.select.fields.add(field_path=name)


def _set_instant(value: Any, instant_ns: int) -> None:
    value.timestamp_value.seconds, value.timestamp_value.nanos = divmod(instant_ns, 10**9)
