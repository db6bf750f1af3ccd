"""Create, delete and list buckets, which are directories in the root."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

from trove_async.errors import BucketExistsError, BucketNotEmptyError
from trove_async.models import BucketInfo

from ._errors import missing_bucket
from ._layout import OVERFLOW, is_text
from ._listing import BucketWalk
from ._openat2 import ABSENT, DIRECTORY

if TYPE_CHECKING:
    from ._root import Root
    from ._threads import CancelFlag

_NOT_EMPTY = frozenset((errno.ENOTEMPTY, errno.EEXIST))  # rmdir(2)


def create_bucket(root: Root, bucket: str, cancel: CancelFlag) -> None:
    """Create the bucket."""
    directory = root.layout.directory(bucket)
    with root.locks.bucket(bucket, cancel):
        if not root.confined.is_directory(directory):
            # If another tool removed a bucket with this name, its overflow may still exist. The new
            # bucket must not contain the old objects.
            _remove_overflow(root, directory)
        try:
            os.mkdir(directory, root.settings.dir_mode, dir_fd=root.fd)
        except FileExistsError as error:
            raise BucketExistsError("the bucket exists", bucket=bucket) from error
    if root.fsync:
        os.fsync(root.fd)


def delete_bucket(root: Root, bucket: str, cancel: CancelFlag) -> None:
    """Delete the bucket, even if it contains empty directories that other tools created."""
    directory = root.layout.directory(bucket)
    with root.locks.bucket(bucket, cancel):
        # 1. Check that the bucket has no objects. While the lock is held, no other call can add one.
        walk = BucketWalk(root, bucket, cancel, use_cache=False)
        try:
            is_empty = not walk.has_objects()
        finally:
            walk.close()
        if not is_empty:
            raise BucketNotEmptyError("the bucket has objects: delete them first", bucket=bucket)
        # 2. Remove its overflow, and the empty directories in its own directory. Entries there that are
        #    neither objects nor directories stay.
        _remove_overflow(root, directory)
        _remove_empty_directories(root, directory)
        # 3. Remove its own directory. This fails if any entry is left in it.
        try:
            os.rmdir(directory, dir_fd=root.fd)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            raise BucketNotEmptyError(
                "the bucket's directory has entries that are not objects (links, sockets): remove them",
                bucket=bucket,
            ) from error
    # 4. Make the removal durable.
    if root.fsync:
        os.fsync(root.fd)


def head_bucket(root: Root, bucket: str) -> BucketInfo:
    """Return the bucket's info."""
    directory = root.layout.directory(bucket)
    try:
        fd = root.confined.open(directory, DIRECTORY)
    except OSError as error:
        if error.errno in ABSENT:
            raise missing_bucket(bucket) from error
        raise
    try:
        return BucketInfo(name=bucket)
    finally:
        os.close(fd)


def list_buckets(root: Root) -> list[BucketInfo]:
    """Return the buckets, sorted by name."""
    fd = root.confined.open(".", DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    buckets = {root.layout.bucket(name) for name in names if is_text(name)}
    return [BucketInfo(name=bucket) for bucket in sorted(filter(None, buckets))]


def _remove_overflow(root: Root, directory: str) -> None:
    fd = root.confined.open(OVERFLOW, DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory, dir_fd=fd)
    finally:
        os.close(fd)


def _remove_empty_directories(root: Root, directory: str) -> None:
    """Remove the empty directories in the bucket's directory, deepest first."""
    fd = root.confined.open(directory, DIRECTORY)
    try:
        for _, directories, _, parent in os.fwalk(".", topdown=False, dir_fd=fd):
            for name in directories:
                # A directory that is not empty stays, and then the caller's rmdir fails.
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=parent)
    finally:
        os.close(fd)
