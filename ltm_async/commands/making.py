"""Commands out of plain functions, with Typer: each has its own options and the shared ones."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast, get_type_hints

import typer

from ..config import to_bool
from .session import Session, UsageError

EPILOG = (
    "Exit codes: 0 done; 1 no such key (get, delete), or verify or doctor found problems; "
    "2 wrong usage or bad input; 3 a store failed, or entries are damaged; 4 conflict "
    "(--if-version, --if-absent); 130 interrupted; 141 whoever read the output has stopped."
)
CatalogOption = Annotated[
    str | None, typer.Option(help="The catalog, such as sqlite:///memory.db; else LTM_CATALOG.")
]
StorageOption = Annotated[
    str | None, typer.Option(help="The blob store, such as ./blobs; else LTM_STORAGE.")
]
NamespaceOption = Annotated[
    str | None, typer.Option(help="The part of the memory to use; else LTM_NAMESPACE, else ''.")
]
IndexOption = Annotated[
    bool | None,
    typer.Option(
        "--index-text/--no-index-text",
        help="Index the text of what is stored, for search; else LTM_INDEX_TEXT, else not.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds for each call; else 30, and no limit for verify, gc.")
]
SHARED: Mapping[str, object] = {
    "catalog": CatalogOption,
    "storage": StorageOption,
    "namespace": NamespaceOption,
    "index_text": IndexOption,
    "timeout": TimeoutOption,
}


KeyArgument = Annotated[str, typer.Argument(metavar="KEY", show_default=False)]
IfVersion = Annotated[
    int | None, typer.Option(min=1, help="Only over the live entry with this version.")
]


def make_app(commands: Mapping[str, Callable[..., int]]) -> typer.Typer:
    """An application of *commands*, functions of the session and of their own options.

    Each takes the shared options too, before its name and after it, and returns its exit code.
    """
    app = typer.Typer(
        help="Long-term memory for agents: JSON on stdout, words on stderr. The options below may "
        "come before or after the command. LTM_ENCRYPTION may hold the keys that values are "
        "encrypted with: id:key, or more with commas between them, the first for what is stored.",
        epilog=EPILOG,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_before)
    for name, do in commands.items():
        settings = {"allow_extra_args": True}
        app.command(name, help=inspect.getdoc(do), context_settings=settings)(_with_shared(do))
    return app


def _before(
    ctx: typer.Context,
    catalog: CatalogOption = None,
    storage: StorageOption = None,
    namespace: NamespaceOption = None,
    index_text: IndexOption = None,
    timeout: TimeoutOption = None,
) -> None:
    session = cast("Session", ctx.obj)
    session.catalog = catalog or os.environ.get("LTM_CATALOG") or None
    session.storage = storage or os.environ.get("LTM_STORAGE") or None
    session.namespace = os.environ.get("LTM_NAMESPACE") if namespace is None else namespace
    session.index_text = _switch("LTM_INDEX_TEXT") if index_text is None else index_text
    session.timeout = timeout
    # No option: what is in a command line is seen by every user of the machine.
    session.encryption = os.environ.get("LTM_ENCRYPTION") or None


def _switch(variable: str) -> bool | None:
    value = to_bool(os.environ.get(variable) or None)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{variable} must be true or false")
    return value


def _with_shared(do: Callable[..., int]) -> Callable[..., int]:
    hints = get_type_hints(do, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in list(inspect.signature(do).parameters.values())[1:]
    ]
    context = inspect.Parameter(
        "ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    shared = [
        inspect.Parameter(
            option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )
        for option, annotation in SHARED.items()
    ]

    def run(ctx: typer.Context, **given: Any) -> int:
        if ctx.args:  # the parser would repeat them, and they may be a value
            raise UsageError("too many arguments: a VALUE with spaces needs quotes")
        for option in SHARED:
            if (value := given.pop(option)) is not None:
                setattr(ctx.obj, option, value)
        return do(ctx.obj, **given)

    parameters = [context, *own, *shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
