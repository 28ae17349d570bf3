"""Vectors: what an embedding function gave, checked and brought into the form that is kept.

A vector is kept as bytes: 32-bit floats, little-endian, of length 1 together, so that the product
of two is the cosine of the angle between what they were made from.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Mapping, Set, Sized
from typing import Any, TypeAlias

from .errors import StoreError

Embed: TypeAlias = Callable[[list[str]], Any]
"""Takes texts and gives as many vectors, itself or as an awaitable."""

EMBED = "embed"
MAX_DIMENSIONS = 2048
"""What Firestore takes (https://firebase.google.com/docs/firestore/vector-search)."""
FLOAT_BYTES = 4


def check_count(answer: object, count: int) -> None:
    """Refuse an *answer* that has not one vector for each of *count* texts.

    Raises:
        StoreError: It has not.
    """
    if not isinstance(answer, Sized) or isinstance(answer, (str, bytes, Mapping, Set)):
        raise _wrong(f"a sequence of vectors, not {type(answer).__name__}")
    if len(answer) != count:
        raise _wrong(f"one vector for each of {count} texts, not {len(answer)}")


def to_unit(given: Any, dimensions: int | None) -> bytes:
    """*given*, of *dimensions* numbers or any number of them, as a vector is kept.

    Raises:
        StoreError: It is no vector, or has no direction.
    """
    numbers = _numbers(given)
    if dimensions is not None and len(numbers) != dimensions:
        raise _wrong(f"vectors of one length, not of {dimensions} and of {len(numbers)}")
    length = math.hypot(*numbers)
    if not 0 < length < math.inf:  # NaN is not
        raise _wrong("finite numbers, not all of them zero")
    return to_bytes([number / length for number in numbers])


def to_bytes(numbers: Any) -> bytes:
    packed = array("f", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def to_floats(vector: bytes) -> array[float]:
    """The numbers of a vector that is kept."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _numbers(given: Any) -> array[float]:
    if not isinstance(given, Sized) or isinstance(given, (str, bytes, bytearray, Mapping, Set)):
        raise _wrong(f"vectors that are sequences of numbers, not {type(given).__name__}")
    try:
        size = len(given)
        if not 1 <= size <= MAX_DIMENSIONS:
            raise _wrong(f"vectors of 1 to {MAX_DIMENSIONS} numbers, not {size}")
        # Arrays of NumPy and the like give plain numbers faster at once than one by one.
        plain: Any = given.tolist() if hasattr(given, "tolist") else given
        return array("d", plain)
    except (TypeError, OverflowError):
        raise _wrong("vectors of numbers alone") from None


def _wrong(wanted: str) -> StoreError:
    return StoreError(f"embed must give {wanted}", store=EMBED)
