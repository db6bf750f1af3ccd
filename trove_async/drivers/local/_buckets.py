"""Making, deleting and listing buckets: directories in the root."""

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
from ._listing import Walks
from ._openat2 import ABSENT, DIRECTORY

if TYPE_CHECKING:
    from ._root import Root
    from ._threads import Stop


def create_bucket(root: Root, bucket: str, stop: Stop) -> None:
    """Make the bucket."""
    home = root.layout.home(bucket)
    with root.locks.bucket(bucket, stop):
        if not root.beneath.exists(home):
            # If another tool removed the bucket, its overflow must not come back with this one.
            _remove_overflow(root, home)
        try:
            os.mkdir(home, root.settings.dir_mode, dir_fd=root.top)
        except FileExistsError as error:
            raise BucketExistsError("the bucket exists", bucket=bucket) from error
    if root.fsync:
        os.fsync(root.top)


def delete_bucket(root: Root, bucket: str, stop: Stop) -> None:
    """Delete the bucket, and the empty directories that other tools may have left in it."""
    home = root.layout.home(bucket)
    with root.locks.bucket(bucket, stop):
        walks = Walks(root, bucket, stop, fresh=True)
        try:
            is_empty = not walks.any()
        finally:
            walks.close()
        if not is_empty:
            raise BucketNotEmptyError("the bucket has objects: delete them first", bucket=bucket)
        _remove_overflow(root, home)
        _remove_empty(root, home)
        try:
            os.rmdir(home, dir_fd=root.top)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            raise BucketNotEmptyError(
                "the bucket's directory holds what is no object (a link, a socket): remove it",
                bucket=bucket,
            ) from error
    if root.fsync:
        os.fsync(root.top)


def head_bucket(root: Root, bucket: str) -> BucketInfo:
    """Return what is known of the bucket."""
    home = root.layout.home(bucket)
    try:
        fd = root.beneath.open(home, DIRECTORY)
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
    fd = root.beneath.open(".", DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    buckets = {root.layout.bucket(name) for name in names if is_text(name)}
    return [BucketInfo(name=bucket) for bucket in sorted(filter(None, buckets))]


_NOT_EMPTY = frozenset((errno.ENOTEMPTY, errno.EEXIST))


def _remove_overflow(root: Root, home: str) -> None:
    fd = root.beneath.open(OVERFLOW, DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(home, dir_fd=fd)
    finally:
        os.close(fd)


def _remove_empty(root: Root, home: str) -> None:
    """Remove the directories below the bucket's that hold nothing, deepest first."""
    fd = root.beneath.open(home, DIRECTORY)
    try:
        for _, directories, _, at in os.fwalk(".", topdown=False, dir_fd=fd):
            for name in directories:
                with contextlib.suppress(OSError):  # not empty: the bucket's own rmdir will tell
                    os.rmdir(name, dir_fd=at)
    finally:
        os.close(fd)
