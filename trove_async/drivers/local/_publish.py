"""Rename a finished file to its object's path, atomically and durably.

A key has two possible paths, plain and overflow. The first put chooses one, under the key's lock,
and the choice holds until a delete. So a reader that tries the plain path and then the overflow
never misses an object. If another tool creates a file at the plain path of a key in the overflow,
that file wins, and the next put removes the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Self

from trove_async.errors import (
    ObjectExistsError,
    PreconditionFailedError,
    UnavailableError,
)
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._layout import OVERFLOW
from ._metadata import describe, etag
from ._openat2 import ABSENT, DIRECTORY, READ

if TYPE_CHECKING:
    from ._layout import Location
    from ._metadata import Metadata
    from ._root import Root
    from ._staging import StagedFile
    from ._threads import CancelFlag

_ATTEMPTS = 1000
"""Attempts to create a directory and rename into it, while deletes remove it as empty."""

_NOT_PLAIN = ABSENT - {errno.ENOENT, errno.EXDEV} | {errno.ENOTEMPTY, errno.EEXIST}
"""Errors which mean that the plain path cannot hold the key: then it goes to the overflow."""

_NO_LINK = frozenset(
    (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
)  # for example on FAT


def publish(
    root: Root,
    location: Location,
    staged: StagedFile,
    metadata: Metadata,
    *,
    options: PutOptions,
    cancel: CancelFlag,
) -> ObjectInfo:
    """Make a fully written file the object, and make that durable.

    Raises:
        BucketNotFoundError, ObjectExistsError, PreconditionFailedError: As in put. The caller still has to
            discard the file.
    """
    status = staged.seal(location.bucket, location.key, metadata)
    info = describe(location, status, metadata, root.backend)
    with root.locks.key(location.bucket, location.key, cancel):
        for _ in range(_ATTEMPTS):
            try:
                made, path = _rename_into_place(root, location, staged, options, cancel)
                break
            except FileNotFoundError:
                continue  # a delete removed the empty directory
        else:
            raise UnavailableError(
                f"the object's directory was removed {_ATTEMPTS} times during this put: retry"
            )
    staged.close()
    if root.fsync:
        _sync(root, path, made)
    return info


def check_conditions(
    current: os.stat_result | None, if_match: str | None, if_none_match: str | None
) -> None:
    """Raise ObjectExistsError or PreconditionFailedError if a condition does not hold."""
    if if_none_match is not None and current is not None:
        if if_none_match == "*":
            raise ObjectExistsError("if_none_match: the object exists")
        if if_none_match == etag(current):
            raise PreconditionFailedError("if_none_match: the object is still this version")
    if if_match is None:
        return
    if current is None:
        raise PreconditionFailedError("if_match: the object does not exist")
    if if_match not in {"*", etag(current)}:
        raise PreconditionFailedError("if_match: the object is another version")


def prune(root: Root, path: str) -> None:
    """Remove the empty directories above `path`, but not the bucket's own."""
    keep = _depth(path)
    names = path.split("/")[:-1]
    with contextlib.suppress(OSError):  # usually not empty, or removed by another call
        while len(names) > keep:
            parent = root.confined.open("/".join(names[:-1]), DIRECTORY)
            try:
                os.rmdir(names.pop(), dir_fd=parent)
            finally:
                os.close(parent)


class ExistingFiles:
    """The files at an object's two paths, found under its lock.

    Attributes:
        parent: The descriptor of the plain path's directory, or -1.
        name: The file's name in that directory.
        plain: The status of the file at the plain path, or None.
        overflow: The status of the file in the overflow, or None.
        blocked: Whether something other than a file is at the plain path or above it.
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
    """Rename the file to the object's path.

    Returns:
        The number of leading components of its path that existed before (None: all), and the path.

    Raises:
        FileNotFoundError: Its directory was removed meanwhile: try again.
    """
    if not (options.conditional or root.sidecars.used) and _replace(root, location, staged, cancel):
        return None, location.plain or ""
    with ExistingFiles(root, location) as existing:
        if existing.parent < 0 and options.if_match is not None:
            root.require_bucket(location)
        check_conditions(existing.current, options.if_match, options.if_none_match)
        cancel.check()
        exclusive = options.if_none_match == "*"
        if location.plain is not None and not existing.blocked:
            try:
                if existing.parent >= 0 and (
                    existing.overflow is None or existing.plain is not None
                ):
                    _rename(root, staged, existing.parent, existing.name, exclusive=exclusive)
                    _remove_replaced(root, location, existing)
                    return None, location.plain
                if existing.overflow is None:
                    made = _rename_below(
                        root, location, staged, location.plain, exclusive=exclusive
                    )
                    return made, location.plain
            except OSError as error:
                if error.errno not in _NOT_PLAIN or existing.plain is not None:
                    raise
        root.require_bucket(location)
        made = _rename_below(root, location, staged, location.overflow, exclusive=False)
        if existing.overflow is not None:
            root.sidecars.remove_if_owned(location.bucket, location.key, existing.overflow)
        return made, location.overflow


def _replace(root: Root, location: Location, staged: StagedFile, cancel: CancelFlag) -> bool:
    """Rename the file to its plain path without looking at existing files. Return whether it did.

    The usual case, for fewer system calls: the directory exists, and no key of the bucket is in the
    overflow. Under the key's lock that stays so for this key.
    """
    if location.plain is None or root.has_overflow(location):
        return False
    try:
        parent, name = root.open_parent(location.plain)
    except OSError:
        return False  # the general path finds the reason
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


def _rename_below(
    root: Root, location: Location, staged: StagedFile, path: str, *, exclusive: bool
) -> int:
    """Rename the file to `path`, and create missing directories."""
    directory, _, name = path.rpartition("/")
    try:
        mode = root.settings.dir_mode
        parent, made = root.confined.open_or_create(directory, mode, existing=_depth(path))
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
    return made


def _rename(root: Root, staged: StagedFile, parent: int, name: str, *, exclusive: bool) -> None:
    directory = root.staging.directory
    _inherit_group(root, staged, parent)
    if exclusive:
        # The lock excludes our own writers. A link also never replaces a file of another tool.
        try:
            os.link(staged.name, name, src_dir_fd=directory, dst_dir_fd=parent)
        except FileExistsError:
            raise FileNotFoundError(errno.ENOENT, "try again: the file exists now") from None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            staged.mark_published()
            os.unlink(staged.name, dir_fd=directory)
            return
    os.rename(staged.name, name, src_dir_fd=directory, dst_dir_fd=parent)
    staged.mark_published()


def _inherit_group(root: Root, staged: StagedFile, parent: int) -> None:
    """Give the file the group of a setgid directory, as if it was created there (inode(7))."""
    there, status = os.fstat(parent), staged.status
    if status is None or not there.st_mode & stat.S_ISGID or status.st_gid == there.st_gid:
        return
    # Only a member of the group may do this.
    with contextlib.suppress(PermissionError):
        os.fchown(staged.fd, -1, there.st_gid)
        if root.fsync:
            os.fsync(staged.fd)


def _remove_replaced(root: Root, location: Location, existing: ExistingFiles) -> None:
    if existing.plain is not None:
        root.sidecars.remove_if_owned(location.bucket, location.key, existing.plain)
    if existing.overflow is not None:
        unlink(root, location.overflow)
        root.sidecars.remove_if_owned(location.bucket, location.key, existing.overflow)
        prune(root, location.overflow)


def _depth(path: str) -> int:
    """Return how many leading components of the path a put or delete never creates or removes."""
    return OVERFLOW.count("/") + 1 if path.startswith(f"{OVERFLOW}/") else 1


def unlink(root: Root, path: str) -> None:
    """Remove the file at `path` if it exists."""
    parent, name = root.open_parent(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)


def _sync(root: Root, path: str, made: int | None) -> None:
    """Sync the directories that lead to `path`, of which `made` components existed before."""
    names = path.split("/")[:-1]
    for depth in range(len(names) if made is None else made, len(names) + 1):
        try:
            fd = root.confined.open("/".join(names[:depth]), DIRECTORY)
        except OSError as error:
            if error.errno in ABSENT:
                return  # removed again as empty
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
            names.pop()
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return
