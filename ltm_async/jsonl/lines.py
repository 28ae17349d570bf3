"""One line of an export: made, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from ..entry import MAX_VALUE_BYTES, check_key, encode, encode_metadata, to_expiry
from ..errors import InvalidEntryError
from ..results import RetrieveResult

FORMAT = "ltm-async-export"
VERSION = 1
MAX_LINE_BYTES = 2 * MAX_VALUE_BYTES
"""What is written here is shorter; a line of another's making may be spaced out."""

_FIELDS = frozenset({"key", "value", "metadata", "expires_at"})

_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False
).encode


class InvalidLineError(InvalidEntryError):
    """A line that is no entry; lines before it have been imported.

    Attributes:
        number: Which line, from 1, the header included.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number


def header() -> bytes:
    return line_of({"format": FORMAT, "version": VERSION})


def to_line(entry: RetrieveResult) -> bytes:
    return line_of(
        {
            "key": entry.key,
            "value": entry.value,
            "metadata": dict(entry.metadata),
            "expires_at": None if entry.expires_at is None else to_iso(entry.expires_at),
        }
    )


def to_iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def line_of(fields: dict[str, Any]) -> bytes:
    return _encode(fields).encode() + b"\n"


def check_header(line: bytes) -> None:
    try:
        fields = parse_json(line)
    except InvalidEntryError:
        fields = None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InvalidLineError(1, f"is not the header of a file of the format {FORMAT}")
    if fields.get("version") != VERSION:
        raise InvalidLineError(
            1, f"says another version of the format than {VERSION}: another release made it"
        )


def from_line(line: bytes) -> dict[str, Any]:
    """The entry of one line, as ``store_batch`` takes it; its limits are not checked.

    Raises:
        InvalidEntryError: It is no entry.
    """
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEntryError(f"is longer than {MAX_LINE_BYTES} bytes")
    entry = parse_json(line)
    if not isinstance(entry, dict):
        raise InvalidEntryError("is no JSON object")
    if unknown := entry.keys() - _FIELDS:
        raise InvalidEntryError(f"has {len(unknown)} fields that an entry has not")
    if not isinstance(entry.get("key"), str) or "value" not in entry:
        raise InvalidEntryError("needs the fields 'key', a text, and 'value'")
    return {
        "key": entry["key"],
        "value": entry["value"],
        "metadata": entry.get("metadata"),
        "expires_at": _from_iso(entry.get("expires_at")),
    }


def _from_iso(text: object) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text if isinstance(text, str) else "")
        if instant.utcoffset() is None:
            raise ValueError
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidEntryError(
            "has an expires_at that is no instant with its time zone, such as 2026-01-31T12:00:00Z"
        ) from None


def check_limits(entry: Mapping[str, Any]) -> None:
    check_key(entry["key"])
    encode("value", entry["value"])
    encode_metadata(entry["metadata"])
    to_expiry(expires_at=entry["expires_at"])


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0.0:  # 1e999 is infinite
        raise ValueError("a number is out of range")
    return number


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode


def parse_json(data: bytes | str) -> Any:
    """The value of JSON text, without a word of it in the error.

    Raises:
        InvalidEntryError: It is not JSON, or holds NaN, infinity or a number beyond limits.
    """
    try:
        return _decode(data if isinstance(data, str) else data.decode())
    except UnicodeDecodeError:
        raise InvalidEntryError("not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise InvalidEntryError(f"not JSON from character {exc.pos + 1} on") from None
    except RecursionError:
        raise InvalidEntryError("nested too deep") from None
    except ValueError:
        raise InvalidEntryError("a number that cannot be kept: NaN, infinite or huge") from None
