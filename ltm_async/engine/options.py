"""The options of the engine and their limits."""

from __future__ import annotations

import dataclasses
import os
import re

from ..entry import shown
from ..errors import ConfigError

MAX_THREADS = 256
MAX_QUERIES = 64
_SIZE = re.compile(r"[1-9][0-9]{0,6}(\.[0-9]{1,3})? ?(KB|MB|GB|TB|KiB|MiB|GiB|TiB)")


def default_threads() -> int:
    return min(os.cpu_count() or 1, 4)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """See :class:`~ltm_async.engine.DuckDBQueryEngine` for each."""

    threads: int
    memory_limit: str
    temp_directory: str
    max_temp_directory_size: str
    max_queries: int
    extensions: tuple[str, ...] = ()
    extension_directory: str | None = None

    def __post_init__(self) -> None:
        _check_whole("threads", self.threads, MAX_THREADS)
        _check_whole("max_queries", self.max_queries, MAX_QUERIES)
        _check_size("memory_limit", self.memory_limit)
        _check_size("max_temp_directory_size", self.max_temp_directory_size)
        _check_path("temp_directory", self.temp_directory)
        if self.extension_directory is not None:
            _check_path("extension_directory", self.extension_directory)


def _check_whole(name: str, given: object, high: int) -> None:
    if type(given) is not int or not 1 <= given <= high:
        raise ConfigError(f"{name} is {shown(given)}, it must be an int from 1 to {high}")


def _check_path(name: str, given: object) -> None:
    if not isinstance(given, str) or not given or "\0" in given:
        raise ConfigError(f"{name} must be the path of a folder")


def _check_size(name: str, given: object) -> None:
    if not isinstance(given, str) or not _SIZE.fullmatch(given):
        raise ConfigError(f"{name} is {shown(given)}, it must be a size such as '512MB' or '2 GiB'")
