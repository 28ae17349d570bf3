"""The messages of google.firestore.v1 as far as we use them, declared by their fields' numbers.

https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1 describes them. What is
not declared here is passed over when it is read. They are in a pool of their own, so that Google's
declarations, of the same names, may be in the same process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "google.firestore.v1"
_KNOWN = (timestamp_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)
_TIMESTAMP = "google.protobuf.Timestamp"


class Field(NamedTuple):
    number: int
    name: str
    kind: str
    """A scalar, one of `MESSAGES`, or the full name of a known message."""
    oneof: str = ""
    many: bool = False


MESSAGES: dict[str, tuple[Field, ...]] = {
    "Value": (
        Field(11, "null_value", "int32", "value_type"),  # an enum of one name, for zero
        Field(1, "boolean_value", "bool", "value_type"),
        Field(2, "integer_value", "int64", "value_type"),
        Field(3, "double_value", "double", "value_type"),
        Field(17, "string_value", "string", "value_type"),
        Field(9, "array_value", "ArrayValue", "value_type"),
        Field(5, "reference_value", "string", "value_type"),
        Field(6, "map_value", "MapValue", "value_type"),
        Field(10, "timestamp_value", _TIMESTAMP, "value_type"),
    ),
    "ArrayValue": (Field(1, "values", "Value", many=True),),
    "MapValue": (Field(1, "fields", "MapValue.FieldsEntry", many=True),),
    "MapValue.FieldsEntry": (Field(1, "key", "string"), Field(2, "value", "Value")),
    "Document": (
        Field(1, "name", "string"),
        Field(2, "fields", "Document.FieldsEntry", many=True),
        Field(4, "update_time", _TIMESTAMP),
    ),
    "Document.FieldsEntry": (Field(1, "key", "string"), Field(2, "value", "Value")),
    "DocumentMask": (Field(1, "field_paths", "string", many=True),),
    "Precondition": (
        Field(1, "exists", "bool", "condition_type"),
        Field(2, "update_time", _TIMESTAMP, "condition_type"),
    ),
    "DocumentTransform": (),
    "DocumentTransform.FieldTransform": (
        Field(1, "field_path", "string"),
        Field(2, "set_to_server_value", "int32", "transform_type"),
    ),
    "Cursor": (Field(1, "values", "Value", many=True), Field(2, "before", "bool")),
    "Write": (
        Field(1, "update", "Document", "operation"),
        Field(2, "delete", "string", "operation"),
        Field(3, "update_mask", "DocumentMask"),
        Field(4, "current_document", "Precondition"),
        Field(7, "update_transforms", "DocumentTransform.FieldTransform", many=True),
    ),
    "CommitRequest": (Field(1, "database", "string"), Field(2, "writes", "Write", many=True)),
    "CommitResponse": (Field(2, "commit_time", _TIMESTAMP),),
    "BatchGetDocumentsRequest": (
        Field(1, "database", "string"),
        Field(2, "documents", "string", many=True),
        Field(3, "mask", "DocumentMask"),
    ),
    "BatchGetDocumentsResponse": (
        Field(1, "found", "Document", "result"),
        Field(2, "missing", "string", "result"),
        Field(4, "read_time", _TIMESTAMP),
    ),
    "StructuredQuery": (
        Field(1, "select", "StructuredQuery.Projection"),
        Field(2, "from_", "StructuredQuery.CollectionSelector", many=True),
        Field(3, "where", "StructuredQuery.Filter"),
        Field(4, "order_by", "StructuredQuery.Order", many=True),
        Field(5, "limit", "google.protobuf.Int32Value"),
        Field(7, "start_at", "Cursor"),
        Field(9, "find_nearest", "StructuredQuery.FindNearest"),
    ),
    "StructuredQuery.FieldReference": (Field(2, "field_path", "string"),),
    "StructuredQuery.Projection": (
        Field(2, "fields", "StructuredQuery.FieldReference", many=True),
    ),
    "StructuredQuery.CollectionSelector": (Field(2, "collection_id", "string"),),
    "StructuredQuery.Filter": (
        Field(1, "composite_filter", "StructuredQuery.CompositeFilter", "filter_type"),
        Field(2, "field_filter", "StructuredQuery.FieldFilter", "filter_type"),
    ),
    "StructuredQuery.CompositeFilter": (
        Field(1, "op", "int32"),
        Field(2, "filters", "StructuredQuery.Filter", many=True),
    ),
    "StructuredQuery.FieldFilter": (
        Field(1, "field", "StructuredQuery.FieldReference"),
        Field(2, "op", "int32"),
        Field(3, "value", "Value"),
    ),
    "StructuredQuery.Order": (
        Field(1, "field", "StructuredQuery.FieldReference"),
        Field(2, "direction", "int32"),
    ),
    "StructuredQuery.FindNearest": (
        Field(1, "vector_field", "StructuredQuery.FieldReference"),
        Field(2, "query_vector", "Value"),
        Field(3, "distance_measure", "int32"),
        Field(4, "limit", "google.protobuf.Int32Value"),
        Field(5, "distance_result_field", "string"),
    ),
    "RunQueryRequest": (
        Field(1, "parent", "string"),
        Field(2, "structured_query", "StructuredQuery", "query_type"),
    ),
    "RunQueryResponse": (
        Field(1, "document", "Document"),
        Field(3, "read_time", _TIMESTAMP),
    ),
    "StructuredAggregationQuery": (
        Field(1, "structured_query", "StructuredQuery", "query_type"),
        Field(3, "aggregations", "StructuredAggregationQuery.Aggregation", many=True),
    ),
    "StructuredAggregationQuery.Aggregation": (
        Field(1, "count", "StructuredAggregationQuery.Aggregation.Count", "operator"),
        Field(7, "alias", "string"),
    ),
    "StructuredAggregationQuery.Aggregation.Count": (
        Field(1, "up_to", "google.protobuf.Int64Value"),
    ),
    "RunAggregationQueryRequest": (
        Field(1, "parent", "string"),
        Field(2, "structured_aggregation_query", "StructuredAggregationQuery", "query_type"),
    ),
    "AggregationResult": (
        Field(2, "aggregate_fields", "AggregationResult.AggregateFieldsEntry", many=True),
    ),
    "AggregationResult.AggregateFieldsEntry": (
        Field(1, "key", "string"),
        Field(2, "value", "Value"),
    ),
    "RunAggregationQueryResponse": (
        Field(1, "result", "AggregationResult"),
        Field(3, "read_time", _TIMESTAMP),
    ),
}
"""Enums are declared as the numbers they are sent as."""
_SCALARS = {
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "string": FieldDescriptorProto.TYPE_STRING,
}


def message_classes() -> dict[str, type[Any]]:
    """The classes of `MESSAGES`, by name."""
    file = FileDescriptorProto(name="firestore.proto", package=PACKAGE, syntax="proto3")
    declared: dict[str, DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        nest = declared[outer].nested_type if outer else file.message_type
        message = declared[name] = nest.add(name=inner)
        if inner.endswith("Entry"):
            message.options.map_entry = True
        for field in fields:
            _declare(message, field)
    pool = DescriptorPool()
    for known in _KNOWN:
        pool.AddSerializedFile(known.serialized_pb)
        file.dependency.append(known.name)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES
    }


def _declare(message: DescriptorProto, field: Field) -> None:
    label = (
        FieldDescriptorProto.LABEL_REPEATED if field.many else FieldDescriptorProto.LABEL_OPTIONAL
    )
    made = message.field.add(name=field.name, number=field.number, label=label)
    if field.kind in _SCALARS:
        made.type = _SCALARS[field.kind]
    else:
        made.type = FieldDescriptorProto.TYPE_MESSAGE
        made.type_name = f".{PACKAGE}.{field.kind}" if field.kind in MESSAGES else f".{field.kind}"
    if field.oneof:
        known = [oneof.name for oneof in message.oneof_decl]
        if field.oneof not in known:
            known.append(field.oneof)
            message.oneof_decl.add(name=field.oneof)
        made.oneof_index = known.index(field.oneof)
