"""Values that lie in the stores encrypted.

An encrypted value is ``LTM``, the format's number 1, the length of the key's id, the id, a random
nonce of 12 bytes, the ciphertext of AES-256-GCM, and its tag of 16; in a row it is that in base64.
Authenticated with it are this header and where it belongs: its namespace, its key, and the name of
its blob, or that it is in a row. Its row has no plain hash of it, which would let guesses be
confirmed, but ``hmac-sha256:``, the key's id, and an HMAC of namespace, key and the plain hash.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .encryption import Keyring
from .entry import hash_of
from .errors import CorruptError, MissingDriverError
from .hashing import content_hash, off_loop
from .protocols import Row
from .values import KEYED, PlainValues

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import GCM

MAGIC = b"LTM\x01"
NONCE_BYTES = 12
TAG_BYTES = 16
PIECE_BYTES = 1024 * 1024
"""What is encrypted at once, for it keeps the other threads from running meanwhile."""


class _Keys(NamedTuple):
    """What is derived from one key, each for one purpose."""

    aes: bytes
    mac: bytes


class SealedValues:
    """Values of one namespace, encrypted with the keys of a keyring."""

    def __init__(self, keyring: Keyring, namespace: str) -> None:
        self._keyring = keyring
        self._namespace = namespace
        self._derived: dict[str, _Keys] = {}
        self._plain = PlainValues()

    def content_hash(self, key: str, plain_hash: str) -> str:
        return self._content_hash(self._keyring.primary, key, plain_hash)

    def seal_inlined(self, key: str, text: str) -> str:
        return base64.b64encode(self._seal(key, "", text.encode())).decode()

    async def seal_blob(self, key: str, blob_id: str, data: bytes) -> bytes:
        return await off_loop(lambda: self._seal(key, blob_id, data), len(data))

    def open_inlined(self, row: Row, text: str) -> tuple[str, str]:
        if self._is_plain(row):
            return self._plain.open_inlined(row, text)
        try:
            sealed = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise CorruptError("a row has a value that is not encrypted as it says") from None
        value = self._open(row, "", sealed)
        return self._agreeing(row, value, hash_of(value))

    async def open_blob(self, row: Row, blob_id: str, data: bytes) -> tuple[str, str]:
        if self._is_plain(row):
            return await self._plain.open_blob(row, blob_id, data)
        value = await off_loop(lambda: self._open(row, blob_id, data), len(data))
        return self._agreeing(row, value, await content_hash(value))

    def inlined_bytes(self, byte_size: int) -> int:
        return -(-self.blob_bytes(byte_size) // 3) * 4

    def blob_bytes(self, byte_size: int) -> int:
        longest = max(map(len, self._keyring.key_ids))
        return len(MAGIC) + 1 + longest + NONCE_BYTES + byte_size + TAG_BYTES

    def _is_plain(self, row: Row) -> bool:
        """Whether *row* says that it is not encrypted, and may say so."""
        if str(row.content_hash).startswith(KEYED):
            return False
        if not self._keyring.allow_plaintext:
            raise CorruptError("an entry is not encrypted, and this backend reads no other")
        return True

    def _content_hash(self, key_id: str, key: str, plain_hash: str) -> str:
        place = b"".join(_parts(self._namespace, key, plain_hash))
        return f"{KEYED}{key_id}:{hmac.digest(self._keys(key_id).mac, place, 'sha256').hex()}"

    def _agreeing(self, row: Row, value: bytes, plain_hash: str) -> tuple[str, str]:
        key_id = row.content_hash[len(KEYED) :].rpartition(":")[0]
        if (
            len(value) != row.byte_size
            or self._keyring.key(key_id) is None
            or self._content_hash(key_id, row.key, plain_hash) != row.content_hash
        ):
            raise CorruptError("an encrypted entry has another content than its row says")
        return value.decode("ascii", "replace"), plain_hash

    def _seal(self, key: str, blob_id: str, value: bytes) -> bytes:
        key_id = self._keyring.primary
        header = MAGIC + bytes([len(key_id)]) + key_id.encode()
        nonce = os.urandom(NONCE_BYTES)
        encryptor = _cipher(self._keys(key_id).aes, nonce).encryptor()
        encryptor.authenticate_additional_data(self._place(header, key, blob_id))
        ciphertext = [encryptor.update(piece) for piece in _pieces(value)]
        return b"".join([header, nonce, *ciphertext, encryptor.finalize(), encryptor.tag])

    def _open(self, row: Row, blob_id: str, sealed: bytes) -> bytes:
        id_at = len(MAGIC) + 1
        nonce_at = id_at + (sealed[len(MAGIC)] if len(sealed) > len(MAGIC) else 0)
        value_at = nonce_at + NONCE_BYTES
        if sealed[: len(MAGIC)] != MAGIC or len(sealed) < value_at + TAG_BYTES:
            raise CorruptError("a value is not encrypted as this library does it")
        key_id = sealed[id_at:nonce_at].decode("ascii", "replace")
        if self._keyring.key(key_id) is None:
            raise CorruptError("an entry is encrypted with a key that this backend does not have")
        nonce, tag = sealed[nonce_at:value_at], sealed[-TAG_BYTES:]
        decryptor = _cipher(self._keys(key_id).aes, nonce, tag).decryptor()
        decryptor.authenticate_additional_data(self._place(sealed[:nonce_at], row.key, blob_id))
        ciphertext = memoryview(sealed)[value_at:-TAG_BYTES]
        from cryptography.exceptions import InvalidTag

        try:
            # Nothing of it is used before its end has been found genuine.
            return b"".join([*map(decryptor.update, _pieces(ciphertext)), decryptor.finalize()])
        except InvalidTag:
            raise CorruptError(
                "an encrypted value was changed, or is not of this entry, or its key is not the "
                "one of that id"
            ) from None

    def _place(self, header: bytes, key: str, blob_id: str) -> bytes:
        """What a value is bound to; in a row it has no blob."""
        return header + b"".join(_parts(self._namespace, key, blob_id))

    def _keys(self, key_id: str) -> _Keys:
        derived = self._derived.get(key_id)
        if derived is None:
            derived = self._derived[key_id] = _derive(self._keyring.key(key_id) or b"")
        return derived


def _derive(key: bytes) -> _Keys:
    try:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="encryption", extra="encryption") from exc
    info = b"ltm-async 1: 32 bytes for AES-256-GCM, 32 for HMAC-SHA256"
    derived = HKDF(algorithm=hashes.SHA256(), length=64, salt=None, info=info).derive(key)
    return _Keys(derived[:32], derived[32:])


def _cipher(key: bytes, nonce: bytes, tag: bytes | None = None) -> Cipher[GCM]:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import GCM

    return Cipher(AES(key), GCM(nonce, tag))


def _parts(*texts: str) -> Iterator[bytes]:
    """Each with its length before it, so that no two lists of texts look the same."""
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        yield len(data).to_bytes(4)
        yield data


def _pieces(data: bytes | memoryview) -> Iterator[bytes | memoryview]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]
