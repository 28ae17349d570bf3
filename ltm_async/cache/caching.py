"""Cache: results of actions in a long-term memory, made once and served while they are fresh."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar, Unpack

from ..backend import LTMBackend
from ..entry import check_key, check_text
from ..errors import BlockingCallError, ConfigError, InvalidEntryError, StoreError
from ..portal import run_blocking
from .answering import Answering
from .decorating import decorated, key_of, signature_of
from .entries import CacheEntry, InvalidateResult, check_user_metadata
from .flights import flights_of
from .functions import bound_arguments, is_async, name_of, perform
from .invalidating import OURS, invalidate_all, literal_prefix, matcher
from .keys import MAX_PREFIX_BYTES, KeyRule, KeyStrategy, rule_of
from .outcomes import Answer, Call, told
from .policy import Policy, PolicyOptions, policy_of, with_ttl

P = ParamSpec("P")
R = TypeVar("R")


class Cache:
    """Keeps what actions give in a long-term memory, and runs each once for many callers.

    A result is an entry of *ltm*: its value as the action gave it, its end as the entry's own
    ``expires_at``, so that ``ltm.retrieve`` reads it and ``ltm.cleanup_expired`` removes it. A hit
    takes one round trip to the catalog. A failure of the memory is logged and counts as a miss: it
    never fails the action, and never has it run twice for one call.

    Args:
        ltm: Where results are kept; it stays yours to close.
        prefix: What the keys made here begin with, up to 64 bytes.
        storage: Options of blob stores by scheme, such as ``{"s3": {"region": "eu-west-1"}}``, for
            the strategy ``file_content``.
        options: Defaults for every call; see :class:`~ltm_async.cache.PolicyOptions`.

    Raises:
        ConfigError: An argument cannot be used.
    """

    def __init__(
        self,
        ltm: LTMBackend,
        *,
        prefix: str = "cache:",
        storage: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        if not isinstance(ltm, LTMBackend):
            raise ConfigError(f"ltm must be an LTMBackend, not {type(ltm).__name__}")
        try:
            check_text("prefix", prefix, MAX_PREFIX_BYTES)
        except InvalidEntryError as exc:
            raise ConfigError(str(exc)) from None
        self._prefix = prefix
        self._storage = storage or {}
        self._policy = policy_of(Policy(), options)
        self._answering = Answering(ltm)
        self._allow_blocking = False

    def __repr__(self) -> str:
        return f"Cache({self._answering.ltm!r}, prefix={self._prefix!r})"

    async def wrap(
        self,
        action: Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        key: str | Callable[..., str] | None = None,
        key_strategy: KeyStrategy | None = None,
        key_source: str | None = None,
        ignore: Collection[str] = (),
        code_version: bool | str = False,
        metadata: Mapping[str, Any] | None = None,
        ttl_days: float | None = None,
        ttl_hours: float | None = None,
        ttl_seconds: float | None = None,
        skip_cache: bool = False,
        cache_enabled: bool = True,
        **options: Unpack[PolicyOptions],
    ) -> dict[str, Any]:
        """What ``action(**args)`` gives, from the memory where it is there already.

        A plain function runs in a thread of its own, beside the loop. Calls of one key that come
        while it runs get the same result, or the same exception; it goes on when one of them is
        cancelled, and is cancelled with the last. Other processes wait for it by the lease.

        What is no JSON is returned as it is and not kept. An exception, and a dict whose
        ``success`` is false, is kept only with *error_ttl*.

        Args:
            name: Of the action, in its keys; by default ``module.qualname``.
            key: With the strategy ``custom``: the whole key, or what makes it of the arguments.
            key_strategy: ``args``: the name and the arguments as JSON, or their hash where
                that is over 1024 bytes; ``sha256``: always their hash, or that of the argument
                *key_source*; ``custom``: *key*, which implies it; ``file_content``: the hash
                of what lies at the path or storage URI that the argument *key_source*
                (``file``) gives, and of the other arguments.
            ignore: Names of arguments that do not count for the key.
            code_version: A text to be part of the key; or True, for a hash of the function's code.
            metadata: The entry's own, for ``invalidate(metadata_filter=…)``.
            ttl_days, ttl_hours, ttl_seconds: At most one of them, instead of *ttl*.
            skip_cache: Run the action without a look, and keep what it gives.
            cache_enabled: False leaves the memory alone.
            options: See :class:`~ltm_async.cache.PolicyOptions`.

        Returns:
            A copy of the action's dict, or ``{"result": …}`` around anything else, with
            ``_cache_hit``, ``_cache_key`` and ``_cache_created_at``: when the result was made, as
            ISO 8601 in UTC, or None when it is not in the memory.

        Raises:
            ConfigError, InvalidEntryError: An argument cannot be used, or is no JSON and counts
                for the key; nothing was run.
            CachedFailureError: The action failed before, and *error_ttl* has it remembered.
        """
        if not callable(action):
            raise ConfigError(f"action must be a callable, not {type(action).__name__}")
        arguments, own = _arguments(args), check_user_metadata(metadata)
        policy = policy_of(
            self._policy,
            with_ttl(options, ttl_days=ttl_days, ttl_hours=ttl_hours, ttl_seconds=ttl_seconds),
        )
        if not cache_enabled:
            return told(Answer(await perform(action, (), arguments), False, None, None))
        rule = self._rule(
            action,
            name=name,
            key=key,
            key_strategy=key_strategy,
            key_source=key_source,
            ignore=ignore,
            code_version=code_version,
        )
        call = await self._call(rule, policy, own, action, (), arguments, arguments)
        if call is None:
            return told(Answer(await perform(action, (), arguments), False, None, None))
        if skip_cache:
            return told(await self._answering.answer_anew(call))
        return told(await self._answering.answer(call))

    def cached(
        self,
        *,
        name: str | None = None,
        key: str | Callable[..., str] | None = None,
        key_strategy: KeyStrategy | None = None,
        key_source: str | None = None,
        ignore: Collection[str] = (),
        code_version: bool | str = False,
        metadata: Mapping[str, Any] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """A decorator: the function with the same signature, answered as :meth:`wrap` does.

        An async function stays async. A plain one stays plain: it waits, runs in a thread of its
        own when it is run, and has nothing deferred; where an event loop runs it raises
        BlockingCallError. Defaults count as arguments that were given; a method's ``self`` is one,
        to be named in *ignore* or used by *key*. What the function gives has to be JSON to be kept,
        and comes back equal.

        Raises:
            ConfigError: An argument cannot be used, or the function has no results to keep.
        """
        policy, own = policy_of(self._policy, options), check_user_metadata(metadata)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = signature_of(function)
            rule = self._rule(
                function,
                name=name,
                key=key,
                key_strategy=key_strategy,
                key_source=key_source,
                ignore=ignore,
                code_version=code_version,
            )
            # A plain function's loop rests once it has its answer.
            deferring = policy if is_async(function) else dataclasses.replace(policy, defer=None)

            async def answer(args: Any, kwargs: Any) -> Any:
                arguments = bound_arguments(signature, args, kwargs)
                call = await self._call(rule, deferring, own, function, args, kwargs, arguments)
                if call is None:
                    return await perform(function, args, kwargs)
                return (await self._answering.answer(call)).value

            return decorated(function, rule, answer, self._run)

        return decorate

    async def key(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of what a function decorated with :meth:`cached` gives for these arguments.

        Raises:
            ConfigError: *function* is none.
            InvalidEntryError: An argument counts for the key and is no JSON.
        """
        return await key_of(function, args, kwargs)

    async def get(self, key: str, *, timeout: float | None = None) -> CacheEntry:
        """What the memory has under *key*; never runs anything, and minds no freshness.

        Raises:
            InvalidEntryError: *key* breaks a limit; nothing was sent.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        return CacheEntry.of(await self._answering.ltm.retrieve(key, timeout=timeout))

    async def invalidate(
        self,
        key: str | None = None,
        *,
        pattern: str | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> InvalidateResult:
        """Delete the entry under *key*, or the results of any cache that one of the others selects.

        With *pattern* or *metadata_filter* entries are listed, a thousand at a time, and those of
        a cache that match are deleted; what is written meanwhile may stay. A result that is being
        made in this loop for *key* is not kept.

        Args:
            pattern: Of keys; ``*`` is any text, ``?`` any one character. Only entries below its
                literal beginning are looked at.
            metadata_filter: As :mod:`ltm_async.filters` describes, such as
                ``{"_cache_action": "app.find"}`` or a condition on metadata of your own.
            timeout: For each request.

        Raises:
            InvalidEntryError: An argument breaks a limit, or not just one is given.
            StoreError: A store failed, and ``on_unavailable`` is ``"raise"``.
        """
        ltm = self._answering.ltm
        if [key, pattern, metadata_filter].count(None) != 2:
            raise InvalidEntryError("invalidate needs one of key, pattern and metadata_filter")
        if key is not None:
            check_key(key)
            flights_of(ltm).leave_behind(key)
            gone = await ltm.delete(key, timeout=timeout)
            flights_of(ltm).leave_behind(key)  # one that has looked while it was being deleted
            return InvalidateResult(deleted=int(gone.deleted), exception=gone.exception)
        if metadata_filter == {}:
            raise InvalidEntryError("metadata_filter is empty; pattern='*' selects everything")
        wanted = "*" if pattern is None else pattern
        matches = matcher(wanted)
        return await invalidate_all(
            ltm,
            prefix=literal_prefix(wanted),
            matches=matches,
            metadata_filter=OURS if metadata_filter is None else {"$and": [metadata_filter, OURS]},
            timeout=timeout,
        )

    def _rule(
        self,
        action: Callable[..., Any],
        *,
        name: str | None,
        key: str | Callable[..., str] | None,
        key_strategy: KeyStrategy | None,
        key_source: str | None,
        ignore: Collection[str],
        code_version: bool | str,
    ) -> KeyRule:
        return rule_of(
            name_of(action) if name is None else name,
            action,
            prefix=self._prefix,
            key=key,
            key_strategy=key_strategy,
            key_source=key_source,
            ignore=ignore,
            version=code_version,
            storage=self._storage,
        )

    async def _call(
        self,
        rule: KeyRule,
        policy: Policy,
        metadata: Mapping[str, Any],
        action: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        arguments: Mapping[str, Any],
    ) -> Call | None:
        """What is to be answered; None where what would name it could not be read."""
        try:
            key = await rule.key_of(arguments)
        except StoreError as exc:
            self._answering.warn(exc)
            return None
        return Call(
            key=key,
            action=rule.name,
            run=lambda: perform(action, args, kwargs),
            policy=policy,
            metadata=metadata,
        )

    def _run(self, make: Callable[[], Any]) -> Any:
        if asyncio._get_running_loop() is not None and not self._allow_blocking:
            raise BlockingCallError(
                "a cached plain function would stop the event loop that runs in this thread: "
                "make it async, and await it"
            )
        return run_blocking(make, allow_blocking=self._allow_blocking)


def _arguments(args: object) -> dict[str, Any]:
    if args is None:
        return {}
    if not isinstance(args, Mapping) or any(type(name) is not str for name in args):
        raise InvalidEntryError("args must be a mapping from names to arguments")
    return dict(args)
