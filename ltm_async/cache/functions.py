"""The functions whose results are cached: their names, their code, their arguments, their calls."""

from __future__ import annotations

import contextvars
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..worker import aside

VERSION_DIGITS = 16


def name_of(action: Callable[..., Any]) -> str:
    """``module.qualname`` of a function or method, the same in every process.

    Raises:
        ConfigError: What it does is not told by its name, so that another could share its entries.
    """
    if not (inspect.isroutine(action) and hasattr(action, "__qualname__")):
        kind = type(action).__name__
        raise ConfigError(f"a {kind} has no name of its own under which to cache; pass name=")
    if "<lambda>" in action.__qualname__:
        raise ConfigError("a lambda has no name of its own under which to cache; pass name=")
    module = getattr(action, "__module__", None) or "builtins"
    return f"{module}.{action.__qualname__}"


def code_version(action: Callable[..., Any]) -> str:
    """A hash of the bytecode of *action* and of what is defined inside it.

    It changes with Python's version too. What the function calls, its defaults and what it
    closes over are not part of it.

    Raises:
        ConfigError: There is no Python code to look at.
    """
    while isinstance(action, functools.partial):
        action = action.func
    code = getattr(inspect.unwrap(action), "__code__", None)
    if not isinstance(code, types.CodeType):
        raise ConfigError("code_version needs a Python function, or a text of your own")
    digest = hashlib.sha256(repr(_described(code)).encode())
    return digest.hexdigest()[:VERSION_DIGITS]


def _described(constant: object) -> object:
    """What is the same in every process: no addresses, no line numbers, no order of sets."""
    if isinstance(constant, types.CodeType):
        return (constant.co_code, constant.co_names, _described(constant.co_consts))
    if isinstance(constant, tuple):
        return tuple(map(_described, constant))
    if isinstance(constant, frozenset):
        return sorted(map(repr, map(_described, constant)))
    return constant


def bound_arguments(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by their names, defaults included."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        match signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                named[name] = list(value)
            case inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            case _:
                named[name] = value
    return named


def is_async(action: Callable[..., Any]) -> bool:
    while isinstance(action, functools.partial):
        action = action.func
    return inspect.iscoroutinefunction(action) or inspect.iscoroutinefunction(
        getattr(action, "__call__", None)  # noqa: B004  # whether it is async, not whether it is
    )


async def perform(
    action: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What *action* gives; a plain function runs in a thread of its own, beside the loop.

    It has a copy of the caller's context variables. When the caller is cancelled the thread goes
    on to its end, and nobody hears of it.
    """
    if is_async(action):
        return await action(*args, **kwargs)
    run = functools.partial(contextvars.copy_context().run, _called, action, args, kwargs)
    result = await aside(run, "ltm-action")
    return await result if inspect.isawaitable(result) else result


def _called(action: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return action(*args, **kwargs)
    except StopIteration as exc:  # no future can carry it
        raise RuntimeError("the cached function raised StopIteration") from exc
