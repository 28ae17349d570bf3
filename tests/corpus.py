"""What may be stored and what may not: one corpus for every pair of stores."""

from __future__ import annotations

import collections
import decimal
import enum
import struct
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

NAN, INF = float("nan"), float("inf")


class Text(str):
    """A subclass would come back as plain ``str``."""

    __slots__ = ()


class Number(enum.IntEnum):
    ONE = 1


def same(one: object, other: object) -> bool:
    """Equal in value and in type all the way down, the sign of zero included."""
    todo = [(one, other)]
    while todo:
        one, other = todo.pop()
        if type(one) is not type(other):
            return False
        if isinstance(one, float) and isinstance(other, float):
            one, other = struct.pack("d", one), struct.pack("d", other)
        elif isinstance(one, list) and isinstance(other, list):
            todo += zip(one, other, strict=False)
            one, other = len(one), len(other)
        elif isinstance(one, dict) and isinstance(other, dict):
            todo += ((one[key], other[key]) for key in one.keys() & other.keys())
            one, other = one.keys(), other.keys()
        if one != other:
            return False
    return True


def nested(depth: int, *, of: type[list[Any]] | type[dict[str, Any]] = list) -> Any:
    value: Any = of()
    for _ in range(depth - 1):
        value = [value] if of is list else {"k": value}
    return value


def contains_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def text_of(byte_size: int) -> str:
    """A value with *byte_size* bytes as JSON."""
    return "x" * (byte_size - 2)


def said(exc: BaseException | None) -> str:
    """All that *exc* and what is shown to have led to it tell people."""
    parts: list[str] = []
    while exc is not None:
        parts += [str(exc), repr(exc), *getattr(exc, "__notes__", ())]
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    return "\n".join(parts)


# Keys. The braces stand for what the argument is called there.

BAD_KEYS: Mapping[str, tuple[Any, str]] = {
    "empty": ("", "{} is empty, it needs 1 to 1024 bytes"),
    "NUL": ("a\0b", "{} has a NUL character"),
    "only NUL": ("\0", "{} has a NUL character"),
    "lone surrogate": ("a\ud800", "{} has a lone surrogate, which is no text"),
    "1,025 bytes": ("k" * 1025, "{} has 1025 bytes in UTF-8, the limit is 1024"),
    "513 characters": ("ü" * 513, "{} has 1026 bytes in UTF-8, the limit is 1024"),
    "int": (7, "{} must be str, not int"),
    "None": (None, "{} must be str, not NoneType"),
    "bytes": (b"k", "{} must be str, not bytes"),
    "tuple": (("k",), "{} must be str, not tuple"),
    "subclass": (Text("k"), "{} must be str, not Text"),
}

INJECTIONS = (
    "'; DROP TABLE ltm_entries; --",
    "' OR '1'='1",
    '"',
    "'",
    "`",
    "\\",
    "%",
    "_",
    "*",
    "?",
    "?1",
    ":namespace",
    "$.a",
    "$",
    "{}",
    "{0}",
    "%s",
    ",().:*",
    "eq.1",
    "key=eq.1&limit=1",
    "null",
    "NULL",
    "0",
    "true",
    "[]",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a/b",
    ".",
    "..",
    "~",
    "${HOME}",
    "$(id)",
    "\n",
    "a\nb",
    "\r\n",
    "\t",
    "\x01",
    "\x7f",
    " ",
    "trailing ",
    "\ufeff",
    "\u2028",
    "\uffff",
    "\U0010ffff",
    "👩‍👩‍👧‍👦",
    "ключ",
    "مفتاح",
)

GOOD_KEYS = (
    *INJECTIONS,
    "k",
    "K",
    "caf\u00e9",  # composed
    "cafe\u0301",  # decomposed: looks the same, is another key
    "k" * 1023,
    "k" * 1024,
    "ü" * 512,
    "😀" * 256,
)

# Values

_ONLY = "only dict, list, str, int, float, bool and None can be stored"
_BASE = "it would come back as its plain base type, so convert it first"
_NO_NUMBER = "NaN or infinity, which JSON cannot hold"
_TOO_DEEP = "nested deeper than 500 levels, or contains itself"

BAD_VALUES: Mapping[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: NAN, f"value has {_NO_NUMBER}"),
    "infinity": (lambda: {"a": [INF]}, f"value has {_NO_NUMBER}"),
    "-infinity": (lambda: [-INF], f"value has {_NO_NUMBER}"),
    "10**4300": (
        lambda: [10**4300],
        "value has an integer of over 4300 digits, which JSON cannot hold",
    ),
    "501 lists": (
        lambda: nested(501),
        f"value is {_TOO_DEEP}",
    ),
    "501 dicts": (
        lambda: nested(501, of=dict),
        f"value is {_TOO_DEEP}",
    ),
    "10,000 lists": (
        lambda: nested(10_000),
        f"value is {_TOO_DEEP}",
    ),
    "cycle": (contains_itself, f"value is {_TOO_DEEP}"),
    "surrogate pair": (
        lambda: ["\ud83d" + "\ude00"],
        "value has a surrogate pair as two characters; it would come back as one",
    ),
    "surrogate pair in a key": (
        lambda: {"\ud83d" + "\ude00": 1},
        "value has a surrogate pair as two characters; it would come back as one",
    ),
    "int and str keys": (lambda: {1: "a", "1": "b"}, "value has a dict key that is not str"),
    "None as key": (lambda: [{None: 1}], "value has a dict key that is not str"),
    "subclass as key": (lambda: {Text("k"): 1}, "value has a dict key that is not str"),
    "set": (
        lambda: {1},
        f"value has a set; {_ONLY}",
    ),
    "bytes": (
        lambda: [b"x"],
        f"value has a bytes; {_ONLY}",
    ),
    "datetime": (
        lambda: {"at": datetime.now(UTC)},
        f"value has a datetime; {_ONLY}",
    ),
    "date": (
        lambda: date(2025, 1, 1),
        f"value has a date; {_ONLY}",
    ),
    "Decimal": (
        lambda: decimal.Decimal(1),
        f"value has a Decimal; {_ONLY}",
    ),
    "complex": (
        lambda: 1j,
        f"value has a complex; {_ONLY}",
    ),
    "UUID": (
        lambda: uuid.UUID(int=0),
        f"value has a UUID; {_ONLY}",
    ),
    "generator": (
        lambda: (number for number in range(1)),
        f"value has a generator; {_ONLY}",
    ),
    "class": (
        lambda: int,
        f"value has a type; {_ONLY}",
    ),
    "tuple": (lambda: [(1, 2)], "value has a tuple; it would come back as a list, so pass a list"),
    "enum": (
        lambda: Number.ONE,
        f"value has a Number; {_BASE}",
    ),
    "str subclass": (
        lambda: [Text("x")],
        f"value has a Text; {_BASE}",
    ),
    "OrderedDict": (
        lambda: collections.OrderedDict(a=1),
        f"value has a OrderedDict; {_BASE}",
    ),
    "64 MiB and a byte": (
        lambda: text_of(64 * 1024 * 1024 + 1),
        "value has 67108865 bytes as JSON, the limit is 67108864",
    ),
}

GOOD_VALUES: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "0": 0,
    "0.0": 0.0,
    "-0.0": -0.0,
    "1 and 1.0 and true": [1, 1.0, True],
    "2**53 + 1": 2**53 + 1,
    "2**64": 2**64,
    "-2**63": -(2**63),
    "10**4000": 10**4000,
    "10**4299": 10**4299,
    "floats": [0.1, 1e308, 5e-324, -1.5e-7, 1e22, 2.0**53],
    "empty": ["", [], {}, [[]], {"": {}}],
    "lone surrogates": ["\ud800", "\udfff", "a\udc00b", {"\ud800": "\udc00"}],
    "surrogates the wrong way round": "\udc00\ud800",
    "NUL": ["\0", "a\0b", {"\0": "\0"}],
    "control characters": "".join(map(chr, range(32))) + "\x7f\u2028\u2029",
    "beyond the BMP": "😀\U0010ffff",
    "NFC and NFD": {"caf\u00e9": 1, "cafe\u0301": 2},
    "quotes": "\"\\'`/\\u0041",
    "looks like JSON": '{"a": [1, NaN]}',
    "looks like a row": {"key": "k", "value": 1, "blob_id": "../../etc/passwd"},
    "injections": list(INJECTIONS),
    "injections as keys": dict.fromkeys(INJECTIONS, 1),
    "499 lists": nested(499),  # a test wraps them once more
    "499 dicts": nested(499, of=dict),
    "shared": [[1, 2]] * 3,
    "large": {"text": "ü\0\ud800" * 5_000, "-0.0": -0.0, "int": 10**4000},
}

# Metadata

BAD_METADATA: Mapping[str, tuple[Any, str]] = {
    "list": ([], "metadata must be a mapping, not list"),
    "text": ("{}", "metadata must be a mapping, not str"),
    "int": (0, "metadata must be a mapping, not int"),
    "non-str key": ({1: 1}, "metadata has a dict key that is not str"),
    "NaN": ({"a": NAN}, f"metadata has {_NO_NUMBER}"),
    "set": (
        {"a": {1}},
        f"metadata has a set; {_ONLY}",
    ),
    "depth": (
        nested(501, of=dict),
        f"metadata is {_TOO_DEEP}",
    ),
    "NUL": ({"a": ["x\0"]}, "metadata has a NUL character"),
    "NUL in a key": ({"a": {"x\0": 1}}, "metadata has a NUL character"),
    "lone surrogate": ({"a": "\ud800"}, "metadata has a lone surrogate, which is no text"),
    "16 KiB and a byte": (
        {"m": "x" * (16 * 1024 - 7)},
        "metadata has 16385 bytes as JSON, the limit is 16384",
    ),
}

GOOD_METADATA: Mapping[str, Mapping[str, Any]] = {
    "empty": {},
    "injections": {text: text for text in INJECTIONS},
    "nested": {"a": {"b": [None, True, -0.0, 2**64]}},
    "500 levels": {"ü": nested(499, of=dict)},
    "NFC and NFD": {"caf\u00e9": "cafe\u0301", "cafe\u0301": "caf\u00e9"},
    "no dict": collections.ChainMap({"a": 1}, {"b": 2}),
    "16 KiB": {"m": "x" * (16 * 1024 - 8)},
}

# Ends

_TTL_RANGE = "it must be above 0 and at most 3162240000"

BAD_ENDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "0": ({"ttl": 0}, f"ttl is 0 s, {_TTL_RANGE}"),
    "-0.0": ({"ttl": -0.0}, f"ttl is -0.0 s, {_TTL_RANGE}"),
    "-1": ({"ttl": -1}, f"ttl is -1 s, {_TTL_RANGE}"),
    "NaN": ({"ttl": NAN}, f"ttl is nan s, {_TTL_RANGE}"),
    "infinity": ({"ttl": INF}, f"ttl is inf s, {_TTL_RANGE}"),
    "over 100 years": ({"ttl": 100 * 366 * 86_400 + 1}, f"ttl is 3162240001 s, {_TTL_RANGE}"),
    "no timedelta": ({"ttl": timedelta(0)}, f"ttl is 0.0 s, {_TTL_RANGE}"),
    "timedelta back": ({"ttl": timedelta(seconds=-1)}, f"ttl is -1.0 s, {_TTL_RANGE}"),
    "bool": ({"ttl": True}, "ttl must be seconds or a timedelta, not bool"),
    "text": ({"ttl": "60"}, "ttl must be seconds or a timedelta, not str"),
    "Decimal": ({"ttl": decimal.Decimal(60)}, "ttl must be seconds or a timedelta, not Decimal"),
    "naive": (
        {"expires_at": datetime(2099, 1, 1)},  # noqa: DTZ001  # what is tested
        "expires_at has no time zone; use datetime.now(UTC) + …",
    ),
    "date": ({"expires_at": date(2099, 1, 1)}, "expires_at must be a datetime, not date"),
    "seconds since the epoch": (
        {"expires_at": 4_000_000_000},
        "expires_at must be a datetime, not int",
    ),
    "ISO text": (
        {"expires_at": "2099-01-01T00:00:00Z"},
        "expires_at must be a datetime, not str",
    ),
    "both": (
        {"ttl": 60, "expires_at": datetime(2099, 1, 1, tzinfo=UTC)},
        "ttl and expires_at exclude each other",
    ),
}

# Batches

BAD_BATCHES: Mapping[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "entries must be an iterable of mappings, not NoneType"),
    "text": (lambda: "key", "entries must be an iterable of mappings, not str"),
    "bytes": (lambda: b"key", "entries must be an iterable of mappings, not bytes"),
    "one entry": (
        lambda: {"key": "k", "value": 1},
        "entries must be an iterable of mappings, not dict",
    ),
    "int": (lambda: 1, "entries must be an iterable of mappings, not int"),
    "a pair": (lambda: [("k", 1)], "entries[0]: must be a mapping, not tuple"),
    "a key alone": (
        lambda: [{"key": "k", "value": 1}, "k2"],
        "entries[1]: must be a mapping, not str",
    ),
    "a misspelt field": (
        lambda: [{"key": "k", "vlaue": 1}],
        "entries[0]: has an unknown field 'vlaue', did you mean 'value'?",
    ),
    "a strange field": (
        lambda: [{"key": "k", "value": 1, "xyzzy": 1}],
        "entries[0]: has an unknown field 'xyzzy'; there are key, value, metadata, ttl, expires_at",
    ),
    "a field that is no text": (
        lambda: [{"key": "k", "value": 1, 0: 1}],
        "entries[0]: has an unknown field '0'; there are key, value, metadata, ttl, expires_at",
    ),
    "no value": (lambda: [{"key": "k"}], "entries[0]: needs the fields 'key' and 'value'"),
    "no key": (lambda: [{"value": 1}], "entries[0]: needs the fields 'key' and 'value'"),
    "nothing": (lambda: [{}], "entries[0]: needs the fields 'key' and 'value'"),
    "a key twice": (
        lambda: [{"key": key, "value": 1} for key in "abca"],
        "entries[3]: key appears twice in one call",
    ),
    "the last of 601": (
        lambda: ({"key": str(n), "value": 1 if n < 600 else {1}} for n in range(601)),
        f"entries[600]: value has a set; {_ONLY}",
    ),
}
