"""Checking, encoding and hashing what is to be stored, before any store is called."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping

from .entry import NEVER, Expiry, check_key, encode, encode_metadata, hash_of, shown, to_expiry
from .errors import InvalidEntryError
from .hashing import ON_LOOP_BYTES, content_hash

PAUSE_EVERY_BYTES = 256 * 1024
"""Encoding is done on the loop; others get a turn each time this much has been encoded."""
PAUSE_EVERY_ENTRIES = 100

_FIELDS = dict.fromkeys(("key", "value", "metadata", "ttl", "expires_at"))


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class Draft:
    """An entry that has passed every check and waits to be written."""

    key: str
    value: object
    metadata: str
    expiry: Expiry
    if_version: int | None
    content_hash: str
    byte_size: int
    text: str | None
    """Its canonical JSON, or None where keeping it would go over the memory limit."""

    def encoded(self) -> str:
        if self.text is not None:
            return self.text
        text = encode("value", self.value)
        if hash_of(text.encode()) != self.content_hash:
            raise InvalidEntryError("a value was changed while it was being stored")
        return text


def draft_one(
    key: object,
    value: object,
    metadata: object,
    ttl: object,
    expires_at: object,
    if_version: int | None,
) -> Draft:
    """Check and encode one entry; its hash is still to be taken, by ``hashed``."""
    check_key(key)
    text = encode("value", value)
    return Draft(
        key,  # type: ignore[arg-type]  # checked
        value,
        "{}" if metadata is None else encode_metadata(metadata),
        NEVER if ttl is None and expires_at is None else to_expiry(ttl, expires_at),
        if_version,
        hash_of(text.encode()) if len(text) <= ON_LOOP_BYTES else "",
        len(text),
        text,
    )


async def hashed(draft: Draft) -> Draft:
    """*draft* with its hash, which is taken in a thread for a large value."""
    if not draft.content_hash and draft.text is not None:
        draft.content_hash = await content_hash(draft.text.encode())
    return draft


async def draft_all(entries: Iterable[Mapping[str, object]], *, keep_bytes: int) -> list[Draft]:
    """Check, encode and hash every entry; the first *keep_bytes* of encodings are kept."""
    if isinstance(entries, (str, bytes, Mapping)) or not isinstance(entries, Iterable):
        raise InvalidEntryError(f"entries must be an iterable of mappings, not {_kind(entries)}")
    drafts: dict[str, Draft] = {}
    since_pause = 0
    for number, entry in enumerate(entries):
        try:
            draft = _draft_entry(entry)
        except InvalidEntryError as exc:
            raise InvalidEntryError(f"entries[{number}]: {exc}") from exc
        if not draft.content_hash:
            await hashed(draft)
        if draft.key in drafts:
            raise InvalidEntryError(f"entries[{number}]: key appears twice in one call")
        if draft.byte_size <= keep_bytes:
            keep_bytes -= draft.byte_size
        else:
            keep_bytes = 0
            draft.text = None
        drafts[draft.key] = draft
        since_pause += draft.byte_size
        if since_pause >= PAUSE_EVERY_BYTES or len(drafts) % PAUSE_EVERY_ENTRIES == 0:
            since_pause = 0
            await asyncio.sleep(0)
    return list(drafts.values())


def _draft_entry(entry: object) -> Draft:
    if type(entry) is not dict and not isinstance(entry, Mapping):  # an ABC is slow to ask
        raise InvalidEntryError(f"must be a mapping, not {_kind(entry)}")
    if not _FIELDS.keys() >= entry.keys():
        import difflib

        unknown = next(field for field in entry if field not in _FIELDS)
        field = unknown[:60] if isinstance(unknown, str) else shown(unknown)
        near = difflib.get_close_matches(field, _FIELDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(_FIELDS)}"
        raise InvalidEntryError(f"has an unknown field {field[:40]!r}{hint}")
    if "key" not in entry or "value" not in entry:
        raise InvalidEntryError("needs the fields 'key' and 'value'")
    return draft_one(
        entry["key"],
        entry["value"],
        entry.get("metadata"),
        entry.get("ttl"),
        entry.get("expires_at"),
        None,
    )


def _kind(value: object) -> str:
    return type(value).__name__
