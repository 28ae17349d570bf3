"""Options and their limits, and the mapping of an agent's configuration file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from .entry import shown
from .errors import ConfigError
from .frozen import Frozen, frozen
from .retry import RetryPolicy

if TYPE_CHECKING:
    from .encryption import Keyring
    from .vectors import Embed

_ENV = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@frozen
class Options(Frozen):
    """How one backend works; see :class:`~ltm_async.backend.LTMBackend` for each."""

    namespace: str = ""
    inline_threshold: int = 1024
    batch_size: int = 500
    max_concurrency: int = 50
    max_inflight_bytes: int = 64 * 1024 * 1024
    fallback_size: int = 1000
    on_unavailable: Literal["degrade", "raise"] = "degrade"
    index_text: bool = False
    embed: Embed | None = None
    encryption: Keyring | None = None
    timeout: float | None = 30.0
    retry: RetryPolicy = RetryPolicy()  # frozen

    def __post_init__(self) -> None:
        _check_range("inline_threshold", self.inline_threshold, 0, 512 * 1024)
        _check_range("batch_size", self.batch_size, 1, 10_000)
        _check_range("max_concurrency", self.max_concurrency, 1, 1_000)
        _check_range("max_inflight_bytes", self.max_inflight_bytes, 64 * 1024, 1 << 40)
        _check_range("fallback_size", self.fallback_size, 0, 1_000_000)
        if not isinstance(self.index_text, bool):
            raise ConfigError(f"index_text must be bool, not {type(self.index_text).__name__}")
        if self.embed is not None and not callable(self.embed):
            raise ConfigError(f"embed must be a function, not {type(self.embed).__name__}")
        if self.encryption is not None:
            from .encryption import Keyring

            if not isinstance(self.encryption, Keyring):
                raise ConfigError(
                    f"encryption must be a Keyring, not {type(self.encryption).__name__}"
                )
            plain = "index_text" if self.index_text else "embed"
            if (self.index_text or self.embed) and not self.encryption.allow_plain_index:
                raise ConfigError(
                    f"{plain} keeps in plain what tells of values; with encryption it needs a "
                    "Keyring with allow_plain_index=True"
                )
        check_timeout(self.timeout)
        if self.on_unavailable not in ("degrade", "raise"):
            raise ConfigError(
                f"on_unavailable is {shown(self.on_unavailable)}, it must be 'degrade' or 'raise'"
            )
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigError(f"retry must be a RetryPolicy, not {type(self.retry).__name__}")


OPTION_NAMES = tuple(field.name for field in dataclasses.fields(Options))
RETRY_NAMES = tuple(field.name for field in dataclasses.fields(RetryPolicy))
_WHOLE = (
    "inline_threshold",
    "batch_size",
    "max_concurrency",
    "max_inflight_bytes",
    "fallback_size",
    "attempts",
)
_DECIMAL = ("timeout", "base_s", "throttled_base_s", "cap_s")
_SWITCHES = ("index_text",)
_KEYRING_SWITCHES = ("allow_plaintext", "allow_plain_index")
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def check_timeout(timeout: object) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise ConfigError(f"timeout must be seconds or None, not {type(timeout).__name__}")
    if not 0 < timeout <= 86_400:
        raise ConfigError(f"timeout is {shown(timeout)} s, it must be above 0 and at most 86400")


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int:
        raise ConfigError(f"{name} must be int, not {type(value).__name__}")
    if not low <= value <= high:
        raise ConfigError(f"{name} is {shown(value)}, it must be {low} to {high}")


def check_names(what: str, given: Collection[object], known: Collection[str]) -> None:
    """Refuse the first unknown name, with the nearest known one."""
    for name in given:
        if name in known:
            continue
        import difflib

        given_name = name[:60] if isinstance(name, str) else shown(name)
        near = difflib.get_close_matches(given_name, known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
        raise ConfigError(f"{what} has no option {given_name!r}{hint}")


def expand_env(value: Any, environ: Mapping[str, str]) -> Any:
    """*value* with ``${NAME}`` and ``${NAME:-default}`` replaced in every string.

    ``$$`` stands for one dollar sign. A variable that is not set and has no default is an
    error that names it.
    """
    if isinstance(value, str):
        return _ENV.sub(lambda match: _variable(match, environ), value)
    if isinstance(value, Mapping):
        return {key: expand_env(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_env(item, environ) for item in value]
    return value


def _variable(match: re.Match[str], environ: Mapping[str, str]) -> str:
    name, default = match[1], match[2]
    if name is None:
        return "$"
    found = environ.get(name)
    if default is not None:
        found = found or default
    if found is None:
        raise ConfigError(f"the environment variable {name} is not set")
    return found


def options_from(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for :class:`Options`; numbers may be text, as variables are."""
    options = {
        name: to_bool(value) if name in _SWITCHES else _number(name, value)
        for name, value in mapping.items()
    }
    if options.get("encryption") is not None:
        from .encryption import Keyring

        options["encryption"] = Keyring.from_config(_switched(options["encryption"]))
    retry = options.get("retry")
    if isinstance(retry, Mapping):
        check_names("retry", retry, RETRY_NAMES)
        options["retry"] = RetryPolicy(
            **{name: _number(name, value) for name, value in retry.items()}
        )
    return options


def _switched(encryption: Any) -> Any:
    if not isinstance(encryption, Mapping):
        return encryption
    return {
        name: to_bool(value) if name in _KEYRING_SWITCHES else value
        for name, value in encryption.items()
    }


def to_bool(value: object) -> object:
    """*value* as a bool where it is text that says one, as of a variable or a URL."""
    return _BOOLS.get(value.lower(), value) if isinstance(value, str) else value


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, str) or name not in (*_WHOLE, *_DECIMAL):
        return value
    try:
        return int(value) if name in _WHOLE else float(value)
    except ValueError:
        raise ConfigError(f"{name} is {value[:40]!r}, it must be a number") from None
