"""The keys that values are encrypted with, and how a user gives them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, NoReturn, Self

from .errors import ConfigError

KEY_BYTES = 32
MAX_KEYS = 100
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_FIELDS = ("keys", "primary", "allow_plaintext", "allow_plain_index")


class Keyring:
    """Keys for AES-256-GCM: the primary one encrypts, all of them decrypt.

    To rotate, add a key under a new id, make it the primary one, and take the old one out once no
    entry needs it; ``openssl rand -base64 32`` makes a key. Neither ``repr`` nor an error shows a
    key, and a keyring cannot be pickled. It needs the extra ``encryption``.

    Args:
        keys: 1 to 100 keys by their ids, each 32 random bytes, or these as text in base64 or hex.
            An id has 1 to 32 of ``A-Z a-z 0-9 . _ -``, is stored beside each value, and must never
            get another key.
        primary: The id of the key for what is stored from now on.
        allow_plaintext: Read entries that are not encrypted, too, while those that were there
            before are stored again. Whoever can write to the catalog can then forge one.
        allow_plain_index: Permit ``index_text`` and ``embed``, which keep the words and the vectors
            of values in plain.

    Raises:
        ConfigError: An argument cannot be used.
    """

    __slots__ = ("_keys", "allow_plain_index", "allow_plaintext", "primary")

    def __init__(
        self,
        keys: Mapping[str, bytes | str],
        *,
        primary: str,
        allow_plaintext: bool = False,
        allow_plain_index: bool = False,
    ) -> None:
        if not isinstance(keys, Mapping):
            raise ConfigError(f"encryption: keys must be a mapping, not {type(keys).__name__}")
        if not 1 <= len(keys) <= MAX_KEYS:
            raise ConfigError(f"encryption: there are {len(keys)} keys, not 1 to {MAX_KEYS}")
        self._keys = {_key_id(key_id): _key(key_id, key) for key_id, key in keys.items()}
        if primary not in self._keys:
            # It is not repeated: who mixes up ids and keys would find a key in a log.
            raise ConfigError(f"encryption: primary must be one of {', '.join(sorted(keys))}")
        for name, given in (
            ("allow_plaintext", allow_plaintext),
            ("allow_plain_index", allow_plain_index),
        ):
            if not isinstance(given, bool):
                raise ConfigError(f"encryption: {name} must be bool, not {type(given).__name__}")
        self.primary = primary
        self.allow_plaintext = allow_plaintext
        self.allow_plain_index = allow_plain_index

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | str) -> Self:
        """A keyring from a mapping of its arguments, or from the text ``id:key,id:key…``.

        Of a text the first key is the primary one.

        Raises:
            ConfigError: It cannot be used.
        """
        if isinstance(config, str):
            pairs = [part.strip().partition(":") for part in config.split(",")]
            keys = {key_id: key for key_id, _, key in pairs}
            if len(keys) < len(pairs):
                raise ConfigError("encryption: a key id comes twice")
            return cls(keys, primary=pairs[0][0])
        if not isinstance(config, Mapping):
            raise ConfigError(
                f"encryption must be a mapping or the text id:key, not {type(config).__name__}"
            )
        if not config.keys() <= {*_FIELDS}:
            raise ConfigError(f"encryption takes nothing but {', '.join(_FIELDS)}")
        if not config.keys() >= {"keys", "primary"}:
            raise ConfigError("encryption needs 'keys' and 'primary'")
        return cls(**config)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of its keys, in order."""
        return tuple(sorted(self._keys))

    def key(self, key_id: str) -> bytes | None:
        """The 32 bytes of a key, or None if it is not here."""
        return self._keys.get(key_id)

    def __repr__(self) -> str:
        return f"Keyring(primary={self.primary!r}, key_ids={self.key_ids!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyring cannot be pickled or copied: it holds secrets")


def _key_id(key_id: object) -> str:
    if not isinstance(key_id, str) or _KEY_ID.fullmatch(key_id) is None:
        raise ConfigError("encryption: a key id is not 1 to 32 of A-Z a-z 0-9 . _ -")
    return key_id


def _key(key_id: str, key: object) -> bytes:
    if isinstance(key, str):
        key = _from_text(key.strip())
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise ConfigError(
            f"encryption: the key {key_id!r} is not {KEY_BYTES} bytes, or these in base64 or hex"
        )
    return key


def _from_text(text: str) -> bytes | None:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
        return base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return None
