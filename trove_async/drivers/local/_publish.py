"""Letting a finished file take an object's place, in one step, and all that goes with that.

Which of its two places a key has is decided where it is first put, under its lock, and stays until
it is deleted: so a reader that looks at the plain place first and then into the overflow never misses
a key that is there. Where another tool put a file at the plain place of a key in the overflow, the
file wins, and the next put clears the other away.
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
    from ._layout import Spot
    from ._metadata import Record
    from ._root import Root
    from ._staging import Staged
    from ._threads import Stop

_TRIES = 1000
"""How often a directory may vanish between being made and being used: deletes remove empty ones."""

_ELSEWHERE = ABSENT - {errno.ENOENT, errno.EXDEV} | {errno.ENOTEMPTY, errno.EEXIST}
"""What says that the plain place cannot hold the key, so that it goes to the overflow."""

_NO_LINK = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))  # FAT, say


def publish(
    root: Root, spot: Spot, staged: Staged, record: Record, *, options: PutOptions, stop: Stop
) -> ObjectInfo:
    """Let a file that is fully written take the object's place, and make that durable.

    Raises:
        BucketNotFoundError, ObjectExistsError, PreconditionFailedError: As put does. The file is
            still there to be discarded.
    """
    status = staged.seal(spot.bucket, spot.key, record)
    info = describe(spot, status, record, root.backend)
    with root.locks.key(spot.bucket, spot.key, stop):
        for _ in range(_TRIES):
            try:
                made, path = _take_place(root, spot, staged, options, stop)
                break
            except FileNotFoundError:
                continue  # a delete took the directory away, being empty
        else:
            raise UnavailableError("the object's directory is removed again and again")
    staged.close()
    if root.fsync:
        _sync(root, path, made)
    return info


def check_conditions(
    current: os.stat_result | None, if_match: str | None, if_none_match: str | None
) -> None:
    """Raise ObjectExistsError or PreconditionFailedError if what is there is not what must be."""
    if if_none_match is not None and current is not None:
        if if_none_match == "*":
            raise ObjectExistsError("the object exists, and was only to be created")
        if if_none_match == etag(current):
            raise PreconditionFailedError("the object still is the version that was excluded")
    if if_match is None:
        return
    if current is None:
        raise PreconditionFailedError("there is no object, so it is not the version asked for")
    if if_match not in {"*", etag(current)}:
        raise PreconditionFailedError("the object is another version than was asked for")


def prune(root: Root, path: str) -> None:
    """Remove the directories above `path` that are empty, up to the bucket's own."""
    keep = _depth(path)
    names = path.split("/")[:-1]
    with contextlib.suppress(OSError):  # not empty, most often; or somebody was faster
        while len(names) > keep:
            parent = root.beneath.open("/".join(names[:-1]), DIRECTORY)
            try:
                os.rmdir(names.pop(), dir_fd=parent)
            finally:
                os.close(parent)


class Ground:
    """What is at an object's two places, looked at under its lock.

    Attributes:
        parent: The directory of its plain place; -1 where there is none.
        name: Its name in that.
        plain: The file that is there, if one is.
        hidden: The file in the overflow, if one is.
        blocked: Whether something else is at the plain place, or in its way.
    """

    __slots__ = ("blocked", "hidden", "name", "parent", "plain")

    def __init__(self, root: Root, spot: Spot) -> None:
        self.parent = -1
        self.name = ""
        self.plain = None
        self.blocked = spot.plain is None
        self.hidden = _status(root, spot.overflow) if root.has_overflow(spot) else None
        if spot.plain is None:
            return
        try:
            self.parent, self.name = root.open_parent(spot.plain)
            status = os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in ABSENT:
                self.__exit__()
                raise
            self.blocked = error.errno in _ELSEWHERE
            return
        if stat.S_ISREG(status.st_mode):
            self.plain = status
        else:
            self.blocked = True

    @property
    def current(self) -> os.stat_result | None:
        """The object as it is, if it is."""
        return self.hidden if self.plain is None else self.plain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        parent, self.parent = self.parent, -1
        if parent >= 0:
            os.close(parent)


def _status(root: Root, path: str) -> os.stat_result | None:
    try:
        fd = root.beneath.open(path, READ)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return status if stat.S_ISREG(status.st_mode) else None


def _take_place(
    root: Root, spot: Spot, staged: Staged, options: PutOptions, stop: Stop
) -> tuple[int | None, str]:
    """Rename the file to where the object is, or is to be.

    Returns:
        How many leading components of its path were there before, None if all; and the path.

    Raises:
        FileNotFoundError: Its directory vanished: look again.
    """
    if not (options.conditional or root.sidecars.used) and _replace(root, spot, staged, stop):
        return None, spot.plain or ""
    with Ground(root, spot) as ground:
        if ground.parent < 0 and options.if_match is not None:
            root.require_bucket(spot)
        check_conditions(ground.current, options.if_match, options.if_none_match)
        stop.check()
        exclusive = options.if_none_match == "*"
        if spot.plain is not None and not ground.blocked:
            try:
                if ground.parent >= 0 and (ground.hidden is None or ground.plain is not None):
                    _rename(root, staged, ground.parent, ground.name, exclusive=exclusive)
                    _clear_old(root, spot, ground)
                    return None, spot.plain
                if ground.hidden is None:
                    made = _rename_below(root, spot, staged, spot.plain, exclusive=exclusive)
                    return made, spot.plain
            except OSError as error:
                if error.errno not in _ELSEWHERE or ground.plain is not None:
                    raise
        root.require_bucket(spot)
        made = _rename_below(root, spot, staged, spot.overflow, exclusive=False)
        if ground.hidden is not None:
            root.sidecars.forget(spot.bucket, spot.key, ground.hidden)
        return made, spot.overflow


def _replace(root: Root, spot: Spot, staged: Staged, stop: Stop) -> bool:
    """Rename the file to its plain place without a look at what is there, if nothing is against it.

    The usual case, for fewer system calls: the directory exists, and no key of the bucket is in the
    overflow. Under the key's lock that stays so for this key.
    """
    if spot.plain is None or root.has_overflow(spot):
        return False
    try:
        parent, name = root.open_parent(spot.plain)
    except OSError:
        return False  # the long way finds out what it is
    try:
        stop.check()
        _rename(root, staged, parent, name, exclusive=False)
    except OSError as error:
        if error.errno in _ELSEWHERE or error.errno == errno.ENOENT:
            return False
        raise
    finally:
        os.close(parent)
    return True


def _rename_below(root: Root, spot: Spot, staged: Staged, path: str, *, exclusive: bool) -> int:
    """Rename the file to `path`, making the directories that are missing of it."""
    directory, _, name = path.rpartition("/")
    try:
        mode = root.settings.dir_mode
        parent, made = root.beneath.make(directory, mode, below=_depth(path))
    except FileNotFoundError:
        root.require_bucket(spot)
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


def _rename(root: Root, staged: Staged, parent: int, name: str, *, exclusive: bool) -> None:
    directory = root.staging.directory
    _inherit_group(root, staged, parent)
    if exclusive:
        # Our own are kept apart by the lock. This keeps what another tool makes just now.
        try:
            os.link(staged.name, name, src_dir_fd=directory, dst_dir_fd=parent)
        except FileExistsError:
            raise FileNotFoundError(errno.ENOENT, "look again: something is there now") from None
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            staged.placed()
            os.unlink(staged.name, dir_fd=directory)
            return
    os.rename(staged.name, name, src_dir_fd=directory, dst_dir_fd=parent)
    staged.placed()


def _inherit_group(root: Root, staged: Staged, parent: int) -> None:
    """Give the file the group of a setgid directory, as if it had been created there (inode(7))."""
    there, status = os.fstat(parent), staged.status
    if status is None or not there.st_mode & stat.S_ISGID or status.st_gid == there.st_gid:
        return
    # Only a member of the group may do this; the kernel lets others create such files.
    with contextlib.suppress(PermissionError):
        os.fchown(staged.fd, -1, there.st_gid)
        if root.fsync:
            os.fsync(staged.fd)


def _clear_old(root: Root, spot: Spot, ground: Ground) -> None:
    if ground.plain is not None:
        root.sidecars.forget(spot.bucket, spot.key, ground.plain)
    if ground.hidden is not None:
        unlink(root, spot.overflow)
        root.sidecars.forget(spot.bucket, spot.key, ground.hidden)
        prune(root, spot.overflow)


def _depth(path: str) -> int:
    """Return how many leading components of the path are not made or removed for its sake."""
    return OVERFLOW.count("/") + 1 if path.startswith(f"{OVERFLOW}/") else 1


def unlink(root: Root, path: str) -> None:
    """Remove the file of that path, if it is there."""
    parent, name = root.open_parent(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)


def _sync(root: Root, path: str, made: int | None) -> None:
    """Make the entries durable that lead to `path`, of which `made` components were there."""
    names = path.split("/")[:-1]
    for depth in range(len(names) if made is None else made, len(names) + 1):
        try:
            fd = root.beneath.open("/".join(names[:depth]), DIRECTORY)
        except OSError as error:
            if error.errno in ABSENT:
                return  # removed again, being empty: nothing to keep
            raise
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_removal(root: Root, path: str) -> None:
    """Make it durable that `path` is gone, and the directories that went with it."""
    names = path.split("/")[:-1]
    while names:
        try:
            fd = root.beneath.open("/".join(names), DIRECTORY)
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
