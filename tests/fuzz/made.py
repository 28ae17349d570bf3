"""What targets are fed with: texts, bytes and JSON that are nearly right."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

CANARY = "canary-3c5e"
"""Stands for a value or a secret: nothing that goes to people may have it."""

ODD = (
    "", "\0", "\n", "\r\n", "\x1b[31m", "'", '"', "`", "\\", "%", "%s", "{0}", "${X}", "$$",
    "${X:-}", "..", "../", "/", "//", "?", "#", "@", ":", "&", "=", ";--", "\ud800", "\udfff",
    "é", "e\u0301", "🙂", "٣", "\u2028", "\ufeff", "A" * 1025, "9" * 5000, "1e999", "-0", "NaN",
    "null", "true",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 63, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64, 10**4000,
)  # fmt: skip

characters = st.characters() | st.sampled_from("\"'\\{}[]$:,.-0123456789eE \t")
texts = st.text(characters, max_size=30) | st.sampled_from(ODD)
whole = (
    st.integers()
    | st.sampled_from(NUMBERS)
    | st.just(5000).map(lambda digits: 10**digits)  # as itself, Hypothesis would try to show it
)
scalars = st.none() | st.booleans() | whole | st.floats() | texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
anything = st.recursive(
    scalars | st.binary(max_size=8) | st.just(object()) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(texts | st.integers(), inner, max_size=4)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=12,
)
deep = st.builds(
    lambda depth, ends: ends[0] * depth + ends[1] * depth,
    st.sampled_from([10, 499, 500, 501, 1000, 5000, 100_000]),
    st.sampled_from(["[]", '{"a":1}', ("[", "]"), ('{"a":', "}"), ('[{"":', "}]")]),
)


@st.composite
def changed(draw: st.DrawFn, good: bytes) -> bytes:
    """*good* with a few bytes replaced, taken out, put in, repeated or cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 5)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = draw(st.binary(max_size=8))
            case 3:
                data[at:at] = draw(st.sampled_from(ODD)).encode("utf-8", "surrogatepass")
            case 4:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case 5:
                del data[at:]
    return bytes(data)


def changed_text(good: str) -> st.SearchStrategy[str]:
    return changed(good.encode()).map(lambda data: data.decode("utf-8", "replace"))


def to_text(value: Any) -> str:
    try:
        return json.dumps(value)
    except ValueError:  # an integer of too many digits
        return "9" * 5000


json_texts = (
    json_values.map(to_text)
    | deep
    | texts
    | changed_text('{"a":[1,2.5,"x",null,true],"b":{"c":"\\ud83d\\ude42"}}')
)
