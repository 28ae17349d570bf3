"""The nearest of many vectors, by comparing each: exact, in bounded memory, with NumPy."""

from __future__ import annotations

import heapq
import importlib
from collections.abc import Sequence
from typing import Any

from .errors import ConfigError, MissingDriverError

MAX_COMPARED = 100_000
"""Vectors that one search compares where they have to be read one by one."""
PAGE = 2_000
"""Vectors in memory at once, of 8 KiB at most."""


def check_compared(count: int, most: int) -> None:
    """Refuse to rank *most* of *count* vectors as if they were all."""
    if count > most:
        raise ConfigError(
            f"a search compares at most {most:,} vectors here, and there are more in this "
            "namespace: a filter or smaller namespaces help, or PostgreSQL with pgvector"
        )


def load_numpy() -> Any:
    """NumPy, whose first import takes a tenth of a second and reads files.

    Raises:
        MissingDriverError: It is not installed.
    """
    try:
        return importlib.import_module("numpy")
    except ModuleNotFoundError as exc:
        raise MissingDriverError.of(exc, needed_by="comparing vectors", extra="vectors") from exc


class Nearest:
    """Keeps the best *limit* of the vectors it is shown.

    Raises:
        MissingDriverError: NumPy is not installed.
    """

    def __init__(self, vector: bytes, limit: int) -> None:
        self._numpy = load_numpy()
        self._vector = self._numpy.frombuffer(vector, "<f4")
        self._limit = limit
        self._best: list[tuple[float, str]] = []
        self._compared = 0

    def add(self, keys: Sequence[str], vectors: Sequence[bytes]) -> None:
        """Compare *vectors*, each as long as the one sought and under one of *keys*.

        Raises:
            ConfigError: With them there are too many.
        """
        self._compared += len(keys)
        check_compared(self._compared, MAX_COMPARED)
        numpy = self._numpy
        with numpy.errstate(all="ignore"):  # rows may be forged
            products = numpy.frombuffer(b"".join(vectors), "<f4").reshape(len(keys), -1)
            products = products @ self._vector
        products[~numpy.isfinite(products)] = -numpy.inf
        places = range(len(keys))
        if len(keys) > self._limit:
            places = numpy.argpartition(-products, self._limit - 1)[: self._limit].tolist()
        found = ((float(products[place]), keys[place]) for place in places)
        kept = (one for one in found if one[0] > -numpy.inf)
        self._best = heapq.nlargest(self._limit, [*self._best, *kept])

    def best(self) -> dict[str, float]:
        """The keys of the nearest, with their cosine, nearest first."""
        return {key: min(1.0, max(-1.0, product)) for product, key in self._best}
