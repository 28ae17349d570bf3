"""Limits, the canonical encoding, hashes and paths, without any store."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ltm_async import CorruptError, InvalidEntryError, compute_content_hash
from ltm_async.entry import (
    MAX_TTL_S,
    MAX_VALUE_BYTES,
    NEVER,
    Expiry,
    _make_encode,
    blob_path,
    check_json,
    decode,
    encode,
    encode_metadata,
    hash_of,
    namespace_path,
    new_blob_id,
    one_line,
    prefix_end,
    shown,
    to_datetime,
    to_expiry,
)

from .corpus import BAD_VALUES, GOOD_KEYS, GOOD_VALUES, INJECTIONS, nested, same, text_of

# The encoding


@pytest.mark.parametrize("interpreter_has", ["C", "Python"])
def test_the_encoder_is_that_of_json(interpreter_has: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if interpreter_has == "Python":
        monkeypatch.setattr("json.encoder.c_make_encoder", None)
    encode_afresh = _make_encode()
    for value in GOOD_VALUES:
        expected = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        assert encode_afresh(value) == expected
    assert encode_afresh({"b": 1, "a": "ü"}) == '{"a":"\\u00fc","b":1}'
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        encode_afresh(float("nan"))
    with pytest.raises(TypeError, match="Object of type set is not JSON serializable"):
        encode_afresh(set())
    with pytest.raises(TypeError, match="keys must be str"):
        encode_afresh({(): 1})
    same_twice = ["a"]
    assert encode_afresh([same_twice, same_twice]) == '[["a"],["a"]]'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (2**64, "18446744073709551616"),
        ({"b": 1, "a": [1, 2]}, '{"a":[1,2],"b":1}'),
        ("ü\0\ud800", '"\\u00fc\\u0000\\ud800"'),
        ("/<~\x7f", '"/<~\\u007f"'),
        ("😀", '"\\ud83d\\ude00"'),
    ],
    ids=ascii,
)
def test_the_canonical_text(value: Any, text: str) -> None:
    assert encode("value", value) == text
    assert same(decode(text), value)


@pytest.mark.parametrize("case", GOOD_VALUES)
def test_what_is_encoded_is_ascii_and_comes_back(case: str) -> None:
    text = encode("value", GOOD_VALUES[case])
    assert text.isascii()
    assert same(decode(text), GOOD_VALUES[case])


def test_the_order_of_keys_does_not_change_the_hash() -> None:
    one, other = {"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}
    assert compute_content_hash(one) == compute_content_hash(other)


def test_values_that_are_equal_but_not_the_same_have_different_hashes() -> None:
    values = [1, 1.0, True, "1", [1], {"1": 1}, 0, 0.0, -0.0, False, None, "", [], {}]
    values += ["caf\u00e9", "cafe\u0301"]
    assert len({compute_content_hash(value) for value in values}) == len(values)


def test_the_content_hash_is_sha256_of_the_canonical_json() -> None:
    value = {"likes": ["tea", "ü"], "n": 1.5}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    expected = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert compute_content_hash(value) == hash_of(text.encode()) == expected


@pytest.mark.parametrize("case", BAD_VALUES)
def test_the_hash_of_what_cannot_be_stored_is_refused(case: str) -> None:
    make, message = BAD_VALUES[case]
    with pytest.raises(InvalidEntryError) as caught:
        compute_content_hash(make())
    assert str(caught.value) == message


def test_the_limit_of_a_value_s_size_is_exact() -> None:
    assert len(encode("value", text_of(MAX_VALUE_BYTES))) == MAX_VALUE_BYTES
    assert encode("value", "123456", 8) == '"123456"'
    with pytest.raises(InvalidEntryError, match=r"^x has 9 bytes as JSON, the limit is 8$"):
        encode("x", "1234567", 8)
    with pytest.raises(InvalidEntryError, match=r"^x has 8 bytes as JSON, the limit is 7$"):
        encode("x", "ü", 7)


def test_depth_is_counted_alike_for_lists_dicts_and_both() -> None:
    both: Any = []
    for number in range(499):
        both = [both] if number % 2 else {"k": both}
    for value in (nested(500), nested(500, of=dict), both):
        check_json("value", value)
        for deeper in ([value], {"k": value}, [1, value, 1]):
            with pytest.raises(InvalidEntryError, match="deeper than 500"):
                check_json("value", deeper)


def test_a_wide_value_is_not_taken_for_a_deep_one() -> None:
    value = [[number, {"n": [number]}] for number in range(100_000)]
    check_json("value", value)


def test_what_cannot_fit_is_refused_before_it_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An item takes two bytes at least; lists that are one and the same count each time."""
    monkeypatch.setattr("ltm_async.entry.MAX_VALUE_BYTES", 100)
    shared = [0] * 24
    for fits, does_not in (([0] * 50, [0] * 51), ([shared, shared], [shared, shared, 0])):
        check_json("value", fits)
        with pytest.raises(InvalidEntryError, match=r"^value is over the limit of 100 bytes$"):
            check_json("value", does_not)


def on_a_short_stack(call: Any) -> Any:
    """*call* with only a hundred frames left."""
    depth, frame = 0, sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 100)
    try:
        return call()
    finally:
        sys.setrecursionlimit(limit)


def test_a_value_too_deep_for_the_stack_is_refused_or_encoded() -> None:
    """From Python 3.12 on the encoder, being C, has a stack limit of its own."""
    value = nested(400)
    try:
        text = on_a_short_stack(lambda: encode("value", value))
    except InvalidEntryError as exc:
        text = str(exc)
    assert text in (
        "[" * 400 + "]" * 400,
        "value is nested deeper than this thread's stack",
    )


def test_metadata_too_deep_for_the_stack_is_refused_or_encoded() -> None:
    try:
        text = on_a_short_stack(lambda: encode_metadata({"ü": nested(200)}))
    except InvalidEntryError as exc:
        text = str(exc)
    assert text in (
        '{"\\u00fc":' + "[" * 200 + "]" * 200 + "}",
        "metadata is nested deeper than this thread's stack",
    )


# Decoding


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1 2",
        "[1,]",
        "{'a':1}",
        "NaN",
        "[-Infinity]",
        "1e999",
        "-1e999",
        '"\n"',
        '"a',
        "\ufeff1",
        "nul",
        "01",
        "1" * 5000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_text_that_we_cannot_have_written_is_corrupt(text: str) -> None:
    with pytest.raises(CorruptError, match=r"^stored text "):
        decode(text)


LIST, DICT = ("[", "]"), ('{"":', "}")


@pytest.mark.parametrize("inside", ["1", f'"{"x" * 5_000}"'], ids=["short", "long"])
@pytest.mark.parametrize("kinds", [[LIST], [DICT], [LIST, DICT]], ids=["lists", "dicts", "both"])
def test_stored_text_may_be_as_deep_as_a_value_and_no_deeper(
    kinds: Sequence[tuple[str, str]], inside: str
) -> None:
    def text(depth: int) -> str:
        pairs = [kinds[number % len(kinds)] for number in range(depth)]
        opened = "".join(begin for begin, _ in pairs)
        return opened + inside + "".join(end for _, end in reversed(pairs))

    assert encode("value", decode(text(500))) == text(500)
    with pytest.raises(CorruptError, match=r"^stored text is nested deeper than 500"):
        decode(text(501))


# Metadata


def test_no_metadata_is_empty_metadata() -> None:
    assert encode_metadata(None) == encode_metadata({}) == "{}"


def test_metadata_is_named_as_the_caller_wants() -> None:
    with pytest.raises(InvalidEntryError, match=r"^filter must be a mapping, not list$"):
        encode_metadata([], "filter")


# Ends


@pytest.mark.parametrize(
    ("ttl", "ttl_us"),
    [
        (1, 1_000_000),
        (0.5, 500_000),
        (1e-9, 1),
        (1.5e-6, 2),
        (timedelta(days=2), 2 * 86_400 * 1_000_000),
        (timedelta(microseconds=1), 1),
        (MAX_TTL_S, MAX_TTL_S * 1_000_000),
    ],
)
def test_a_ttl_in_microseconds(ttl: Any, ttl_us: int) -> None:
    expiry = to_expiry(ttl)
    assert expiry == Expiry(ttl_us=ttl_us)
    assert expiry.resolve(5) == 5 + ttl_us


def test_an_instant_is_kept_to_the_microsecond() -> None:
    instant = datetime(2099, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    expiry = to_expiry(None, instant)
    assert expiry.resolve(5) == expiry.resolve(7) == expiry.at_us
    assert expiry.at_us is not None and to_datetime(expiry.at_us) == instant


def test_without_an_end_it_is_for_ever() -> None:
    assert to_expiry() == NEVER
    assert NEVER.resolve(5) is None


# Blobs


def test_a_blob_s_name_begins_with_its_hash_and_is_new_each_time() -> None:
    content_hash = compute_content_hash("x")
    names = {new_blob_id(content_hash) for _ in range(1000)}
    assert len(names) == 1000
    assert {name.partition("-")[0] for name in names} == {content_hash[7:23]}
    for name in names:
        assert blob_path("", name) == namespace_path("") + name


@pytest.mark.parametrize(
    "blob_id",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../../etc/passwd",
        f"{'0' * 16}-{'a' * 19}",
        f"{'0' * 16}-{'a' * 65}",
        f"{'0' * 15}-{'a' * 20}",
        f"{'0' * 16}-{'a' * 20}\n",
        f"{'0' * 16}-{'a' * 20}/..",
        f"{'0' * 16}-{'A' * 20}",
        f"{'g' * 16}-{'a' * 20}",
        f"{'٠' * 16}-{'a' * 20}",
    ],
)
def test_a_name_that_we_cannot_have_made_has_no_path(blob_id: str) -> None:
    with pytest.raises(CorruptError) as caught:
        blob_path("", blob_id)
    assert not blob_id or blob_id not in str(caught.value) or len(blob_id) < 3


def test_namespaces_have_folders_of_their_own_on_any_file_system() -> None:
    names = [*INJECTIONS, "", "a", "A", "caf\u00e9", "cafe\u0301", "a.", "a "]
    folders = {namespace_path(name).casefold() for name in names}
    assert len(folders) == len(names)
    for folder in folders:
        assert folder[-1] == "/" and folder[:-1].isalnum() and folder.isascii()


def test_the_folder_of_a_namespace_is_the_same_in_every_version() -> None:
    """Blobs are found by it, and so are those that were stored years ago."""
    assert namespace_path("") == "e3b0c44298fc1c149afbf4c8996fb924/"
    assert namespace_path("tenant-7") == "d68629cd920ffa5d6fb782423f615479/"


# Prefixes


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("", None),
        ("a", "b"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff", None),
        ("\ud7ff", "\ue000"),
        ("user:", "user;"),
    ],
    ids=ascii,
)
def test_the_end_of_a_prefix(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


@pytest.mark.parametrize("prefix", [key for key in GOOD_KEYS if len(key) < 50], ids=ascii)
def test_the_end_of_a_prefix_parts_the_keys(prefix: str) -> None:
    end = prefix_end(prefix)
    for key in (*GOOD_KEYS, *(prefix + key for key in GOOD_KEYS)):
        between = key >= prefix and (end is None or key < end)
        assert between is key.startswith(prefix)


@pytest.mark.parametrize(
    "value",
    ["ü\0\ud800", {"b": [1, -0.0, 1e16, 1e-7, True, None], "a": {"": "x"}}, [], 10**400, 1.5],
)
def test_the_encoding_is_that_of_the_standard_library(value: Any) -> None:
    """Byte for byte and for ever: hashes are taken of it."""
    assert encode("value", value) == json.dumps(value, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("no such file", "no such file"),
        ("naïve ☕", "naïve ☕"),
        ("a\r\nb\tc", "a  b c"),
        ("\x1b[2J\u2028\u202ered", " [2J  red"),
    ],
)
def test_what_could_begin_a_line_or_steer_a_terminal_is_a_space(text: str, shown_as: str) -> None:
    assert one_line(text) == shown_as


def test_a_bad_argument_is_shown_in_short() -> None:
    assert shown("x" * 100) == "'" + "x" * 39
    assert shown(10**5_000) == "a huge int"


def test_an_instant_that_is_given_as_ttl_is_the_end() -> None:
    expiry = to_expiry(datetime(2030, 1, 1, tzinfo=UTC))
    assert expiry == to_expiry(expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert expiry == Expiry(at_us=1_893_456_000_000_000)
    assert type(expiry.at_us) is int


def test_a_prefix_may_end_before_the_last_of_all_characters() -> None:
    assert prefix_end("a\U0010fffe") == "a\U0010ffff"
