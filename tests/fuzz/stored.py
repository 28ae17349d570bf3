"""What lies in the stores and in files: rows, blobs, envelopes, exports, JSON."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

from hypothesis import strategies as st

from ltm_async import CorruptError, InvalidEntryError, Keyring, LTMBackend, MemoryBlobStore
from ltm_async.catalogs.memory import MemoryCatalog
from ltm_async.entry import blob_path, decode, encode, hash_of
from ltm_async.jsonl.lines import InvalidLineError, check_header, check_limits, from_line, header
from ltm_async.protocols import Row
from ltm_async.sealing import SealedValues

from ..corpus import said, same
from .made import CANARY, NUMBERS, anything, changed, changed_text, json_texts, texts, whole
from .running import target

BLOB_ID = "0" * 16 + "-" + "a" * 32
SECRET = f'{{"text":"{CANARY}"}}'
INTACT = {"intact": True}
KEYRING = Keyring({"one": os.urandom(32), "two": os.urandom(32)}, primary="one")
SEALED = SealedValues(KEYRING, "space")
SEALED_TEXT = SEALED.seal_inlined("key", SECRET)
SEALED_BLOB = asyncio.run(SEALED.seal_blob("key", BLOB_ID, SECRET.encode()))
KEYED = SEALED.content_hash("key", hash_of(SECRET.encode()))
LONGS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([n for n in NUMBERS if abs(n) < 2**63])
"""What a column of 64 bits can hold."""


def clean(exc: BaseException) -> None:
    assert CANARY not in said(exc)


async def looked_at(ltm: LTMBackend) -> None:
    """Read a memory whose entry ``forged`` is, in every way there is."""
    for read in (ltm.retrieve("forged"), ltm.list_entries(), ltm.get_changed_entries()):
        try:
            repr((await read).to_dict())
        except CorruptError as exc:
            clean(exc)
    found = await ltm.retrieve_batch(["forged", "intact"])
    assert found.results["intact"].value == INTACT
    for failure in found.errors.values():
        assert failure.error_type == "CorruptError"
        assert CANARY not in failure.error
    verified = await ltm.verify()
    assert verified.problems.keys() <= {"forged"}
    assert CANARY not in repr(verified.problems)


async def with_forged(row: dict[str, Any], blob: bytes | None, encryption: Keyring | None) -> None:
    catalog, blobs = MemoryCatalog(), MemoryBlobStore()
    ltm = LTMBackend(catalog, blobs, encryption=encryption, on_unavailable="raise")
    await ltm.store("intact", INTACT)
    await ltm.store("forged", {"text": "x"})
    rows = catalog._spaces[""].rows
    rows["forged"] = rows["forged"]._replace(**row)
    if blob is not None:
        await blobs.put(blob_path("", BLOB_ID), blob)
    await looked_at(ltm)


@st.composite
def forged_rows(draw: st.DrawFn) -> dict[str, Any]:
    """Some columns of a row, of which the hash is mostly right."""
    text = draw(json_texts | st.just(SECRET) | st.just(SEALED_TEXT) | changed_text(SEALED_TEXT))
    data = text.encode("utf-8", "replace")
    row: dict[str, Any] = {"inlined_value": text, "byte_size": len(text)}
    row["content_hash"] = draw(
        st.sampled_from([hash_of(data)] * 4 + [KEYED, "", "sha256:", "hmac-sha256:"]) | texts
    )
    others = {
        "metadata": json_texts,
        "expires_at": st.none() | st.integers(2**52, 2**63 - 1),
        "created_at": LONGS,
        "updated_at": LONGS,
        "byte_size": LONGS,
        "blob_id": st.none() | texts | st.just(BLOB_ID) | changed_text(BLOB_ID),
        "inlined_value": st.none(),
    }
    for column in draw(st.sets(st.sampled_from(sorted(others)), max_size=2)):
        row[column] = draw(others[column])
    return row


@target(st.tuples(forged_rows(), st.sampled_from([None, KEYRING])))
async def rows(given: tuple[dict[str, Any], Keyring | None]) -> None:
    row, encryption = given
    await with_forged(row, None, encryption)


@target(
    st.tuples(
        json_texts.map(lambda text: text.encode("utf-8", "replace"))
        | st.binary(max_size=60)
        | changed(SECRET.encode())
        | changed(SEALED_BLOB),
        st.sampled_from(["right", "wrong", "keyed"]),
        st.integers(-1, 1),
        st.sampled_from([None, KEYRING]),
    )
)
async def blobs(given: tuple[bytes, str, int, Keyring | None]) -> None:
    data, hashed, longer, encryption = given
    row = {
        "inlined_value": None,
        "blob_id": BLOB_ID,
        "byte_size": len(data) + longer,
        "content_hash": {"right": hash_of(data), "wrong": hash_of(b""), "keyed": KEYED}[hashed],
    }
    await with_forged(row, data, encryption)


def _row(content_hash: str, byte_size: int) -> Row:
    return Row("key", 1, content_hash, byte_size, None, None, "{}", None, 0, 0)


@target(
    st.tuples(
        changed(SEALED_BLOB) | st.binary(max_size=80),
        changed_text(SEALED_TEXT) | texts,
        st.just(KEYED) | changed_text(KEYED),
        st.just(len(SECRET)) | whole,
    )
)
async def envelopes(given: tuple[bytes, str, str, int]) -> None:
    """What is opened is what was sealed, or it is refused."""
    blob, text, content_hash, byte_size = given
    row = _row(content_hash, byte_size)
    for open_it in (
        lambda: SEALED.open_blob(row, BLOB_ID, blob),
        lambda: _later(SEALED.open_inlined, row, text),
        lambda: SEALED.open_blob(row, BLOB_ID, base64.b64encode(blob)),
    ):
        try:
            opened, _ = await open_it()
        except CorruptError as exc:
            clean(exc)
        else:
            assert (opened, byte_size, content_hash) == (SECRET, len(SECRET), KEYED)


async def _later(function: Any, *args: Any) -> Any:
    return function(*args)


@target(json_texts)
def json_of_rows(text: str) -> None:
    try:
        value = decode(text)
    except CorruptError as exc:
        clean(exc)
        return
    try:
        canonical = encode("value", value)
    except InvalidEntryError:
        return  # such as a surrogate pair in two escapes, which we do not write
    assert same(decode(canonical), value)


@target(anything)
def values(value: Any) -> None:
    try:
        text = encode("value", value)
    except InvalidEntryError:
        return
    assert text.isascii()
    assert same(decode(text), value)
    assert encode("value", decode(text)) == text


def _line(fields: dict[str, str]) -> bytes:
    """Of texts that are JSON already, where they are."""
    parts = []
    for name, text in fields.items():
        made = encode("", text) if name in ("key", "expires_at") and text.isascii() else text
        parts.append(f'"{name}":{made}')
    return ("{" + ",".join(parts) + "}\n").encode("utf-8", "replace")


LINE = b'{"key":"k","value":{"a":[1,2]},"metadata":{"m":1},"expires_at":"2031-01-31T12:00:00.5Z"}\n'


@target(
    changed(LINE)
    | changed(header())
    | st.binary(max_size=60)
    | json_texts.map(lambda text: text.encode("utf-8", "replace"))
    | st.fixed_dictionaries(
        {},
        optional={"key": texts, "value": json_texts, "metadata": json_texts, "expires_at": texts},
    ).map(_line)
)
def imports(line: bytes) -> None:
    try:
        check_header(line)
    except InvalidLineError as exc:
        clean(exc)
    try:
        check_limits(from_line(line))
    except InvalidEntryError as exc:
        clean(exc)
