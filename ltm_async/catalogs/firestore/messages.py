"""Fields as protobuf has them, and as we do: texts, lists of them, whole numbers, true or false,
and nothing. Lists are written and looked up, never read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .layout import Data, Document, Range

FOREIGN = object()
"""Stands for a value of a kind that we never write."""
_OURS = {"string_value", "integer_value", "boolean_value"}
_AND = 1
_LESS_THAN = 1
_GREATER_THAN_OR_EQUAL = 4
_ARRAY_CONTAINS_ANY = 9
_ASCENDING = 1


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
        else:
            fields[name].integer_value = value


def _fill_texts(array: Any, texts: Sequence[str]) -> None:
    for text in texts:
        array.values.add().string_value = text


def document(message: Any) -> Document:
    data: dict[str, Any] = {}
    fields = message.fields
    for name in fields:  # its items() takes twice as long
        value = fields[name]
        kind = value.WhichOneof("value_type")
        if kind in _OURS:
            data[name] = getattr(value, kind)
        else:
            data[name] = None if kind == "null_value" else FOREIGN
    updated = message.update_time
    return Document(message.name.rpartition("/")[2], data, updated, to_us(updated))


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
