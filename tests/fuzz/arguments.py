"""What users and their files give: filters, queries, cursors, configuration, command lines."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from ltm_async import (
    ConfigError,
    InvalidEntryError,
    Keyring,
    LTMBackend,
    LTMError,
    create_catalog_backend,
)
from ltm_async.catalogs.firestore.feed import TimePass
from ltm_async.cli import main
from ltm_async.config import OPTION_NAMES, RETRY_NAMES
from ltm_async.cursors import VersionPass, write_cursor
from ltm_async.exits import CONFLICT, DONE, INTERRUPTED, NOT_FOUND, STORE_FAILED, WRONG_USE
from ltm_async.filters import OPERATORS, parse_filter
from ltm_async.passes import SnapshotPass
from ltm_async.registry import BLOB_STORES, CATALOGS, Option
from ltm_async.text import matches, parse_query, text_in, text_of, words_of

from .made import CANARY, anything, changed_text, json_values, scalars, texts, whole
from .running import target
from .stored import clean

NAMES = st.sampled_from(["a", "b", "$.a", "a.b", 'a"b', "", "$eq"]) | texts
METADATA = {"a": {"b": [1, None], "": "x"}, "b": 2.5, "$.a": True, 'a"b': "text"}


def _filters(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    operations = st.dictionaries(
        st.sampled_from(OPERATORS), scalars | st.lists(scalars, max_size=3), max_size=3
    )
    return (
        st.dictionaries(NAMES, operations | scalars | json_values, max_size=3)
        | st.fixed_dictionaries({"$and": st.lists(inner, max_size=3)})
        | st.fixed_dictionaries({"$or": st.lists(inner, max_size=3)})
        | st.fixed_dictionaries({"$not": inner})
        | st.builds(
            lambda path, rest: {"$path": path, **rest}, st.lists(NAMES, max_size=3), operations
        )
    )


FILTERS: st.SearchStrategy[Any] = st.deferred(lambda: _filters(FILTERS))


@target(FILTERS | anything)
def filters(given: Any) -> None:
    try:
        parsed = parse_filter(given)
    except InvalidEntryError:
        return
    assert parsed.matches(METADATA) in (True, False)
    assert parsed.matches({}) in (True, False)


@target(FILTERS)
async def filters_in_sqlite(given: Any) -> None:
    """The database finds what the filter itself does, and takes none for SQL."""
    try:
        parsed = parse_filter(given)
    except InvalidEntryError:
        return
    ltm = _memory()
    await ltm.store("k", "word", metadata=METADATA)
    found = await ltm.search("word", metadata_filter=given)
    assert len(found.results) == parsed.matches(METADATA)
    assert len((await ltm.list_entries(metadata_filter=given)).entries) == len(found.results)


_memories: dict[int, LTMBackend] = {}


def _memory() -> LTMBackend:
    """One for all executions: a SQLite catalog belongs to no loop."""
    pid = os.getpid()
    if pid not in _memories:
        _memories[pid] = LTMBackend(
            "sqlite:///:memory:", "memory:", index_text=True, on_unavailable="raise", timeout=None
        )
    return _memories[pid]


@target(st.tuples(texts | changed_text('gre* "tea time" -x OR y'), texts, json_values))
def queries(given: tuple[str, str, Any]) -> None:
    query, key, value = given
    words = words_of(text_of(key, value))
    try:
        parsed = parse_query(query)
    except InvalidEntryError:
        return
    assert matches(parsed, text_in(words, parsed)) in (True, False)


CURSORS = st.builds(
    write_cursor,
    st.sampled_from(["v", "x", "f", ""]),
    *[st.none() | whole.filter(lambda n: abs(n) < 10**4000) | texts | st.just("1:2:")] * 2,
)
CURSOR = write_cursor("v", None, 5, 3, "key")
OTHERS = (write_cursor("x", "10:20:12", "10:30:", "15", "k"), write_cursor("f", 10**15))


@target(changed_text(CURSOR) | changed_text(OTHERS[0]) | changed_text(OTHERS[1]) | CURSORS | texts)
async def cursors(cursor: str) -> None:
    for of in (VersionPass.of, SnapshotPass.of, TimePass.of):
        try:
            of(cursor)
        except InvalidEntryError as exc:
            clean(exc)
    ltm = _memory()
    for call in (
        lambda: ltm.get_changed_entries(cursor=cursor),
        lambda: ltm.get_changed_entries(cursor),
        lambda: ltm.list_entries(cursor=cursor),
        lambda: ltm.search("word", cursor=cursor),
    ):
        with contextlib.suppress(LTMError):
            await call()


def _options(of: Mapping[str, Option]) -> st.SearchStrategy[dict[str, Any]]:
    known = {
        name: st.just(CANARY) | texts if option.secret else anything | texts
        for name, option in of.items()
    }
    return st.fixed_dictionaries({}, optional=known) | st.dictionaries(texts, texts, max_size=2)


def _adapters(known: Any, name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(sorted(known)).flatmap(
        lambda kind: st.builds(
            lambda options, given: {**options, name: given},
            _options(known[kind].options),
            st.just(kind if name == "type" else f"{kind}://bucket/path"),
        )
    )


URLS = tuple(
    text.replace("CANARY", CANARY)
    for text in (
        "sqlite:///memory.db?synchronous=NORMAL",
        "postgresql://user:CANARY@host:5432/db?sslmode=require&min_size=2",
        "postgresql://user:CANARY@[::1]:5432,other:1/db",
        "firestore://project/database?collection_prefix=p_&transport=light",
        "supabase://reference?schema=public",
        "https://reference.supabase.co",
        "memory:",
        "s3://bucket/path/?region=eu-central-1&endpoint_url=http://127.0.0.1:9000",
        "gs://bucket/path",
        "az://container/path?account_name=account",
        "file:///tmp/x",
        "./blobs",
    )
)
ADDRESSES = st.sampled_from(URLS).flatmap(changed_text) | texts | st.sampled_from(URLS)
KEYRINGS = (
    st.fixed_dictionaries(
        {},
        optional={
            "keys": st.dictionaries(texts, texts | st.just("0" * 64) | st.binary(max_size=33)),
            "primary": texts,
            "allow_plaintext": anything,
        },
    )
    | changed_text("one:" + "0" * 64 + ",two:" + "1" * 64)
    | anything
)
CONFIGURATIONS = st.fixed_dictionaries(
    {
        "catalog": _adapters(CATALOGS, "type") | ADDRESSES | anything,
        "storage": _adapters(BLOB_STORES, "uri") | ADDRESSES | anything,
    },
    optional={
        **dict.fromkeys(OPTION_NAMES, anything),
        "retry": st.dictionaries(st.sampled_from(RETRY_NAMES) | texts, anything, max_size=2),
        "encryption": KEYRINGS,
        "nonsense": anything,
    },
)
ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "SUPABASE_KEY": "sb_publishable_x"}


def _refused(make: Callable[[], object]) -> None:
    """What is made shows no secret, and what is refused is refused as configuration."""
    with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):
        try:
            shown = repr(make())
        except ConfigError as exc:
            clean(exc)
        else:
            assert CANARY not in shown


@target(CONFIGURATIONS)
def configuration(config: dict[str, Any]) -> None:
    _refused(lambda: LTMBackend.from_config(config))


@target(ADDRESSES)
def addresses(address: str) -> None:
    _refused(lambda: LTMBackend(address, "memory:"))
    _refused(lambda: LTMBackend("memory:", address))
    if ":" in address:
        _refused(lambda: create_catalog_backend(address))


@target(KEYRINGS)
def keyrings(config: Any) -> None:
    _refused(lambda: Keyring.from_config(config))


COMMANDS = ("store", "get", "delete", "list", "search", "stats", "cleanup", "gc", "verify",
    "snapshot", "changes")  # fmt: skip
WORDS = (
    "--where", "--limit", "--prefix", "--ttl", "--metadata", "--if-version", "--if-absent",
    "--help", "--namespace", "--timeout", "--cursor", "--since", "--audit", "--dry-run", "--json",
    "--", "-", "-1", "0", "1e9", "nan", '{"a":1}', '{"a":{"$gt":1}}', "k", "[", '"v"',
    "--index-text",
)  # fmt: skip
HARMLESS = texts.filter(lambda text: not {"/", "\\", "\0"} & {*text})
"""As arguments cannot have NUL, and are to name no file outside of the folder."""
EXITS = {DONE, NOT_FOUND, WRONG_USE, STORE_FAILED, CONFLICT, INTERRUPTED}


@target(
    st.builds(
        lambda command, rest: [command, *rest],
        st.sampled_from(COMMANDS) | HARMLESS,
        st.lists(st.sampled_from(WORDS) | HARMLESS, max_size=5),
    )
)
def commands(argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        stdin = io.TextIOWrapper(io.BytesIO(b'"value"'), encoding="utf-8")
        places = {"LTM_CATALOG": "memory:", "LTM_STORAGE": "memory:"}
        with (
            mock.patch.dict(os.environ, {**ENVIRONMENT, **places}, clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("sys.stdin", stdin),
        ):
            code = main(argv)
        assert code in EXITS
        err.seek(0)
        assert "Traceback" not in err.read()
