"""Reads the files of a source directory, and detects changes while they are read."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from trove_async._concurrency import in_thread
from trove_async.errors import ObjectChangedError
from trove_async.models import KiB, MiB

from .rules import TICK_NS

SMALL_SIZE: Final = 256 * KiB
"""Files and objects of up to this size are read and written in one call."""

_CHUNK: Final = MiB

_SETTLED_NS: Final = 2 * TICK_NS
"""Age from which every further change gives a file a new time. A younger file is read a little later."""

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: opening a FIFO, which may have replaced the file, must not wait for a writer."""


class FileState(NamedTuple):
    """What identifies the content of a file: if two states are equal, the file was not changed."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class SmallFile(NamedTuple):
    """The content of a small file, and its state when it was read. No content: it is not small."""

    content: bytes | None
    state: FileState


class SourceFiles:
    """The files of a source directory. All methods without ``async`` block.

    Args:
        root: The directory.
        follow: Whether symbolic links are followed.
    """

    def __init__(self, root: str, *, follow: bool) -> None:
        self._root = root
        self._flags = _FLAGS if follow else _FLAGS | os.O_NOFOLLOW
        self._follow = follow

    def read_small(self, keys: Sequence[str]) -> Sequence[SmallFile | Exception]:
        """Return the contents of small files."""
        results: list[SmallFile | Exception] = []
        for key in keys:
            try:
                results.append(self._read_one(key))
            except Exception as error:  # noqa: BLE001 - the error of this file
                results.append(error)
        return results

    def _read_one(self, key: str) -> SmallFile:
        descriptor, state = self._open(key)
        try:
            if state.size > SMALL_SIZE:
                return SmallFile(None, state)
            content = os.read(descriptor, state.size + 1)
            while 0 < len(content) < state.size:
                more = os.read(descriptor, state.size + 1 - len(content))
                if not more:
                    break
                content += more
            if len(content) != state.size or _state_of(os.fstat(descriptor)) != state:
                raise changed_error(key)
        finally:
            os.close(descriptor)
        return SmallFile(content, state)

    @asynccontextmanager
    async def opened(self, key: str) -> AsyncGenerator[tuple[int, FileState], None]:
        """Open a regular file. Yields its descriptor and state."""
        held: list[tuple[int, FileState]] = []
        try:
            # The call ends even if this task is cancelled, so it stores its result in `held`.
            await in_thread(lambda: held.append(self._open(key)))
            yield held[0]
        finally:
            for descriptor, _ in held:
                os.close(descriptor)

    def _open(self, key: str) -> tuple[int, FileState]:
        descriptor = os.open(f"{self._root}/{key}", self._flags)
        try:
            status = os.fstat(descriptor)
            # A change within the same tick of the clock as the last one would not be noticed.
            if 0 <= time.time_ns() - status.st_mtime_ns < _SETTLED_NS:
                time.sleep(_SETTLED_NS / 1e9)
                status = os.fstat(descriptor)
            _check_regular(key, status)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, _state_of(status)

    def states(self, keys: Sequence[str]) -> Sequence[FileState | Exception | None]:
        """Return the current states of files, None for those that no longer exist."""
        results: list[FileState | Exception | None] = []
        for key in keys:
            try:
                path = f"{self._root}/{key}"
                status = os.stat(path, follow_symlinks=self._follow)  # noqa: PTH116 - hot path
                results.append(_state_of(status))
            except OSError:
                results.append(None)
        return results

    async def chunks(
        self, key: str, descriptor: int, state: FileState
    ) -> AsyncGenerator[bytes, None]:
        """Iterate over an open file.

        Raises:
            ObjectChangedError: The file was changed while it was read. Raised before the last chunk.
        """
        position = 0
        while position < state.size:
            chunk = await in_thread(_read_chunk, key, descriptor, position, state)
            position += len(chunk)
            yield chunk


def _read_chunk(key: str, descriptor: int, position: int, state: FileState) -> bytes:
    chunk = os.pread(descriptor, min(_CHUNK, state.size - position), position)
    ends = position + len(chunk) == state.size
    if not chunk or (ends and _state_of(os.fstat(descriptor)) != state):
        raise changed_error(key)
    return chunk


def _check_regular(key: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no longer a regular file", key)


def changed_error(key: str) -> ObjectChangedError:
    """Return the error of a file that was changed while it was read or stored."""
    return ObjectChangedError(
        f"the file {key!r} was changed while it was read: sync again once it is complete"
    )


def _state_of(status: os.stat_result) -> FileState:
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
