"""Functions whose calls a cache answers, with the name and the signature they had."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from ..errors import ConfigError
from .functions import bound_arguments, is_async
from .keys import KeyRule

P = ParamSpec("P")
R = TypeVar("R")

Answer: TypeAlias = Callable[[Any, Any], Coroutine[Any, Any, Any]]
"""What a call with these positional and named arguments gives."""
Run: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

_RULE = "__ltm_key_rule__"


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function that has results to keep.

    Raises:
        ConfigError: It is a generator, or has none.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError("a generator has no result that could be kept")
    try:
        return inspect.signature(function)
    except ValueError as exc:
        raise ConfigError("a function that is cached needs a signature") from exc


def decorated(function: Callable[P, R], rule: KeyRule, answer: Answer, run: Run) -> Callable[P, R]:
    """*function*, answered by *answer*; where it is plain, by way of *run*, which waits."""
    made: Any
    if is_async(function):

        @functools.wraps(function)
        async def cached_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await answer(args, kwargs)

        made = cached_async
    else:

        @functools.wraps(function)
        def cached_plain(*args: P.args, **kwargs: P.kwargs) -> Any:
            return run(functools.partial(answer, args, kwargs))

        made = cached_plain
    made.__dict__[_RULE] = rule
    return cast("Callable[P, R]", made)


async def key_of(function: Callable[..., Any], args: Any, kwargs: Any) -> str:
    """The key of what a decorated function gives for these arguments.

    Raises:
        ConfigError: *function* is none.
    """
    rule = getattr(function, _RULE, None)
    if not isinstance(rule, KeyRule):
        raise ConfigError("function must be one that cached() has decorated")
    return await rule.key_of(bound_arguments(inspect.signature(function), args, kwargs))
