"""Calls of the database's functions, with each column of a batch sent as one text.

Of an array asyncpg asks of each item whether that is an array itself, which takes longer than all
else it does to send it; the server takes a text apart as fast as it reads an array.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS: Mapping[str, Mapping[int, str]] = {
    "commit": {
        **dict.fromkeys((2, 3, 5, 6, 7, 11), "text"),
        **dict.fromkeys((4, 8, 9, 10), "bigint"),
        **dict.fromkeys((12, 14), "integer"),
    },
    "delete": {1: "text"},
    "get": {1: "text"},
}
"""Which arguments of a function are columns, from 0, and of which type their items are."""

_NULL = os.urandom(16).hex()
"""Stands for None in a column: nobody can have foreseen it."""


@functools.cache
def query(schema: str, function: str, count: int) -> str:
    """What calls *function*, of *count* arguments, with what :func:`sent` makes of them."""
    columns = _COLUMNS.get(function, {})
    places = [
        f"string_to_array(${place + 1}, ${count + 1}, ${count + 2})::{columns[place]}[]"
        if place in columns
        else f"${place + 1}"
        for place in range(count)
    ]
    return f'SELECT * FROM "{schema}".ltm_{function}({", ".join(places)})'  # noqa: S608  # checked


def sent(function: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """*arguments* with a text for each column, what is between its items, and what is for None.

    Items are numbers, texts that are not empty, and None.
    """
    columns = _COLUMNS.get(function)
    return arguments if columns is None else _joined(arguments, columns, "\n")


def _joined(arguments: Sequence[Any], columns: Mapping[int, str], separator: str) -> list[Any]:
    texts = [*arguments, separator, _NULL]
    for place, item_type in columns.items():
        items = texts[place]
        if items is None:
            continue
        if item_type != "text" or None in items:
            items = [_NULL if item is None else str(item) for item in items]
        if separator in "".join(items):  # as it may be in a key
            return _joined(arguments, columns, os.urandom(16).hex())
        texts[place] = separator.join(items)
    return texts
