"""The errors: their tree, their copies, and that they tell no secrets."""

from __future__ import annotations

import copy
import inspect
import logging
import pickle
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ltm_async
from ltm_async import (
    AccessDeniedError,
    BlockingCallError,
    CachedFailureError,
    ClosedError,
    ConfigError,
    ConflictError,
    CorruptError,
    DeadlineError,
    FencedError,
    InvalidEntryError,
    LTMBackend,
    LTMError,
    MemoryBlobStore,
    MemoryCatalog,
    MissingDriverError,
    OutcomeUnknownError,
    RateLimitedError,
    StoreError,
    UnavailableError,
    errors,
)
from ltm_async.results import StoreResult

from .corpus import BAD_ENDS, BAD_METADATA, BAD_VALUES, said

SECRET = "canary-9b3e"

TREE: dict[type[Exception], tuple[type[Exception], ...]] = {
    LTMError: (Exception,),
    ConfigError: (LTMError, ValueError),
    MissingDriverError: (LTMError, ImportError),
    InvalidEntryError: (LTMError, ValueError),
    ClosedError: (LTMError,),
    BlockingCallError: (LTMError, RuntimeError),
    ConflictError: (LTMError,),
    CachedFailureError: (LTMError,),
    StoreError: (LTMError,),
    UnavailableError: (StoreError,),
    RateLimitedError: (UnavailableError,),
    OutcomeUnknownError: (StoreError,),
    DeadlineError: (OutcomeUnknownError, TimeoutError),
    AccessDeniedError: (StoreError,),
    FencedError: (StoreError,),
    CorruptError: (StoreError,),
}


def public_errors() -> set[type[Exception]]:
    return {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == errors.__name__
    }


def test_the_tree_is_as_documented() -> None:
    assert public_errors() == TREE.keys()
    for kind, bases in TREE.items():
        assert kind.__bases__ == bases
        assert getattr(ltm_async, kind.__name__) is kind


def test_the_picture_of_the_tree_is_the_tree() -> None:
    """Each line is indented below its parent."""
    parents: dict[int, str] = {}
    drawn: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)([A-Za-z]+Error)( \((\w+)\))? *", line):
            depth, name = len(found[1]) // 4, found[2]
            parents[depth] = name
            drawn[name] = parents[depth - 1] if depth else None
            if found[4]:
                assert found[4] in {base.__name__ for base in getattr(errors, name).__bases__}
    assert drawn == {
        kind.__name__: None if kind is LTMError else bases[0].__name__
        for kind, bases in TREE.items()
    }


def examples() -> list[Exception]:
    plain = [
        kind("message")
        for kind in TREE
        if kind not in (MissingDriverError, ConflictError, RateLimitedError)
    ]
    stores = [kind("message", store="sqlite") for kind in TREE if issubclass(kind, StoreError)]
    return [
        *plain,
        *stores,
        MissingDriverError("message", name="asyncpg"),
        ConflictError("message", key="k", version=7),
        ConflictError.between("k", 3, None),
        RateLimitedError("message", store="s3", retry_after_s=2.5),
    ]


@pytest.mark.parametrize("exc", examples(), ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda exc: pickle.loads(pickle.dumps(exc))]
)
def test_an_error_survives_copying_and_pickling(
    exc: Exception, again: Callable[[Exception], Exception]
) -> None:
    other = again(exc)
    assert other is not exc
    assert type(other) is type(exc)
    assert (str(other), other.args, vars(other)) == (str(exc), exc.args, vars(exc))
    assert str(other) in ("message", "expected version 3 under this key, but there is none")
    assert getattr(other, "name", None) == getattr(exc, "name", None)


def test_every_class_of_error_has_an_example() -> None:
    assert {type(exc) for exc in examples()} == TREE.keys()


def test_the_attributes_have_their_defaults() -> None:
    assert StoreError("x").store == DeadlineError("x").store == ""
    assert RateLimitedError("x").retry_after_s is None
    assert (ConflictError("x").key, ConflictError("x").version) == ("", None)


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        (3, 5, "expected version 3 under this key, but it has version 5"),
        (3, None, "expected version 3 under this key, but there is none"),
        (0, 5, "expected no entry under this key, but it has version 5"),
    ],
)
def test_a_conflict_says_what_it_expected(expected: int, found: int | None, message: str) -> None:
    conflict = ConflictError.between("k", expected, found)
    assert (str(conflict), conflict.key, conflict.version) == (message, "k", found)


def test_a_driver_s_error_becomes_the_cause_of_ours() -> None:
    table: dict[type[Exception], type[StoreError]] = {
        PermissionError: AccessDeniedError,
        OSError: UnavailableError,
    }
    for raised, expected in zip([PermissionError("p"), OSError("o")], table.values(), strict=True):
        with (
            pytest.raises(expected) as caught,
            errors.translating(table, store="local"),
        ):
            raise raised
        assert caught.value.__cause__ is raised
        assert type(caught.value) is expected
        assert caught.value.store == "local"
        assert str(caught.value) == f"local: {raised}"


def test_what_no_table_names_passes_through() -> None:
    with pytest.raises(LookupError), errors.translating({OSError: StoreError}, store="local"):
        raise LookupError


# Results


def test_a_result_raises_the_error_that_it_reports() -> None:
    exc = UnavailableError("away", store="sqlite")
    failed = StoreResult(key="k", exception=exc)
    assert (failed.success, failed.error, failed.error_type) == (False, "away", "UnavailableError")
    with pytest.raises(UnavailableError) as caught:
        failed.raise_for_error()
    assert caught.value is exc
    done = StoreResult(key="k", stored=True)
    assert (done.raise_for_error(), done.error, done.error_type) == (done, None, None)


@pytest.mark.parametrize(
    ("exc", "degraded"),
    [
        (UnavailableError("x"), True),
        (RateLimitedError("x"), True),
        (OutcomeUnknownError("x"), True),
        (DeadlineError("x"), True),
        (CorruptError("x"), False),
        (AccessDeniedError("x"), False),
        (FencedError("x"), False),
    ],
)
def test_only_a_store_that_does_not_answer_degrades(exc: StoreError, degraded: bool) -> None:
    assert StoreResult(key="k", exception=exc).degraded is degraded


# Secrets


Call = Callable[[LTMBackend], Awaitable[Any]]


def secret_calls() -> dict[str, Call]:
    """Calls with a secret in their values, metadata and keys that must all fail."""

    def store(**arguments: Any) -> Call:
        return lambda ltm: ltm.store(**({"key": SECRET, "value": SECRET} | arguments))

    def batch(**fields: Any) -> Call:
        return lambda ltm: ltm.store_batch([{"key": SECRET, "value": SECRET} | fields])

    calls: dict[str, Call] = {}
    for case, (make, _) in BAD_VALUES.items():
        value = make()
        calls[f"value: {case}"] = store(value={SECRET: SECRET, "x": [SECRET, value]})
        calls[f"entry: {case}"] = batch(value={SECRET: SECRET, "x": [SECRET, value]})
    for case, (metadata, _) in BAD_METADATA.items():
        if isinstance(metadata, dict):
            calls[f"metadata: {case}"] = store(metadata={SECRET: SECRET, "x": [SECRET], **metadata})
    for case, (ends, _) in BAD_ENDS.items():
        calls[f"end: {case}"] = store(**ends)
    return calls | {
        "key: NUL": store(key=f"{SECRET}\0"),
        "key: surrogate": store(key=f"{SECRET}\ud800"),
        "key: long": store(key=SECRET * 200),
        "key: bytes": store(key=SECRET.encode()),
        "key of dict": store(value={(SECRET,): 1}),
        "metadata: text": store(metadata=SECRET),
        "ttl: text": store(ttl=SECRET),
        "expires_at: text": store(expires_at=SECRET),
        "if_version: text": store(if_version=SECRET),
        "entries: text": lambda ltm: ltm.store_batch(SECRET),
        "entry: text": lambda ltm: ltm.store_batch([SECRET]),
        "entry: twice": lambda ltm: ltm.store_batch([{"key": SECRET, "value": SECRET}] * 2),
        "entry: no key": lambda ltm: ltm.store_batch([{"value": SECRET}]),
        "entry: unknown field": batch(vlaue=SECRET),
        "conflict": store(if_version=7),
        "cursor": lambda ltm: ltm.list_entries(cursor=f"{SECRET}\0"),
    }


@pytest.mark.parametrize("case", secret_calls())
async def test_an_error_shows_neither_values_nor_keys(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ltm = LTMBackend(MemoryCatalog(), MemoryBlobStore())
    with pytest.raises((InvalidEntryError, ConflictError)) as caught:
        await secret_calls()[case](ltm)
    assert SECRET not in said(caught.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda: LTMBackend(f"postgre://me:{SECRET}@host/db", "memory:"),
        lambda: LTMBackend(f"me:{SECRET}@host/db", "memory:"),
        lambda: LTMBackend("memory:", f"s4://{SECRET}@bucket"),
        lambda: LTMBackend("memory:", f"memory://{SECRET}"),
        lambda: LTMBackend(f"memory:{SECRET}", "memory:"),
        lambda: LTMBackend({"type": "sqlite", "psth": SECRET}, "memory:"),
        lambda: LTMBackend({"type": {SECRET: 1}}, "memory:"),
        lambda: LTMBackend({"type": f"pg:{SECRET}@h"}, "memory:"),
        lambda: LTMBackend({"type": f"strange_catalog_{SECRET}"}, "memory:"),
        lambda: LTMBackend("memory:", {"uri": [SECRET]}),
        lambda: LTMBackend("memory:", f"{SECRET}\0"),
        lambda: LTMBackend("memory:", "memory:", namespace=f"{SECRET}\0"),
    ],
)
def test_a_configuration_error_shows_no_credentials(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert SECRET not in said(caught.value)


def test_no_repr_shows_a_value() -> None:
    ltm = LTMBackend("memory:", "memory:")
    assert SECRET not in repr(ltm)
    failed = StoreResult(key="k", exception=StoreError(SECRET))
    assert SECRET not in repr(failed)
