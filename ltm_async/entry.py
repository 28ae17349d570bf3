"""What may be stored: limits, checks, the canonical encoding and its hash.

Everything a user can get wrong about a key, a value, metadata or a TTL is found here,
before any store is called.
"""

from __future__ import annotations

import hashlib
import json
import json.encoder
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn, TypeAlias

from .errors import CorruptError, InvalidEntryError

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

MAX_KEY_BYTES = 1024
"""In UTF-8. A PostgreSQL index row holds at most 2,704 bytes, namespace and key together."""
MAX_NAMESPACE_BYTES = 256
MAX_METADATA_BYTES = 16 * 1024
MAX_VALUE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 500
MAX_TTL_S = 100 * 366 * 86_400

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
"""The instants that a datetime holds."""
_SCALARS = frozenset({str, int, float, bool, type(None)})
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BLOB_ID = re.compile(r"[0-9a-f]{16}-[0-9a-z]{20,64}")

_encoder = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=True,
    allow_nan=False,
    check_circular=False,  # check_json has walked the value already
)


def _make_encode() -> Callable[[object], str]:
    """``_encoder.encode``, without the C encoder it makes for each call: a third of its time."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _encoder.encode
    to_text = json.encoder.encode_basestring_ascii
    chunks = make(None, _encoder.default, to_text, None, ":", ",", True, False, False)
    return lambda value: "".join(chunks(value, 0))


_encode = _make_encode()


class Expiry(NamedTuple):
    """When an entry ends: after a time the catalog's clock measures, or at an instant."""

    ttl_us: int | None = None
    """Microseconds from the catalog's now; None when *at_us* says it, or for ever."""
    at_us: int | None = None
    """Microseconds since the epoch, UTC."""

    def resolve(self, now_us: int) -> int | None:
        """The instant in microseconds since the epoch, or None for ever."""
        return self.at_us if self.ttl_us is None else now_us + self.ttl_us


NEVER = Expiry()


def check_text(name: str, text: object, limit: int) -> None:
    """Refuse what no store can keep as text: NUL, lone surrogates, more than *limit* bytes."""
    if type(text) is str and text.isascii() and len(text) <= limit and "\0" not in text:
        return  # most are; the rest is for what may be wrong, and to say what
    if type(text) is not str:
        raise InvalidEntryError(f"{name} must be str, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidEntryError(f"{name} has a lone surrogate, which is no text") from None
    if size > limit:
        raise InvalidEntryError(f"{name} has {size} bytes in UTF-8, the limit is {limit}")
    if "\0" in text:
        raise InvalidEntryError(f"{name} has a NUL character")


def check_key(key: object, name: str = "key") -> None:
    check_text(name, key, MAX_KEY_BYTES)
    if not key:
        raise InvalidEntryError(f"{name} is empty, it needs 1 to {MAX_KEY_BYTES} bytes")


def last_key(keys: Sequence[str]) -> str:
    """The last of *keys*, as rows have them, that can be one.

    Raises:
        CorruptError: None can.
    """
    for key in reversed(keys):
        try:
            check_key(key)
        except InvalidEntryError:
            continue
        return key
    raise CorruptError(f"a whole page of {len(keys)} rows has no key that can be one")


def check_json(name: str, value: object) -> None:
    """Refuse what JSON would change or lose: what goes in must come back equal.

    Walks level by level, so that a value nested too deep is refused, not followed.
    """
    scalars = _SCALARS  # a local name: this runs for every part of every value
    if type(value) in scalars:
        return
    level: list[object] = [value]
    items_seen = 0
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for node in level:
            kind = type(node)
            if kind is dict:
                for key in node:  # type: ignore[attr-defined]
                    if type(key) is not str:
                        raise InvalidEntryError(f"{name} has a dict key that is not str")
                items: Any = node.values()  # type: ignore[attr-defined]
            elif kind is list:
                items = node
            else:
                _refuse_type(name, node)
            items_seen += len(items)
            if 2 * items_seen > MAX_VALUE_BYTES:  # each needs two bytes; shared nodes multiply
                raise InvalidEntryError(f"{name} is over the limit of {MAX_VALUE_BYTES} bytes")
            for item in items:
                if type(item) not in scalars:
                    below.append(item)  # noqa: PERF401  # most have none, and need no list
        if not below:
            return
        level = below
    raise InvalidEntryError(f"{name} is nested deeper than {MAX_DEPTH} levels, or contains itself")


def _refuse_type(name: str, node: object) -> NoReturn:
    kind = type(node).__name__
    if isinstance(node, tuple):
        hint = "; it would come back as a list, so pass a list"
    elif isinstance(node, (dict, list, str, int, float)):
        hint = "; it would come back as its plain base type, so convert it first"
    else:
        hint = "; only dict, list, str, int, float, bool and None can be stored"
    raise InvalidEntryError(f"{name} has a {kind}{hint}")


def encode(name: str, value: object, limit: int = MAX_VALUE_BYTES) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII-escaped, so characters are bytes."""
    check_json(name, value)
    try:
        text = _encode(value)
    except ValueError as exc:
        why = "NaN or infinity" if "float" in str(exc) else "an integer of over 4300 digits"
        raise InvalidEntryError(f"{name} has {why}, which JSON cannot hold") from exc
    except RecursionError:
        raise InvalidEntryError(f"{name} is nested deeper than this thread's stack") from None
    if len(text) > limit:
        raise InvalidEntryError(f"{name} has {len(text)} bytes as JSON, the limit is {limit}")
    if "\\ud" in text and any(map(_SURROGATE_PAIR.search, _strings(value))):
        raise InvalidEntryError(
            f"{name} has a surrogate pair as two characters; it would come back as one"
        )
    return text


def _strings(value: object) -> Iterator[str]:
    """Every string in *value*, keys included."""
    nodes: list[object] = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, Mapping):
            nodes += node
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0.0:  # 1e999 is infinite
        raise ValueError("a number is out of range")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]


def decode(text: str) -> Any:
    """The value of canonical JSON *text*; raises CorruptError on anything else."""
    try:
        value, end = _scan(text, 0)
    except (ValueError, RecursionError, StopIteration) as exc:
        raise CorruptError(f"stored text is not JSON: {type(exc).__name__}") from None
    if end != len(text):
        raise CorruptError("stored text has characters after its JSON")
    if end > MAX_DEPTH and _has_brackets(text, MAX_DEPTH + 1):
        try:
            check_json("stored text", value)
        except InvalidEntryError as exc:
            raise CorruptError(str(exc)) from None
    return value


def _has_brackets(text: str, count: int) -> bool:
    """Whether *text* has so many; where there are fewer, nothing is nested so deep."""
    if len(text) < 4096:
        return text.count("[") + text.count("{") >= count
    # A tenth of the time of counting in long texts, which have few for their length.
    for bracket in "[{":
        place = text.find(bracket)
        while place >= 0:
            count -= 1
            if not count:
                return True
            place = text.find(bracket, place + 1)
    return False


def hash_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compute_content_hash(value: object) -> str:
    """``"sha256:"`` and the hex SHA-256 of *value*'s canonical JSON.

    Raises:
        InvalidEntryError: *value* cannot be stored.
    """
    return hash_of(encode("value", value).encode())


def encode_metadata(metadata: object, name: str = "metadata") -> str:
    if metadata is None:
        return "{}"
    if not isinstance(metadata, Mapping):
        raise InvalidEntryError(f"{name} must be a mapping, not {type(metadata).__name__}")
    text = encode(name, dict(metadata), MAX_METADATA_BYTES)
    if "\\u" in text:  # only what is escaped can hold NUL or a lone surrogate
        for part in _strings(metadata):  # which values keep, and a column that is filtered cannot
            check_text(name, part, MAX_METADATA_BYTES)
    return text


def to_expiry(ttl: object = None, expires_at: object = None) -> Expiry:
    """The expiry that ``ttl`` (seconds or timedelta) or ``expires_at`` (aware) asks for."""
    if ttl is not None and expires_at is not None:
        raise InvalidEntryError("ttl and expires_at exclude each other")
    if isinstance(ttl, datetime):
        ttl, expires_at = None, ttl
    if expires_at is not None:
        if not isinstance(expires_at, datetime):
            kind = type(expires_at).__name__
            raise InvalidEntryError(f"expires_at must be a datetime, not {kind}")
        if expires_at.utcoffset() is None:
            raise InvalidEntryError("expires_at has no time zone; use datetime.now(UTC) + …")
        try:
            at_us = (expires_at.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        except OverflowError:
            raise InvalidEntryError("expires_at is outside the years 1 to 9999 in UTC") from None
        return Expiry(at_us=at_us)
    if ttl is None:
        return NEVER
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise InvalidEntryError(f"ttl must be seconds or a timedelta, not {type(ttl).__name__}")
    if not 0 < ttl <= MAX_TTL_S:  # NaN is not
        raise InvalidEntryError(
            f"ttl is {shown(ttl)} s, it must be above 0 and at most {MAX_TTL_S}"
        )
    return Expiry(ttl_us=max(1, round(ttl * 1_000_000)))


def to_datetime(instant_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant_us)


def shown(value: object) -> str:
    """A bad argument for an error message, in short."""
    try:
        return repr(value)[:40]
    except ValueError:  # an integer of over 4300 digits
        return f"a huge {type(value).__name__}"


def one_line(text: str) -> str:
    """*text* for a log or a terminal: what could begin a line of its own, or steer, is a space."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def new_blob_id(content_hash: str) -> str:
    """A name for one upload attempt, never used again."""
    digest = content_hash.rpartition(":")[2]
    return f"{digest[:16]}-{os.urandom(16).hex()}"


def namespace_path(namespace: str) -> str:
    """The folder of a namespace's blobs: a hash, so that no two collide on any file system."""
    return hashlib.sha256(namespace.encode()).hexdigest()[:32] + "/"


def is_blob_id(text: str) -> bool:
    """Whether :func:`new_blob_id` could have made it."""
    return _BLOB_ID.fullmatch(text) is not None


def blob_path(namespace: str, blob_id: str) -> str:
    """Where a blob lies below the store's prefix.

    Rows are untrusted: a name that we could not have made is refused, so that no row
    can lead out of its namespace.
    """
    if not is_blob_id(blob_id):
        raise CorruptError("a row names a blob that this library cannot have written")
    return namespace_path(namespace) + blob_id


def prefix_end(prefix: str) -> str | None:
    """The first text after all that start with *prefix*, or None when there is none."""
    for cut in range(len(prefix), 0, -1):
        code = ord(prefix[cut - 1]) + 1
        if code == 0xD800:  # surrogates are no text
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[: cut - 1] + chr(code)
    return None
