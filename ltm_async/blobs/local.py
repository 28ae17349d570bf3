"""LocalBlobStore: one file for each blob, durable when ``put`` returns."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

from ..clock import system_clock
from ..errors import (
    AccessDeniedError,
    ClosedError,
    ConfigError,
    CorruptError,
    StoreError,
    UnavailableError,
    translating,
)
from ..protocols import BlobInfo, BlobStore
from ..worker import Call, PerProcess, Worker

T = TypeVar("T")

CLOSE_TIMEOUT_S = 5.0
SCAN_PAGE = 1000
UNFINISHED = ".part"
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_ERRORS: Mapping[type[Exception], type[StoreError]] = {
    PermissionError: AccessDeniedError,
    OSError: UnavailableError,
}


class _Put:
    __slots__ = ("data", "path")

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data


class LocalBlobStore(BlobStore):
    """A blob store in a folder of the local file system.

    A file is written aside, synced, linked to its name and its folder synced, so that it is
    there whole or not at all, whatever stops the process or the machine. Puts that wait at
    the same time share one hop to the writing thread and one sync of the folder. Files are
    readable by their owner only. Not for network file systems.

    Args:
        root: The folder; made when the first blob is written.
        clock: Microseconds since the epoch, for the age of files in a scan.
    """

    name = "local"

    def __init__(
        self, root: str | os.PathLike[str], *, clock: Callable[[], int] = system_clock
    ) -> None:
        text = os.fspath(root)
        if not text or "\0" in text:
            raise ConfigError("storage_uri is not the path of a folder")
        self._root = os.path.abspath(text)
        self._clock = clock
        self._closed = False
        self._durable_folders: set[str] = set()
        self._workers = PerProcess(self._make_workers)

    def __repr__(self) -> str:
        return f"LocalBlobStore({self._root!r})"

    async def open(self) -> None:
        self._open_workers()

    async def aclose(self) -> None:
        self._closed = True
        for worker in self._workers.get():
            await worker.stop(timeout_s=CLOSE_TIMEOUT_S)

    async def put(self, path: str, data: bytes) -> None:
        writer, _ = self._open_workers()
        await writer.run(_Put(path, data))

    async def get(self, path: str, *, limit: int) -> bytes | None:
        return await self._read(lambda: self._read_file(path, limit))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        writer, _ = self._open_workers()
        return cast("Mapping[str, StoreError]", await writer.run(lambda: self._delete_files(paths)))

    async def scan(self, prefix: str) -> AsyncIterator[BlobInfo]:
        names = await self._read(lambda: self._names(prefix))
        for start in range(0, len(names), SCAN_PAGE):
            page = names[start : start + SCAN_PAGE]
            for info in await self._read(partial(self._describe, prefix, page)):
                yield info

    def uri(self, path: str) -> str:
        return f"{self._root}/{path}"

    async def _read(self, read: Callable[[], T]) -> T:
        _, reader = self._open_workers()
        return cast("T", await reader.run(read))

    def _open_workers(self) -> tuple[Worker[_Job], Worker[_Job]]:
        if self._closed:
            raise ClosedError("the local blob store is closed")
        return self._workers.get()

    def _make_workers(self) -> tuple[Worker[_Job], Worker[_Job]]:
        return Worker("ltm-local-writer", self._serve), Worker("ltm-local-reader", self._serve)

    def _serve(self, calls: list[Call[_Job]]) -> None:
        """Answer *calls*; neighbouring puts make one group."""
        group: list[tuple[Call[_Job], _Put]] = []
        for call in calls:
            if call.withdrawn:
                continue
            job = call.payload
            if isinstance(job, _Put):
                group.append((call, job))
                continue
            self._put_group(group)
            group = []
            try:
                with translating(_ERRORS, store=self.name):
                    result = job()
            except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
                call.fail(exc)
            else:
                call.answer(result)
        self._put_group(group)

    def _put_group(self, group: list[tuple[Call[_Job], _Put]]) -> None:
        """Write every file, then sync each folder once, then answer."""
        written: dict[str, list[Call[_Job]]] = {}
        for call, put in group:
            try:
                with translating(_ERRORS, store=self.name):
                    target = self._file(put.path)
                    self._create(target, put.data)
            except BaseException as exc:  # noqa: BLE001  # belongs to the caller, not to this thread
                call.fail(exc)
            else:
                written.setdefault(os.path.dirname(target), []).append(call)
        for folder, calls in written.items():
            try:
                with translating(_ERRORS, store=self.name):
                    _sync_folder(folder)
            except BaseException as exc:  # noqa: BLE001  # belongs to the callers
                for call in calls:
                    call.fail(exc)
            else:
                for call in calls:
                    call.answer(None)

    def _create(self, target: str, data: bytes) -> None:
        folder = os.path.dirname(target)
        if folder not in self._durable_folders:
            self._make_folder(folder)
        try:
            _create(target, data)
        except FileNotFoundError:  # somebody removed the folder
            self._make_folder(folder)
            _create(target, data)

    def _make_folder(self, folder: str) -> None:
        """Make *folder* and sync what leads to it, or its files could vanish with it."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _sync_folder(self._root)
        _sync_folder(os.path.dirname(self._root))
        self._durable_folders.add(folder)

    def _file(self, path: str) -> str:
        if path.startswith("/") or ".." in path or "\\" in path:
            raise CorruptError("local: a blob's path leads out of its folder", store=self.name)
        return f"{self._root}/{path}"

    def _read_file(self, path: str, limit: int) -> bytes | None:
        try:
            return _read_plain(self._file(path), limit)
        except FileNotFoundError:
            return None

    def _delete_files(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for path in paths:
            try:
                with translating(_ERRORS, store=self.name):
                    os.unlink(self._file(path))
            except UnavailableError as exc:
                if not isinstance(exc.__cause__, FileNotFoundError):
                    failed[path] = exc
            except StoreError as exc:
                failed[path] = exc
        return failed

    def _names(self, prefix: str) -> list[str]:
        try:
            return os.listdir(self._file(prefix))
        except FileNotFoundError:
            return []

    def _describe(self, prefix: str, names: Sequence[str]) -> list[BlobInfo]:
        now = self._clock()
        found = []
        for name in names:
            try:
                status = os.lstat(self._file(prefix + name))
            except FileNotFoundError:
                continue
            age_us = now - status.st_mtime_ns // 1000
            found.append(BlobInfo(prefix + name, status.st_size, age_us))
        return found


_Job = _Put | Callable[[], object]


def _create(target: str, data: bytes) -> None:
    """Make *target* with *data*, synced, or leave nothing by its name."""
    aside = f"{target}.{os.urandom(8).hex()}{UNFINISHED}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)
        _link(aside, target, data)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def _link(aside: str, target: str, data: bytes) -> None:
    try:
        os.link(aside, target)
    except FileExistsError:
        # Our own earlier try, whose answer was lost: names are never used twice.
        if _read_plain(target, len(data) + 1) != data:
            raise CorruptError("local: another blob has this name", store="local") from None
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        os.rename(aside, target)  # a file system without links


def _read_plain(path: str, limit: int) -> bytes:
    """The first *limit* bytes of a file that is one, and no link to somewhere else."""
    try:
        # Without O_NONBLOCK a pipe in its place would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise CorruptError("local: a blob has become a link", store="local") from exc
        raise
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptError("local: a blob is no plain file", store="local")
        size = min(limit, status.st_size)
        parts = []
        while size > 0 and (part := file.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
