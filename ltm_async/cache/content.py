"""Hashing the content of a file or an object, in a stream."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigError, InvalidEntryError, UnavailableError
from ..registry import BLOB_STORES, plan_blob_store
from ..worker import aside

PIECE_BYTES = 1024 * 1024


class Content(NamedTuple):
    """What a file or an object holds."""

    content_hash: str
    """``"sha256:"`` and 64 hexadecimal digits."""
    byte_size: int


class _Digest:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0

    def take(self, piece: bytes | memoryview) -> None:
        self._hash.update(piece)
        self._size += len(piece)

    def content(self) -> Content:
        return Content("sha256:" + self._hash.hexdigest(), self._size)


async def hash_content(
    location: str | os.PathLike[str],
    *,
    storage: Mapping[str, Mapping[str, Any]],
    name: str = "path",
) -> Content:
    """The hash of what is at *location*: a local path, or ``s3://bucket/key`` and its like.

    A stream of pieces, whatever its size. Credentials and endpoints come from *storage*, options
    by scheme, or from where the blob store finds them; never from *location*, which may be
    somebody else's text.

    Raises:
        InvalidEntryError: There is nothing at *location*, or it cannot be one; *name* is its name.
        StoreError: It could not be read.
    """
    try:
        text: object = os.fspath(location)
    except TypeError:
        kind = type(location).__name__
        raise InvalidEntryError(f"{name} must be a path or a storage URI, not {kind}") from None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidEntryError(f"{name} is no path and no storage URI")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme == "file":
        return await _hash_file(rest if separator else text, name)
    if scheme not in BLOB_STORES or scheme == "memory":
        known = ", ".join(sorted(BLOB_STORES.keys() - {"memory"}))
        raise InvalidEntryError(f"{name} has an unknown scheme; there are {known}")
    return await _hash_object(scheme, rest, storage.get(scheme, {}), name)


async def _hash_file(path: str, name: str) -> Content:
    given_up = threading.Event()

    def read() -> Content:
        digest = _Digest()
        buffer = memoryview(bytearray(PIECE_BYTES))
        # Without O_NONBLOCK a pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidEntryError(f"{name} is no plain file")
            while not given_up.is_set() and (size := os.readv(descriptor, [buffer])):
                digest.take(buffer[:size])
        finally:
            os.close(descriptor)
        return digest.content()

    try:
        return await aside(read, "ltm-hash")
    except UnicodeEncodeError as exc:
        raise InvalidEntryError(f"{name} is no path: it has a lone surrogate") from exc
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise InvalidEntryError(f"{name} is not there: no such file") from exc
    except OSError as exc:
        raise UnavailableError(f"{name} could not be read: {exc.strerror}", store="local") from exc
    finally:
        given_up.set()


async def _hash_object(scheme: str, rest: str, options: Mapping[str, Any], name: str) -> Content:
    folder, slash, path = rest.rpartition("/")
    if not (folder and slash and path):
        raise InvalidEntryError(f"{name} must be {scheme}://bucket/key")
    if "?" in folder:
        raise InvalidEntryError(f"{name} has a question mark before its last slash")
    folder = folder.replace("$", "$$")  # for variables of the environment are put in there
    try:
        blobs = plan_blob_store({**options, "uri": f"{scheme}://{folder}/"})()
    except ConfigError as exc:
        raise InvalidEntryError(f"{name} cannot be used: {exc}") from exc
    digest = _Digest()
    async with contextlib.aclosing(blobs):
        found = await blobs.read_into(path, digest.take)
    if not found:
        raise InvalidEntryError(f"{name} is not there: no such object")
    return digest.content()
