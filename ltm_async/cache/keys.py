"""The keys of cached results: from an action's name and its arguments."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeAlias, get_args

from ..entry import MAX_KEY_BYTES, check_key, check_text, encode, shown
from ..errors import ConfigError, InvalidEntryError
from .content import hash_content
from .functions import VERSION_DIGITS, code_version

KeyStrategy: TypeAlias = Literal["args", "sha256", "custom", "file_content"]

MAX_NAME_BYTES = 256
MAX_PREFIX_BYTES = 64
DEFAULT_SOURCE = "file"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule:
    """How the key of one action's results is made; see :meth:`Cache.wrap` for each field."""

    stem: str
    """What all keys of the action begin with: prefix, name and code version."""
    name: str
    strategy: KeyStrategy
    key: str | Callable[..., str] | None
    source: str | None
    ignore: frozenset[str]
    storage: Mapping[str, Mapping[str, Any]]

    async def key_of(self, arguments: Mapping[str, Any]) -> str:
        """The key for *arguments*, of 1 to 1024 bytes.

        Raises:
            InvalidEntryError: An argument that counts is no JSON, or the key breaks a limit.
            StoreError: The file or object whose content counts could not be read.
        """
        if self.strategy == "custom":
            return self._custom(arguments)
        counted = {name: arguments[name] for name in arguments if name not in self.ignore}
        if self.strategy == "file_content":
            return await self._of_content(counted)
        if self.strategy == "sha256":
            if self.source is not None:
                return f"{self.stem}:sha256:{_sha256(_text(self._source(counted)))}"
            return f"{self.stem}:sha256:{_sha256(canonical(counted))}"
        text = canonical(counted)
        key = f"{self.stem}:{text}"
        if len(key.encode()) > MAX_KEY_BYTES:
            return f"{self.stem}:sha256:{_sha256(text)}"
        return key

    def _custom(self, arguments: Mapping[str, Any]) -> str:
        key = self.key(**arguments) if callable(self.key) else self.key
        check_key(key)
        assert isinstance(key, str)  # noqa: S101  # check_key has seen to it
        return key

    async def _of_content(self, counted: dict[str, Any]) -> str:
        """Where the content lies does not count, and every other argument does."""
        name = self.source or DEFAULT_SOURCE
        location = self._source(counted)[name]
        content = await hash_content(location, storage=self.storage, name=f"argument {name!r}")
        del counted[name]
        key = f"{self.stem}:file:{content.content_hash.removeprefix('sha256:')}"
        return f"{key}:{_sha256(canonical(counted))}" if counted else key

    def _source(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        name = self.source or DEFAULT_SOURCE
        if name not in counted:
            raise InvalidEntryError(f"the arguments have no {name!r}, which key_source names")
        return {name: counted[name]}


def rule_of(
    name: str,
    action: Callable[..., Any],
    *,
    prefix: str,
    key: str | Callable[..., str] | None,
    key_strategy: KeyStrategy | None,
    key_source: str | None,
    ignore: Collection[str],
    version: bool | str,
    storage: Mapping[str, Mapping[str, Any]],
) -> KeyRule:
    """Check everything that makes the key.

    Raises:
        ConfigError: An argument cannot be used, or contradicts another.
    """
    try:
        check_text("name", name, MAX_NAME_BYTES)
    except InvalidEntryError as exc:
        raise ConfigError(str(exc)) from None
    strategy = key_strategy or ("args" if key is None else "custom")
    if strategy not in get_args(KeyStrategy):
        known = ", ".join(get_args(KeyStrategy))
        raise ConfigError(f"key_strategy is {shown(strategy)}, there are {known}")
    if (strategy == "custom") != (key is not None):
        raise ConfigError("key and key_strategy='custom' need each other")
    if key is not None and not (isinstance(key, str) or callable(key)):
        raise ConfigError(f"key must be str or a callable, not {type(key).__name__}")
    if key_source is not None and strategy not in {"sha256", "file_content"}:
        raise ConfigError("key_source is for the strategies sha256 and file_content")
    if isinstance(ignore, str) or not all(isinstance(one, str) for one in ignore):
        raise ConfigError("ignore must be a collection of the names of arguments")
    return KeyRule(
        name=name,
        stem=f"{prefix}{name}{_version(action, version)}",
        strategy=strategy,
        key=key,
        source=key_source,
        ignore=frozenset(ignore),
        storage=storage,
    )


def canonical(arguments: Mapping[str, Any]) -> str:
    """The canonical JSON of *arguments*.

    Raises:
        InvalidEntryError: One of them is no JSON; it is named.
    """
    return "{" + ",".join(_text({name: arguments[name]})[1:-1] for name in sorted(arguments)) + "}"


def _text(argument: dict[str, Any]) -> str:
    (name,) = argument
    return encode(f"argument {name!r}", argument)


def _version(action: Callable[..., Any], version: bool | str) -> str:
    if version is False:
        return ""
    text = code_version(action) if version is True else version
    try:
        check_text("code_version", text, VERSION_DIGITS * 4)
    except InvalidEntryError as exc:
        raise ConfigError(str(exc)) from None
    return f"@{text}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
