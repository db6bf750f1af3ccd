"""Writes and deletes files below a directory, without following symbolic links.

Every path is opened one directory after the other, relative to the descriptor of the one above and with
O_NOFOLLOW. So nothing outside the directory is written, even if another process replaces a directory by a
link meanwhile. All methods block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from .entries import VersionRecord
from .paths import temporary_name
from .walk import RECORD_ATTRIBUTE

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_ORPHAN_SECONDS: Final = 60.0
"""Age from which a temporary file without a lock belongs to a process that has ended."""

_ATTEMPTS: Final = 10
"""How often a temporary file is created in a directory that is being removed."""

CONFLICTS: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP}
)
"""Errors of a path that is a file where a directory is needed, or the other way round."""

_set_attribute = getattr(os, "setxattr", None)


class Version(NamedTuple):
    """The version of the object that a file is written from.

    Attributes:
        mtime_ns: The file's time.
        listed_size: See `VersionRecord`.
        modified_ns: See `VersionRecord`.
        etag: See `VersionRecord`.
    """

    mtime_ns: int
    listed_size: int
    modified_ns: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A small file to write.

    Attributes:
        key: The path below the directory. It passed `check_path`.
        content: The content.
        version: The version of the object.
        is_new: Whether the walk found no file of this name.
    """

    key: str
    content: bytes
    version: Version
    is_new: bool


@dataclass(slots=True)
class OpenFile:
    """A temporary file that is being written.

    Attributes:
        key: The path of the file that it will be.
        descriptor: The open file, which is locked.
        directory: The descriptor of its directory.
        name: Its temporary name.
    """

    key: str
    descriptor: int
    directory: int
    name: str

    def write(self, data: bytes) -> None:
        """Append data."""
        _write_all(self.descriptor, data)

    def discard(self) -> None:
        """Remove the file. Idempotent; without effect once it was published."""
        descriptor, self.descriptor = self.descriptor, -1
        directory, self.directory = self.directory, -1
        if descriptor >= 0:
            os.close(descriptor)
        if directory >= 0:
            with suppress(OSError):
                os.unlink(self.name, dir_fd=directory)
            os.close(directory)


class TargetDirectory:
    """A directory that files are written to.

    Args:
        path: The directory. It may itself be a symbolic link.
        clear_folders: Whether an empty directory is removed where a file is to be written.
    """

    def __init__(self, path: str, *, clear_folders: bool) -> None:
        self._path = path
        self._clear_folders = clear_folders
        self._root = -1
        self._opening = threading.Lock()
        self._folds_names: bool | None = None

    def open(self) -> None:
        """Create the directory if it is missing, and open it. The methods that write call this."""
        with self._opening:
            if self._root < 0:
                os.makedirs(self._path, exist_ok=True)  # noqa: PTH103
                self._root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the directory. Idempotent."""
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    # -- writing ---------------------------------------------------------------------------------------

    def write_small(self, writes: Sequence[FileWrite]) -> Sequence[Exception | None]:
        """Write small files, each atomically."""
        results: list[Exception | None] = []
        with self._parents() as parents:
            for write in writes:
                try:
                    self._write_one(write, parents)
                except Exception as error:  # noqa: BLE001 - the error of this file
                    results.append(error)
                else:
                    results.append(None)
        return results

    def _write_one(self, write: FileWrite, parents: _Parents) -> None:
        directory, name, descriptor = parents.create_file(write.key)
        try:
            try:
                _write_all(descriptor, write.content)
                _set_times(descriptor, write.version)
            finally:
                os.close(descriptor)
            self._publish(name, directory, write.key, is_new=write.is_new)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
            raise

    def create(self, key: str) -> OpenFile:
        """Create the temporary file of a large file."""
        with self._parents() as parents:
            parent, name, descriptor = parents.create_file(key)
            try:
                directory = os.dup(parent)
            except OSError:
                os.close(descriptor)
                with suppress(OSError):
                    os.unlink(name, dir_fd=parent)
                raise
        # Other processes see by the lock that this file is in use. Some file systems have no locks.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return OpenFile(key, descriptor, directory, name)

    def publish(self, file: OpenFile, version: Version, *, is_new: bool) -> None:
        """Give a complete file its time and its name. Close it."""
        try:
            _set_times(file.descriptor, version)
            self._publish(file.name, file.directory, file.key, is_new=is_new)
        except BaseException:
            file.discard()
            raise
        os.close(file.descriptor)
        os.close(file.directory)
        file.descriptor = file.directory = -1

    def _publish(self, temporary: str, directory: int, key: str, *, is_new: bool) -> None:
        name = key.rpartition("/")[2]
        if is_new and self._has_equal_names() and _exists(name, directory):
            raise FileExistsError(
                errno.EEXIST,
                "a file exists under a name that this file system treats as equal: rename one of the objects",
                key,
            )
        try:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            if not self._clear_folders:
                raise
            os.rmdir(name, dir_fd=directory)  # raises if it is not empty
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)

    def _has_equal_names(self) -> bool:
        """Return whether the file system treats names that differ only in case as equal."""
        if self._folds_names is None:
            self._folds_names = _folds_names(self._root)
        return self._folds_names

    def adopt(self, key: str, size: int, version: Version) -> None:
        """Record that an existing file contains a version of an object. Its content stays as it is.

        Raises:
            OSError: The file does not have this size and time, or its attributes cannot be changed.
        """
        with self._parents(create=False) as parents:
            directory = parents.enter(key)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(key.rpartition("/")[2], flags, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            if (status.st_size, status.st_mtime_ns) != (size, version.mtime_ns):
                raise OSError(errno.ESTALE, "the file was changed", key)
            _set_times(descriptor, version)
        finally:
            os.close(descriptor)

    # -- deleting --------------------------------------------------------------------------------------

    def delete(self, keys: Sequence[str]) -> Sequence[Exception | None]:
        """Delete files, and the directories that become empty."""
        results: list[Exception | None] = []
        folders: set[str] = set()
        with self._parents(create=False) as parents:
            for key in keys:
                try:
                    os.unlink(key.rpartition("/")[2], dir_fd=parents.enter(key))
                except FileNotFoundError:
                    results.append(None)
                except OSError as error:
                    results.append(error)
                else:
                    results.append(None)
                    folders.add(key.rpartition("/")[0])
            self._remove_folders(folders, parents)
        return results

    def _remove_folders(self, folders: set[str], parents: _Parents) -> None:
        while folders := folders - {""}:
            above = set()
            for folder in sorted(folders, reverse=True):
                with suppress(OSError):
                    os.rmdir(folder.rpartition("/")[2], dir_fd=parents.enter(folder))
                    above.add(folder.rpartition("/")[0])
            folders = above

    def remove_orphans(self, keys: Iterable[str]) -> None:
        """Remove temporary files of processes that have ended."""
        with self._parents(create=False) as parents:
            for key in keys:
                with suppress(OSError):
                    _remove_orphan(key.rpartition("/")[2], parents.enter(key))

    @contextmanager
    def _parents(self, *, create: bool = True) -> Iterator[_Parents]:
        if self._root < 0:
            self.open()
        parents = _Parents(self._root, create=create)
        try:
            yield parents
        finally:
            parents.close()


class _Parents:
    """Opens the directories of files. It keeps the last one open, since the next file is often in it too."""

    def __init__(self, root: int, *, create: bool) -> None:
        self._root = root
        self._create = create
        self._folder = ""
        self._descriptor = -1

    def enter(self, key: str) -> int:
        """Return the descriptor of the directory of a file. It is valid until the next call."""
        folder = key.rpartition("/")[0]
        if not folder:
            return self._root
        if folder == self._folder and self._descriptor >= 0:
            return self._descriptor
        self.close()
        current = self._root
        try:
            for segment in folder.split("/"):
                below = self._open(segment, current, key)
                if current != self._root:
                    os.close(current)
                current = below
        except BaseException:
            if current != self._root:
                os.close(current)
            raise
        self._folder, self._descriptor = folder, current
        return current

    def create_file(self, key: str) -> tuple[int, str, int]:
        """Create a temporary file in the directory of a file.

        Returns:
            The directory's descriptor, which is valid until the next call, and the name and the descriptor of
            the file.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            name = temporary_name()
            try:
                directory = self.enter(key)
                return directory, name, _create(name, directory, key)
            except FileNotFoundError:  # a deletion has just removed the directory, which was empty
                self.close()
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _open(self, name: str, directory: int, key: str) -> int:
        try:
            return self._open_existing(name, directory, key)
        except FileNotFoundError:
            if not self._create:
                raise
        with suppress(FileExistsError):  # created by another thread
            os.mkdir(name, dir_fd=directory)
        return self._open_existing(name, directory, key)

    def _open_existing(self, name: str, directory: int, key: str) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            raise NotADirectoryError(
                errno.ENOTDIR,
                f"{name!r} is a file or a symbolic link, and a sync follows no links in its target",
                key,
            ) from error

    def close(self) -> None:
        """Close the directory that is open."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _create(name: str, directory: int, key: str) -> int:
    try:
        return os.open(name, _CREATE, 0o666, dir_fd=directory)
    except OSError as error:
        error.filename = key
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _set_times(descriptor: int, version: Version) -> None:
    """Set the time of a file, and record the version that it contains."""
    with suppress(OverflowError, OSError):  # a time that the file system cannot store
        os.utime(descriptor, ns=(time.time_ns(), version.mtime_ns))
    if _set_attribute is not None:
        status = os.fstat(descriptor)
        record = VersionRecord(
            status.st_mtime_ns,
            status.st_size,
            version.listed_size,
            version.modified_ns,
            version.etag,
        )
        with suppress(OSError):  # the file system keeps no attributes, or has no space for one
            _set_attribute(descriptor, RECORD_ATTRIBUTE, record.encode())


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _folds_names(directory: int) -> bool:
    """Return whether the file system of a directory treats upper and lower case as equal."""
    name = temporary_name()
    try:
        os.close(os.open(name, _CREATE, 0o666, dir_fd=directory))
    except OSError:
        return False  # not writable: the first file will report it
    try:
        return _exists(name.swapcase(), directory)
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)


def _remove_orphan(name: str, directory: int) -> None:
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and time.time() - status.st_ctime > _ORPHAN_SECONDS:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
