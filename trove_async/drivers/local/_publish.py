"""Rename a finished file to its object's path, atomically and durably.

A key has two possible paths, plain and overflow. The first put chooses one under the key's lock, and the
object stays there until it is deleted. So a reader that tries the plain path and then the overflow always
finds an existing object. If another tool creates a file at the plain path of an object in the overflow,
the new file takes precedence, and the next put removes the one in the overflow.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Self

from trove_async.errors import ObjectExistsError, PreconditionFailedError, UnavailableError
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._layout import OVERFLOW
from ._metadata import describe, etag
from ._openat2 import ABSENT, DIRECTORY, READ
from ._renameat2 import replace_by_exchange

if TYPE_CHECKING:
    from ._layout import Location
    from ._metadata import Metadata
    from ._root import Root
    from ._staging import StagedFile
    from ._threads import CancelFlag

_ATTEMPTS = 1000
"""Maximum number of attempts to create a directory and rename into it. A concurrent delete may remove
the directory in between, because it is still empty."""

_NOT_PLAIN = ABSENT - {errno.ENOENT, errno.EXDEV} | {errno.ENOTEMPTY, errno.EEXIST}
"""Errors that mean that the plain path cannot hold the object, which then goes to the overflow."""

_LARGE = 1024 * 1024
"""Size of the smallest file that replaces another one by `replace_by_exchange`."""

# Errors of link(2) on a file system without hard links, such as FAT.
_NO_LINK = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


def publish(
    root: Root,
    location: Location,
    staged: StagedFile,
    metadata: Metadata,
    *,
    options: PutOptions,
    cancel: CancelFlag,
) -> ObjectInfo:
    """Publish a completely written file as the object, durably if the driver's `fsync` is set.

    If this raises, the caller must discard the file.

    Raises:
        BucketNotFoundError, ObjectExistsError, PreconditionFailedError: As in put.
        UnavailableError: Concurrent deletes removed the object's directory in every attempt.
    """
    # 1. Write the metadata and sync the file. This is slow, so the lock is not held yet.
    status = staged.seal(location.bucket, location.key, metadata)
    info = describe(location, status, metadata, root.backend)
    # 2. Under the key's lock, check the conditions and rename the file.
    with root.locks.key(location.bucket, location.key, cancel):
        for _ in range(_ATTEMPTS):
            try:
                existed, path = _rename_into_place(root, location, staged, options, cancel)
                break
            except FileNotFoundError:
                continue  # a delete removed the directory, which was still empty
        else:
            raise UnavailableError(
                f"the object was not stored in {_ATTEMPTS} attempts, because concurrent deletes removed its"
                " directory: retry"
            )
    # 3. Sync the directories that were changed.
    staged.close()
    if root.fsync:
        _sync_creation(root, path, existed)
    return info


def check_conditions(
    current: os.stat_result | None, if_match: str | None, if_none_match: str | None
) -> None:
    """Raise ObjectExistsError or PreconditionFailedError if a condition does not hold."""
    if if_none_match is not None and current is not None:
        if if_none_match == "*":
            raise ObjectExistsError("if_none_match: the object exists")
        if if_none_match == etag(current):
            raise PreconditionFailedError("if_none_match: the current version has this etag")
    if if_match is None:
        return
    if current is None:
        raise PreconditionFailedError("if_match: the object does not exist")
    if if_match not in {"*", etag(current)}:
        raise PreconditionFailedError("if_match: the current version has a different etag")


def prune(root: Root, path: str) -> None:
    """Remove the empty directories between `path` and the bucket's directory or the overflow."""
    fixed = _fixed_depth(path)
    names = path.split("/")[:-1]
    with contextlib.suppress(OSError):  # a directory is not empty, or another call removed it
        while len(names) > fixed:
            parent = root.confined.open("/".join(names[:-1]), DIRECTORY)
            try:
                os.rmdir(names.pop(), dir_fd=parent)
            finally:
                os.close(parent)


class ExistingFiles:
    """The files at an object's two paths. The key's lock must be held.

    Attributes:
        parent: The descriptor of the plain path's directory, or -1.
        name: The file's name in that directory.
        plain: The status of the file at the plain path, or None.
        overflow: The status of the file in the overflow, or None.
        blocked: Whether the plain path cannot hold the object: the key is not plain, something other
            than a file is at the path, or the path cannot be created.
    """

    __slots__ = ("blocked", "name", "overflow", "parent", "plain")

    def __init__(self, root: Root, location: Location) -> None:
        self.parent = -1
        self.name = ""
        self.plain = None
        self.blocked = location.plain is None
        self.overflow = _status(root, location.overflow) if root.has_overflow(location) else None
        if location.plain is None:
            return
        try:
            self.parent, self.name = root.open_parent(location.plain)
            status = os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in ABSENT:
                self.__exit__()
                raise
            self.blocked = error.errno in _NOT_PLAIN
            return
        if stat.S_ISREG(status.st_mode):
            self.plain = status
        else:
            self.blocked = True

    @property
    def current(self) -> os.stat_result | None:
        """The status of the object's file, or None."""
        return self.overflow if self.plain is None else self.plain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        parent, self.parent = self.parent, -1
        if parent >= 0:
            os.close(parent)


def _status(root: Root, path: str) -> os.stat_result | None:
    try:
        fd = root.confined.open(path, READ)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return status if stat.S_ISREG(status.st_mode) else None


def _rename_into_place(
    root: Root, location: Location, staged: StagedFile, options: PutOptions, cancel: CancelFlag
) -> tuple[int | None, str]:
    """Rename the file to the plain path or to the path in the overflow.

    Returns:
        The number of leading components of the path that existed before (None: all), and the path.

    Raises:
        FileNotFoundError: A concurrent delete removed the directory, or another tool created the
            file. The caller tries again.
    """
    # 1. The usual case: no condition to check, and no sidecar of the old file to remove.
    if not (options.conditional or root.sidecars.used) and _replace_plain(
        root, location, staged, cancel
    ):
        return None, location.plain or ""
    # 2. Find the object's existing files, and check the conditions.
    with ExistingFiles(root, location) as existing:
        # A missing bucket takes precedence over a failed condition.
        if existing.parent < 0 and options.if_match is not None:
            root.require_bucket(location)
        check_conditions(existing.current, options.if_match, options.if_none_match)
        cancel.check()
        exclusive = options.if_none_match == "*"
        # 3. Rename to the plain path, unless something else is there or the object is in the overflow.
        if location.plain is not None and not existing.blocked:
            try:
                if existing.parent >= 0 and (
                    existing.overflow is None or existing.plain is not None
                ):
                    _rename(root, staged, existing.parent, existing.name, exclusive=exclusive)
                    _remove_replaced(root, location, existing)
                    return None, location.plain
                if existing.overflow is None:
                    existed = _rename_creating_parents(
                        root, location, staged, location.plain, exclusive=exclusive
                    )
                    return existed, location.plain
            except OSError as error:
                if error.errno not in _NOT_PLAIN or existing.plain is not None:
                    raise
        # 4. Otherwise rename to the path in the overflow. Other tools do not create files there, so
        #    the key's lock is enough for an exclusive rename.
        root.require_bucket(location)
        existed = _rename_creating_parents(
            root, location, staged, location.overflow, exclusive=False
        )
        if existing.overflow is not None:
            root.sidecars.remove_if_owned(location.bucket, location.key, existing.overflow)
        return existed, location.overflow


def _replace_plain(root: Root, location: Location, staged: StagedFile, cancel: CancelFlag) -> bool:
    """Try to rename the file to the plain path without looking for existing files first.

    This saves system calls in the usual case: the directory exists, and no key of the bucket is in
    the overflow. While the key's lock is held, no other call can put this key into the overflow.

    Returns:
        Whether the file was renamed.
    """
    if location.plain is None or root.has_overflow(location):
        return False
    try:
        parent, name = root.open_parent(location.plain)
    except OSError:
        return False  # the caller then looks for existing files, and handles the error
    try:
        cancel.check()
        _rename(root, staged, parent, name, exclusive=False)
    except OSError as error:
        if error.errno in _NOT_PLAIN or error.errno == errno.ENOENT:
            return False
        raise
    finally:
        os.close(parent)
    return True


def _rename_creating_parents(
    root: Root, location: Location, staged: StagedFile, path: str, *, exclusive: bool
) -> int:
    """Create the missing directories of `path`, and rename the file to it.

    Returns:
        The number of leading components of `path` that existed before.
    """
    directory, _, name = path.rpartition("/")
    try:
        mode = root.settings.dir_mode
        parent, existed = root.confined.open_or_create(directory, mode, existing=_fixed_depth(path))
    except FileNotFoundError:
        root.require_bucket(location)
        raise
    except OSError:
        prune(root, path)
        raise
    try:
        _rename(root, staged, parent, name, exclusive=exclusive)
    except OSError:
        prune(root, path)
        raise
    finally:
        os.close(parent)
    return existed


def _rename(root: Root, staged: StagedFile, parent: int, name: str, *, exclusive: bool) -> None:
    directory = root.staging.directory
    _inherit_group(root, staged, parent)
    if exclusive:
        # The key's lock excludes other puts, but not other tools. Unlike rename(2), link(2) never
        # replaces a file.
        try:
            os.link(staged.name, name, src_dir_fd=directory, dst_dir_fd=parent)
        except FileExistsError:
            # Another tool has just created the file. On this error `publish` tries again, and then
            # finds the file.
            raise FileNotFoundError(errno.ENOENT, "another tool created the file") from None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            staged.mark_published()
            os.unlink(staged.name, dir_fd=directory)
            return
    is_large = staged.status is not None and staged.status.st_size >= _LARGE
    if root.fsync or not (is_large and replace_by_exchange(directory, staged.name, parent, name)):
        os.rename(staged.name, name, src_dir_fd=directory, dst_dir_fd=parent)
    staged.mark_published()


def _inherit_group(root: Root, staged: StagedFile, parent: int) -> None:
    """Give the file the group of a setgid directory, as if it had been created there (inode(7))."""
    directory, file = os.fstat(parent), staged.status
    if file is None or not directory.st_mode & stat.S_ISGID or file.st_gid == directory.st_gid:
        return
    # A process outside the group may not do this. The file then keeps its group.
    with contextlib.suppress(PermissionError):
        os.fchown(staged.fd, -1, directory.st_gid)
        if root.fsync:
            os.fsync(staged.fd)


def _remove_replaced(root: Root, location: Location, existing: ExistingFiles) -> None:
    """Remove the sidecar of the replaced file, and the object's file in the overflow."""
    if existing.plain is not None:
        root.sidecars.remove_if_owned(location.bucket, location.key, existing.plain)
    if existing.overflow is not None:
        unlink(root, location.overflow)
        root.sidecars.remove_if_owned(location.bucket, location.key, existing.overflow)
        prune(root, location.overflow)


def _fixed_depth(path: str) -> int:
    """Return the number of leading components of a path that puts and deletes never create or remove."""
    return OVERFLOW.count("/") + 1 if path.startswith(f"{OVERFLOW}/") else 1


def unlink(root: Root, path: str) -> None:
    """Remove the file at `path` if it exists."""
    parent, name = root.open_parent(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)


def _sync_creation(root: Root, path: str, existed: int | None) -> None:
    """Make the creation of `path` and of its directories durable.

    Args:
        root: The root.
        path: The path.
        existed: The number of leading components that existed before; None: all.
    """
    names = path.split("/")[:-1]
    for depth in range(len(names) if existed is None else existed, len(names) + 1):
        try:
            fd = root.confined.open("/".join(names[:depth]), DIRECTORY)
        except OSError as error:
            if error.errno in ABSENT:
                return  # a concurrent delete has removed the directory again
            raise
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_removal(root: Root, path: str) -> None:
    """Make the removal of `path` and of its empty directories durable."""
    names = path.split("/")[:-1]
    while names:
        try:
            fd = root.confined.open("/".join(names), DIRECTORY)
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            names.pop()  # the directory was removed as well: sync its parent
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return
