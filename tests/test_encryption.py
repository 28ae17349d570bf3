"""Encrypted values: on every pair of stores, and under attack by who can write to both."""

from __future__ import annotations

import base64
import copy
import hashlib
import logging
import os
import pathlib
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from ltm_async import (
    Cache,
    ConfigError,
    CorruptError,
    DuckDBQueryEngine,
    Keyring,
    LTMBackend,
    SyncLTMBackend,
    compute_content_hash,
)
from ltm_async.entry import NEVER, blob_path, encode, hash_of
from ltm_async.hashing import ON_LOOP_BYTES
from ltm_async.protocols import Reservation, Row, Write
from ltm_async.sealing import MAGIC, NONCE_BYTES, PIECE_BYTES, TAG_BYTES, SealedValues
from ltm_async.testing import Mode

from .backends import EMBEDDED_PAIRS, PAIRS, Rig, make_rig
from .corpus import said

CANARY = "canary-70ad"
# The same in every process, for they are in the names of tests.
OLD, NEW = (hashlib.sha256(name).digest() for name in (b"old", b"new"))
SMALL = {"text": CANARY}
LARGE = {"text": CANARY * 200}
HUGE = {"text": CANARY * (2 * PIECE_BYTES // len(CANARY))}
BOTH = {"small": SMALL, "large": LARGE}


def keyring(**options: Any) -> Keyring:
    return Keyring({"old": OLD}, primary="old", **options)


def rotated(**options: Any) -> Keyring:
    return Keyring({"old": OLD, "new": NEW}, primary="new", **options)


def beside(rig: Rig, encryption: Keyring | None, **options: Any) -> LTMBackend:
    """Another backend over the stores of *rig*."""
    options = {"on_unavailable": "raise", **options}
    return LTMBackend(rig.catalog, rig.blobs, encryption=encryption, **options)


async def row_of(rig: Rig, key: str, namespace: str = "") -> Row:
    row = await rig.catalog.get_entry(namespace, key)
    assert row is not None
    return row


async def data_of(rig: Rig, row: Row, namespace: str = "") -> bytes:
    """What lies in the stores for *row*: the text of the row, or the blob."""
    if row.blob_id is None:
        return (row.inlined_value or "").encode()
    data = await rig.blobs.get(blob_path(namespace, row.blob_id), limit=1 << 30)
    assert data is not None
    return data


async def forge(
    rig: Rig, key: str, row: Row, data: bytes, *, blob_id: str | None, namespace: str = ""
) -> None:
    """Put *row* with *data* under *key*, as one can who writes to both stores."""
    if blob_id is not None:
        reserved = Reservation(blob_id, key, "", row.byte_size)
        await rig.catalog.reserve_blobs(namespace, [reserved], lease_us=10**9)
        await rig.blobs.put(blob_path(namespace, blob_id), data)
    forged = Write(
        key,
        row.content_hash,
        row.byte_size,
        data.decode("latin-1") if blob_id is None else None,
        blob_id,
        "{}",
        NEVER,
    )
    await rig.catalog.track_entries_batch(namespace, [forged], write_id=os.urandom(16).hex())


def new_name() -> str:
    return f"{os.urandom(8).hex()}-{os.urandom(16).hex()}"


@pytest.fixture(params=PAIRS)
async def any_rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path, encryption=keyring())
    yield rig
    await rig.aclose()


@pytest.fixture(params=EMBEDDED_PAIRS)
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    rig = make_rig(request.param, tmp_path, encryption=keyring())
    for key, value in BOTH.items():
        await rig.ltm.store(key, value)
    yield rig
    await rig.aclose()


async def refused(ltm: LTMBackend, key: str, match: str = "encrypted") -> None:
    """Reading *key* is a CorruptError that tells nothing of the value or of a key."""
    with pytest.raises(CorruptError, match=match) as caught:
        await ltm.retrieve(key)
    for secret in (CANARY, *texts_of(OLD), *texts_of(NEW)):
        assert secret not in said(caught.value)
    found = await ltm.retrieve_batch([key])
    assert (found.found, found.missing, list(found.errors)) == (0, [], [key])


def texts_of(key: bytes) -> list[str]:
    """How a key could look in a log."""
    return [
        key.hex(),
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode(),
        repr(key),
    ]


class TestOnEveryPair:
    async def test_values_come_back_and_lie_encrypted(self, any_rig: Rig) -> None:
        values = {**BOTH, "null": None, "huge": HUGE, "ünïcode\n": ["ü", "\0", -0.0]}
        for key, value in values.items():
            stored = await any_rig.ltm.store(key, value, metadata={"m": 1}, ttl=3600)
            assert stored.content_hash == compute_content_hash(value)
        for key, value in values.items():
            hit = await any_rig.ltm.retrieve(key)
            assert (hit.value, hit.metadata) == (value, {"m": 1})
            assert hit.content_hash == compute_content_hash(value)
            assert hit.byte_size == len(encode("value", value))
            row = await row_of(any_rig, key)
            data = await data_of(any_rig, row)
            assert (row.blob_id is None) == hit.inlined == (len(encode("value", value)) < 1024)
            assert data.startswith(MAGIC if row.blob_id else base64.b64encode(MAGIC)[:5])
            for raw in (data, base64.b64decode(data) if row.blob_id is None else data):
                assert CANARY.encode() not in raw
            plain_digest = compute_content_hash(value)[7:]
            assert plain_digest[:16] not in repr(row)
            assert row.content_hash.startswith("hmac-sha256:old:")
        assert (await any_rig.ltm.verify()).sound

    async def test_a_batch_an_update_and_the_same_content_again(self, any_rig: Rig) -> None:
        entries = [{"key": key, "value": value} for key, value in BOTH.items()]
        first = await any_rig.ltm.store_batch(entries)
        assert (first.stored, first.uploaded, first.deduplicated) == (2, 1, 0)
        before = {key: await row_of(any_rig, key) for key in BOTH}
        again = await any_rig.ltm.store_batch(entries)
        assert (again.stored, again.uploaded, again.deduplicated) == (2, 0, 2)
        after = {key: await row_of(any_rig, key) for key in BOTH}
        assert before["large"].blob_id == after["large"].blob_id
        assert before["small"].inlined_value != after["small"].inlined_value, "a nonce came twice"
        await any_rig.ltm.update("small", lambda value: value | {"more": 1})
        await any_rig.ltm.update("large", lambda value: value | {"more": 1})
        found = (await any_rig.ltm.retrieve_batch(BOTH)).results
        assert {key: hit.value for key, hit in found.items()} == {
            key: value | {"more": 1} for key, value in BOTH.items()
        }

    async def test_after_a_rotation_old_entries_are_read_and_new_ones_use_the_new_key(
        self, any_rig: Rig
    ) -> None:
        for key, value in BOTH.items():
            await any_rig.ltm.store(key, value)
        async with beside(any_rig, rotated()) as later:
            for key, value in BOTH.items():
                assert (await later.retrieve(key)).value == value
                stored = await later.store(key, value)
                assert not stored.deduplicated, "the same content is to be encrypted anew"
                assert (await later.retrieve(key)).value == value
                row = await row_of(any_rig, key)
                assert row.content_hash.startswith("hmac-sha256:new:")
                await refused(any_rig.ltm, key, "with a key that this backend does not have")
            only_new = beside(any_rig, Keyring({"new": NEW}, primary="new"))
            assert (await only_new.retrieve_batch(BOTH)).found == 2

    async def test_a_backend_without_a_keyring_never_takes_an_envelope_for_a_value(
        self, any_rig: Rig
    ) -> None:
        for key, value in BOTH.items():
            await any_rig.ltm.store(key, value)
        plain = beside(any_rig, None)
        for key in BOTH:
            await refused(plain, key, "encrypted, and this backend has no keyring")
        assert {*(await plain.verify()).problems} == {*BOTH}
        listed = await plain.list_entries()
        assert [entry.key for entry in listed.entries] == sorted(BOTH)

    async def test_a_plain_entry_is_refused_unless_that_is_allowed(self, any_rig: Rig) -> None:
        plain = beside(any_rig, None)
        for key, value in BOTH.items():
            await plain.store(key, value)
        migrating = beside(any_rig, keyring(allow_plaintext=True))
        for key, value in BOTH.items():
            await refused(any_rig.ltm, key, "not encrypted, and this backend reads no other")
            assert (await migrating.retrieve(key)).value == value
            await migrating.update(key, lambda value: value)
            assert (await any_rig.ltm.retrieve(key)).value == value
        await any_rig.ltm.collect_garbage()


class TestAttacks:
    """By one who can write to the catalog and to the storage, but has no key."""

    @pytest.mark.parametrize("large", [False, True])
    async def test_a_value_of_another_key_is_refused(self, rig: Rig, large: bool) -> None:
        value = LARGE if large else SMALL
        await rig.ltm.store("rich", value)
        await rig.ltm.store("poor", value)
        row = await row_of(rig, "rich")
        blob_id = new_name() if large else None
        await forge(rig, "poor", row, await data_of(rig, row), blob_id=blob_id)
        await refused(rig.ltm, "poor", "not of this entry")

    @pytest.mark.parametrize("large", [False, True])
    async def test_a_value_of_another_namespace_is_refused(self, rig: Rig, large: bool) -> None:
        key = "large" if large else "small"
        other = beside(rig, keyring(), namespace="other")
        await other.store(key, BOTH[key])
        row = await row_of(rig, key)
        assert (await row_of(rig, key, "other")).content_hash != row.content_hash
        await forge(
            rig,
            key,
            row,
            await data_of(rig, row),
            blob_id=row.blob_id and new_name(),
            namespace="other",
        )
        await refused(other, key, "not of this entry")

    async def test_an_old_blob_in_the_object_of_a_new_one_is_refused(self, rig: Rig) -> None:
        row = await row_of(rig, "large")
        await forge(rig, "large", row, await data_of(rig, row), blob_id=new_name())
        await refused(rig.ltm, "large", "not of this entry")

    async def test_a_value_of_a_row_is_refused_as_a_blob_and_the_other_way_round(
        self, rig: Rig
    ) -> None:
        row = await row_of(rig, "small")
        sealed = base64.b64decode(await data_of(rig, row))
        await forge(rig, "small", row, sealed, blob_id=new_name())
        await refused(rig.ltm, "small", "not of this entry")
        row = await row_of(rig, "large")
        await forge(rig, "large", row, base64.b64encode(await data_of(rig, row)), blob_id=None)
        await refused(rig.ltm, "large", "not of this entry")

    @pytest.mark.parametrize("large", [False, True])
    async def test_a_flipped_bit_anywhere_is_refused(self, rig: Rig, large: bool) -> None:
        key = "large" if large else "small"
        row = await row_of(rig, key)
        data = await data_of(rig, row)
        sealed = data if large else base64.b64decode(data)
        nonce_at = len(MAGIC) + 1 + len("old")
        fields = {
            "magic": 0,
            "format": len(MAGIC) - 1,
            "length of the id": len(MAGIC),
            "id": len(MAGIC) + 1,
            "nonce": nonce_at,
            "ciphertext": nonce_at + NONCE_BYTES,
            "middle": len(sealed) // 2,
            "tag": len(sealed) - TAG_BYTES,
            "end": len(sealed) - 1,
        }
        for place in fields.values():
            for bit in (1, 0x80):
                changed = bytearray(sealed)
                changed[place] ^= bit
                await self.put_back(rig, key, row, bytes(changed))
                await refused(rig.ltm, key)

    async def test_another_key_id_in_the_header_is_refused_even_with_the_same_key(
        self, rig: Rig
    ) -> None:
        twice = beside(rig, Keyring({"old": OLD, "odd": OLD}, primary="old"))
        row = await row_of(rig, "small")
        data = base64.b64decode(await data_of(rig, row)).replace(b"old", b"odd", 1)
        odd = SealedValues(Keyring({"odd": OLD}, primary="odd"), "")
        plain_hash = hash_of(encode("value", SMALL).encode())
        row = row._replace(content_hash=odd.content_hash("small", plain_hash))
        await forge(rig, "small", row, base64.b64encode(data), blob_id=None)
        await refused(twice, "small", "was changed")

    @pytest.mark.parametrize("large", [False, True])
    async def test_what_is_cut_lengthened_or_nothing_is_refused(
        self, rig: Rig, large: bool
    ) -> None:
        key = "large" if large else "small"
        row = await row_of(rig, key)
        data = await data_of(rig, row)
        sealed = data if large else base64.b64decode(data)
        nonce_at = len(MAGIC) + 1 + len("old")
        for changed in (
            *(sealed[:length] for length in (0, 1, 4, 5, nonce_at, nonce_at + 12, len(sealed) - 1)),
            sealed + b"\0",
            sealed + sealed,
            MAGIC + b"\xff" + b"\0" * 20,
            MAGIC + b"\x03old" + bytes(NONCE_BYTES + TAG_BYTES),
            MAGIC + b"\x05other" + sealed[nonce_at:],
        ):
            await self.put_back(rig, key, row, changed)
            await refused(rig.ltm, key)

    @pytest.mark.parametrize(
        "text",
        ["", "{}", "null", "A", "====", "TFRNAQ", "ü", "\n", '"x"', "TFRNAQ==\n", "\x7f" * 9],
    )
    async def test_text_that_is_no_envelope_is_refused(self, rig: Rig, text: str) -> None:
        row = await row_of(rig, "small")
        forged = Write("small", row.content_hash, len(text), text, None, "{}", NEVER)
        await rig.catalog.track_entries_batch("", [forged], write_id=os.urandom(16).hex())
        await refused(rig.ltm, "small")

    @pytest.mark.parametrize(
        "content_hash",
        [
            "hmac-sha256:",
            "hmac-sha256::",
            "hmac-sha256:old:",
            "hmac-sha256:old:" + "0" * 64,
            "hmac-sha256:other:" + "0" * 64,
            "hmac-sha256:" + "0" * 64,
        ],
    )
    async def test_another_content_hash_is_refused(self, rig: Rig, content_hash: str) -> None:
        for key in BOTH:
            row = await row_of(rig, key)
            data = await data_of(rig, row)
            row = row._replace(content_hash=content_hash)
            if row.blob_id is None:
                await forge(rig, key, row, data, blob_id=None)
            else:
                renewed = Write(key, content_hash, row.byte_size, '"x"', None, "{}", NEVER)
                await rig.catalog.track_entries_batch("", [renewed], write_id=os.urandom(16).hex())
            await refused(rig.ltm, key)

    async def test_plaintext_put_in_the_place_of_a_value_is_refused(self, rig: Rig) -> None:
        for number, content_hash in enumerate(
            (hash_of(b'"mine"'), (await row_of(rig, "small")).content_hash, "", "sha256:")
        ):
            row = (await row_of(rig, "small"))._replace(content_hash=content_hash, byte_size=6)
            await forge(rig, "small", row, b'"mine"', blob_id=None if number % 2 else new_name())
            await refused(rig.ltm, "small")

    async def test_an_envelope_that_says_it_is_plain_is_never_a_value(self, rig: Rig) -> None:
        row = await row_of(rig, "small")
        data = await data_of(rig, row)
        row = row._replace(content_hash=hash_of(data), byte_size=len(data))
        await forge(rig, "small", row, data, blob_id=None)
        for encryption in (None, keyring(), keyring(allow_plaintext=True)):
            await refused(beside(rig, encryption), "small", "encrypted|not JSON")

    async def test_one_forged_entry_hides_no_other(self, rig: Rig) -> None:
        row = await row_of(rig, "small")
        await forge(rig, "a forged one", row, await data_of(rig, row), blob_id=None)
        found = await rig.ltm.retrieve_batch(["a forged one", *BOTH])
        assert {key: hit.value for key, hit in found.results.items()} == BOTH
        assert list(found.errors) == ["a forged one"]
        assert list((await rig.ltm.verify()).problems) == ["a forged one"]
        await rig.ltm.store("a forged one", 1)
        assert (await rig.ltm.verify()).sound

    @staticmethod
    async def put_back(rig: Rig, key: str, row: Row, sealed: bytes) -> None:
        if row.blob_id is None:
            await forge(rig, key, row, base64.b64encode(sealed), blob_id=None)
            return
        path = blob_path("", row.blob_id)
        await rig.blobs.delete([path])
        await rig.blobs.put(path, sealed)


class TestKeyrings:
    @pytest.mark.parametrize(
        ("keys", "primary", "match"),
        [
            ({}, "a", "0 keys, not 1 to 100"),
            ({str(n): OLD for n in range(101)}, "1", "101 keys"),
            ([("a", OLD)], "a", "must be a mapping, not list"),
            ({"a": OLD}, "b", "primary must be one of a"),
            ({"a": OLD}, None, "primary must be one of a"),
            ({"a": OLD[:31]}, "a", "the key 'a' is not 32 bytes"),
            ({"a": OLD + b"x"}, "a", "the key 'a' is not 32 bytes"),
            ({"a": bytearray(OLD)}, "a", "the key 'a' is not 32 bytes"),
            ({"a": ""}, "a", "the key 'a' is not 32 bytes"),
            ({"a": CANARY}, "a", "the key 'a' is not 32 bytes"),
            ({"a": "ü" * 43}, "a", "the key 'a' is not 32 bytes"),
            ({"a": None}, "a", "the key 'a' is not 32 bytes"),
            ({"": OLD}, "", "a key id is not 1 to 32 of"),
            ({"a" * 33: OLD}, "a" * 33, "a key id is not 1 to 32 of"),
            ({"a:b": OLD}, "a:b", "a key id is not 1 to 32 of"),
            ({"a\n": OLD}, "a\n", "a key id is not 1 to 32 of"),
            ({"ü": OLD}, "ü", "a key id is not 1 to 32 of"),
            ({1: OLD}, 1, "a key id is not 1 to 32 of"),
            ({base64.b64encode(OLD).decode(): "a"}, "a", "a key id is not 1 to 32 of"),
        ],
    )
    def test_what_cannot_be_one_is_refused_without_a_word_of_a_key(
        self, keys: Any, primary: Any, match: str
    ) -> None:
        with pytest.raises(ConfigError, match=match) as caught:
            Keyring(keys, primary=primary)
        assert CANARY not in said(caught.value)
        for text in texts_of(OLD):
            assert text not in said(caught.value)

    @pytest.mark.parametrize("option", ["allow_plaintext", "allow_plain_index"])
    def test_a_switch_must_be_bool(self, option: str) -> None:
        with pytest.raises(ConfigError, match=f"{option} must be bool, not int"):
            Keyring({"a": OLD}, primary="a", **{option: cast("bool", 1)})

    def test_a_key_may_be_bytes_base64_or_hex(self) -> None:
        given: list[bytes | str] = [
            OLD,
            *texts_of(OLD)[:3],
            base64.b64encode(OLD).decode().rstrip("="),
        ]
        given += [OLD.hex().upper(), f" {OLD.hex()}\n"]
        for key in given:
            assert Keyring({"a": key}, primary="a").key("a") == OLD

    @pytest.mark.parametrize(
        ("config", "match"),
        [
            (7, "must be a mapping or the text id:key, not int"),
            ("", "a key id is not"),
            ("a", "the key 'a' is not 32 bytes"),
            (base64.b64encode(OLD).decode(), "a key id is not"),
            (f"a:{OLD.hex()},a:{NEW.hex()}", "a key id comes twice"),
            (f"a:{OLD.hex()},", "a key id is not"),
            ({"a": OLD.hex()}, "takes nothing but keys, primary"),
            ({OLD.hex(): "a"}, "takes nothing but keys, primary"),
            ({"keys": {"a": OLD.hex()}}, "needs 'keys' and 'primary'"),
            ({"keys": {"a": OLD.hex()}, "primary": OLD.hex()}, "primary must be one of a"),
        ],
    )
    def test_a_configuration_that_is_none_is_refused_without_a_word_of_a_key(
        self, config: Any, match: str
    ) -> None:
        with pytest.raises(ConfigError, match=match) as caught:
            LTMBackend.from_config(
                {"catalog": "memory:", "storage": "memory:", "encryption": config}
            )
        for key in (OLD, NEW):
            for text in texts_of(key):
                assert text not in said(caught.value)

    def test_nothing_shows_a_key_or_takes_it_along(self) -> None:
        ring = rotated()
        assert repr(ring) == "Keyring(primary='new', key_ids=('new', 'old'))"
        ltm = LTMBackend("memory:", "memory:", encryption=ring)
        shown = f"{ring} {ring!r} {ltm!r} {ltm._runner.options!r} {ltm._runner.stores()!r}"
        for text in (*texts_of(OLD), *texts_of(NEW)):
            assert text not in shown
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds secrets"):
                take(ring)
        with pytest.raises(TypeError, match="__dict__"):
            vars(ring)

    @pytest.mark.parametrize("option", [{"index_text": True}, {"embed": list}])
    def test_finding_values_needs_a_word_that_what_finds_them_is_plain(
        self, option: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigError, match="allow_plain_index=True"):
            LTMBackend("memory:", "memory:", encryption=keyring(), **option)
        LTMBackend("memory:", "memory:", encryption=keyring(allow_plain_index=True), **option)

    def test_a_backend_takes_nothing_but_a_keyring(self) -> None:
        with pytest.raises(ConfigError, match="encryption must be a Keyring, not dict"):
            LTMBackend("memory:", "memory:", encryption={})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "encryption",
        [
            "${LTM_KEYS}",
            "new:${LTM_NEW}, old:${LTM_OLD}",
            {
                "keys": {"old": "${LTM_OLD}", "new": "${LTM_NEW}"},
                "primary": "new",
                "allow_plaintext": "${LTM_PLAIN:-false}",
            },
        ],
    )
    async def test_a_configuration_takes_keys_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, encryption: Any
    ) -> None:
        monkeypatch.setenv("LTM_OLD", base64.b64encode(OLD).decode())
        monkeypatch.setenv("LTM_NEW", NEW.hex())
        monkeypatch.setenv("LTM_KEYS", f"new:{NEW.hex()},old:{OLD.hex()}")
        config = {
            "catalog": f"sqlite:///{tmp_path}/ltm.db",
            "storage": str(tmp_path / "blobs"),
            "encryption": encryption,
        }
        async with LTMBackend.from_config(config) as ltm:
            await ltm.store("k", SMALL)
        used = ltm._runner.options.encryption
        assert used is not None
        assert (used.primary, used.key_ids, used.allow_plaintext) == ("new", ("new", "old"), False)
        async with LTMBackend(
            config["catalog"], config["storage"], encryption=rotated(), on_unavailable="raise"
        ) as ltm:
            assert (await ltm.retrieve("k")).value == SMALL

    def test_a_missing_library_is_named_with_its_extra(self) -> None:
        code = """
            import asyncio, sys
            sys.modules["cryptography"] = None
            from ltm_async import Keyring, LTMBackend, MissingDriverError
            keyring = Keyring({"a": b"k" * 32}, primary="a")
            ltm = LTMBackend("memory:", "memory:", encryption=keyring)
            try:
                asyncio.run(ltm.store("k", 1))
            except MissingDriverError as exc:
                print(exc)
        """
        code = "\n".join(line[12:] for line in code.splitlines())
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "pip install 'ltm-async[encryption]'" in out.stdout

    def test_without_encryption_its_library_is_not_imported(self) -> None:
        code = (
            "import asyncio, sys; from ltm_async import LTMBackend; "
            "asyncio.run(LTMBackend('memory:', 'memory:').store('k', 1)); "
            "print('cryptography' in sys.modules)"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert out.stdout == "False\n"


class TestWithTheRest:
    async def test_neither_keys_nor_values_are_logged(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        row = await row_of(rig, "small")
        degrading = beside(rig, keyring(), on_unavailable="degrade")
        await forge(rig, "forged", row, await data_of(rig, row), blob_id=None)
        hit = await degrading.retrieve("forged")
        assert (hit.found, hit.success, hit.error_type) == (False, False, "CorruptError")
        assert "going on without the memory" in caplog.text
        for secret in (CANARY, *texts_of(OLD)):
            assert secret not in caplog.text
            assert secret not in repr(hit)

    async def test_the_last_value_is_served_while_the_catalog_is_down(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make_rig("memory+memory", tmp_path, encryption=keyring(), on_unavailable="degrade")
        await rig.ltm.store("seen", SMALL)
        await rig.ltm.retrieve("seen")
        rig.faults.at, rig.faults.mode = len(rig.faults.steps), Mode.DOWN
        hit = await rig.ltm.retrieve("seen")
        assert (hit.value, hit.source) == (SMALL, "fallback")

    def test_the_blocking_twin_takes_a_keyring(self, tmp_path: pathlib.Path) -> None:
        place = (f"sqlite:///{tmp_path}/ltm.db", str(tmp_path / "blobs"))
        with SyncLTMBackend(*place, encryption=keyring()) as ltm:
            for key, value in BOTH.items():
                ltm.store(key, value)
                assert ltm.retrieve(key)["value"] == value
        files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
        assert len(files) >= 2
        assert CANARY.encode() not in b"".join(files)

    async def test_the_cache_keeps_results_encrypted(self, rig: Rig) -> None:
        cache = Cache(rig.ltm, cleanup_probability=0.0)
        calls = 0

        async def action(**_: Any) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            return {"answer": CANARY}

        for hit in (False, True):
            answer = await cache.wrap(action, {"q": 1})
            assert (answer["answer"], answer["_cache_hit"]) == (CANARY, hit)
        assert calls == 1
        for entry in (await rig.ltm.list_entries()).entries:
            row = await row_of(rig, entry.key)
            data = await data_of(rig, row)
            sealed = base64.b64decode(data) if row.blob_id is None else data
            assert sealed.startswith(MAGIC)
            assert CANARY.encode() not in sealed

    async def test_the_query_engine_sees_values_and_leaves_out_forged_ones(self, rig: Rig) -> None:
        row = await row_of(rig, "small")
        await forge(rig, "forged", row, await data_of(rig, row), blob_id=None)
        async with DuckDBQueryEngine(rig.ltm) as engine:
            found = await engine.query("SELECT key, value->>'text' FROM entries ORDER BY key")
        assert found.rows == [(key, BOTH[key]["text"]) for key in sorted(BOTH)]
        assert list(found.errors) == ["forged"]

    async def test_an_export_can_be_imported_where_other_keys_are(
        self, rig: Rig, tmp_path: pathlib.Path
    ) -> None:
        async with DuckDBQueryEngine(rig.ltm) as engine:
            await engine.export_parquet(tmp_path / "out")
        async with LTMBackend(
            "memory:", "memory:", encryption=Keyring({"x": NEW}, primary="x")
        ) as other:
            async with DuckDBQueryEngine(other) as engine:
                assert (await engine.import_parquet(tmp_path / "out")).imported == 2
            found = (await other.retrieve_batch(BOTH)).results
            assert {key: hit.value for key, hit in found.items()} == BOTH

    async def test_a_listing_and_the_feed_tell_no_plain_hash(self, rig: Rig) -> None:
        listed = {entry.key: entry.content_hash for entry in (await rig.ltm.list_entries()).entries}
        changed = {
            change.key: change.entry.content_hash
            for change in (await rig.ltm.get_changed_entries()).changes
            if change.entry is not None
        }
        assert listed == changed == {key: (await row_of(rig, key)).content_hash for key in BOTH}
        assert all(text.startswith("hmac-sha256:old:") for text in listed.values())

    async def test_equal_values_do_not_look_equal(self, rig: Rig) -> None:
        for key in ("one", "two"):
            await rig.ltm.store(key, LARGE)
        one, two = await row_of(rig, "one"), await row_of(rig, "two")
        assert one.content_hash != two.content_hash
        assert (one.blob_id or "")[:16] != (two.blob_id or "")[:16]

    async def test_a_large_value_is_encrypted_piece_by_piece_in_a_thread(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import threading

        from ltm_async import sealing

        seen: list[tuple[int, bool]] = []
        pieces = sealing._pieces

        def watched(data: Any) -> Any:
            on_loop = threading.current_thread() is threading.main_thread()
            for piece in pieces(data):
                seen.append((len(piece), on_loop))
                yield piece

        monkeypatch.setattr(sealing, "_pieces", watched)
        value = "x" * (2 * ON_LOOP_BYTES)
        await rig.ltm.store("huge", value)
        assert (await rig.ltm.retrieve("huge")).value == value
        assert max(size for size, _ in seen) <= PIECE_BYTES
        assert sum(size for size, _ in seen) == 2 * (len(value) + 2)
        assert not any(on_loop for _, on_loop in seen)

    @pytest.mark.parametrize("size", [1023, 1024, 1025, PIECE_BYTES - 1, PIECE_BYTES + 1])
    async def test_sizes_at_the_edges_come_back(self, rig: Rig, size: int) -> None:
        value = "x" * (size - 2)
        stored = await rig.ltm.store("edge", value)
        assert (stored.byte_size, stored.inlined) == (size, size < 1024)
        assert (await rig.ltm.retrieve("edge")).value == value
        assert (await rig.ltm.verify()).sound


def test_a_command_takes_its_keys_from_the_environment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ltm_async.cli import main

    places = ["--catalog", f"sqlite:///{tmp_path}/ltm.db", "--storage", str(tmp_path / "blobs")]
    monkeypatch.setenv("LTM_ENCRYPTION", f"old:{OLD.hex()}")
    assert main(["store", "k", f'"{CANARY}"', *places]) == 0
    assert main(["get", "k", *places]) == 0
    assert CANARY in capsys.readouterr().out
    monkeypatch.delenv("LTM_ENCRYPTION")
    assert main(["get", "k", *places]) == 3
    out, err = capsys.readouterr()
    assert (out, "has no keyring" in err) == ("", True)
    monkeypatch.setenv("LTM_ENCRYPTION", f"{OLD.hex()}:old")
    assert main(["get", "k", *places]) == 2
    assert OLD.hex() not in "".join(capsys.readouterr())
