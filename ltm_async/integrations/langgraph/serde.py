"""What a node cache keeps as JSON: LangGraph's own encoding, which only known types come from."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterable
from typing import Any

from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from ltm_async.errors import CorruptError, InvalidEntryError

ENCODINGS = ("null", "bytes", "bytearray", "msgpack")
"""Those that this serializer writes; LangGraph would read others, which make more of data."""


class _Refused(threading.local):
    """The types that the decoding now under way in this thread may not make."""

    types: set[str] | None = None


_refused = _Refused()


def _note(event: SerdeEvent) -> None:
    if _refused.types is not None and event["kind"].endswith("_blocked"):
        _refused.types.add(f"{event['module']}.{event['name']}")


register_serde_event_listener(_note)


class KnownTypes:
    """Values to JSON and back. Nothing is pickled, and only known types are made from data.

    Known are JSON's types, dates, UUIDs, decimals, sets, paths and the like, LangChain's messages
    and documents, LangGraph's own types, and *more*.
    """

    def __init__(self, more: Iterable[type] = ()) -> None:
        # Given even if empty, since LangGraph's default lets every type in.
        self._serde = JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=tuple(more))

    def encode(self, value: Any) -> dict[str, str]:
        """*value* as JSON.

        Raises:
            InvalidEntryError: It has a type that is not known, so that it would come back changed.
        """
        try:
            encoding, data = self._serde.dumps_typed(value)
        except (TypeError, ValueError) as exc:
            raise InvalidEntryError(f"a cached value cannot be encoded: {exc}") from exc
        _, refused = self._load(encoding, data)
        if refused:
            raise InvalidEntryError(
                f"a cached value has {', '.join(sorted(refused))}, which is made from data only "
                "when it is one of allowed_types"
            )
        return {"encoding": encoding, "data": base64.b64encode(data).decode("ascii")}

    def decode(self, kept: Any) -> Any:
        """The value that was encoded as *kept*.

        Raises:
            CorruptError: It is nothing that :meth:`encode` wrote, or has a type that is not known.
        """
        try:
            encoding, text = kept["encoding"], kept["data"]
            if encoding not in ENCODINGS:
                raise CorruptError("a cached value has an encoding that is not written here")
            value, refused = self._load(encoding, base64.b64decode(text, validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error) as exc:
            raise CorruptError(f"a cached value cannot be decoded: {type(exc).__name__}") from exc
        if refused:
            raise CorruptError(f"a cached value has {', '.join(sorted(refused))}")
        return value

    def _load(self, encoding: str, data: bytes) -> tuple[Any, set[str]]:
        refused = _refused.types = set()
        try:
            return self._serde.loads_typed((encoding, data)), refused
        finally:
            _refused.types = None
