"""Find, store and delete one object. All functions except `find_nowait` block, and run in threads."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trove_async._checksums import compare_announced, crc32c_of
from trove_async.errors import ObjectNotFoundError
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._metadata import NO_METADATA, Metadata, decode, describe
from ._openat2 import ABSENT, READ
from ._publish import ExistingFiles, check_conditions, prune, publish, sync_removal, unlink

if TYPE_CHECKING:
    from ._layout import Location
    from ._root import Root
    from ._threads import CancelFlag


class ObjectFile:
    """The open file of an object. The caller of `find` closes it."""

    __slots__ = ("fd", "metadata", "status")

    def __init__(self, fd: int, status: os.stat_result, metadata: Metadata) -> None:
        self.fd = fd
        self.status = status
        self.metadata = metadata

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def find(root: Root, location: Location) -> ObjectFile:
    """Open the object.

    Raises:
        ObjectNotFoundError, BucketNotFoundError: The object or its bucket does not exist.
    """
    object_file = None if location.plain is None else _open_current(root, location, location.plain)
    if object_file is None:
        root.require_bucket(location)
        object_file = _open_current(root, location, location.overflow)
    if object_file is None:
        raise ObjectNotFoundError(
            "the object does not exist", bucket=location.bucket, key=location.key
        )
    return object_file


def find_nowait(root: Root, location: Location) -> ObjectFile | None:
    """Open the object on the event loop, without blocking. If this returns None, use `find`.

    This handles the usual case: a plain file whose metadata is in an extended attribute.
    """
    if location.plain is None or not root.is_local:
        return None
    fd = root.confined.open_cached(location.plain)
    if fd < 0:
        return None
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and (raw := root.read_xattr(fd)) is not None:
            record = decode(raw, status)
            return ObjectFile(fd, status, NO_METADATA if record is None else record[0])
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def head(root: Root, location: Location) -> ObjectInfo:
    """Return the object's info."""
    object_file = find(root, location)
    object_file.close()
    return describe(location, object_file.status, object_file.metadata, root.backend)


def put(
    root: Root,
    location: Location,
    views: Sequence[memoryview],
    options: PutOptions,
    cancel: CancelFlag,
) -> ObjectInfo:
    """Write the object to a staged file and publish it."""
    checksum = crc32c_of(views)
    compare_announced(options.checksums, checksum)
    staged = root.staging.create()
    try:
        staged.write(views, 0, cancel)
        return publish(
            root,
            location,
            staged,
            Metadata.from_options(options, checksum),
            options=options,
            cancel=cancel,
        )
    except BaseException:
        staged.discard()
        raise


def delete(root: Root, location: Location, if_match: str | None, cancel: CancelFlag) -> None:
    """Delete the object, and directories that become empty."""
    removed: list[str] = []
    # 1. Under the key's lock, find the object and check the condition.
    with (
        root.locks.key(location.bucket, location.key, cancel),
        ExistingFiles(root, location) as existing,
    ):
        if existing.parent < 0:
            root.require_bucket(location)
        check_conditions(existing.current, if_match, None)
        cancel.check()
        # 2. Remove its files, first the one in the overflow. If both exist, the overflow holds an old
        #    version, which would become the object if only the plain file were removed.
        if existing.overflow is not None:
            unlink(root, location.overflow)
            root.sidecars.remove_if_owned(location.bucket, location.key, existing.overflow)
            removed.append(location.overflow)
        if existing.plain is not None and location.plain is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(existing.name, dir_fd=existing.parent)
            root.sidecars.remove_if_owned(location.bucket, location.key, existing.plain)
            removed.append(location.plain)
    # 3. Remove empty directories, and make the removal durable.
    for path in removed:
        prune(root, path)
        if root.fsync:
            sync_removal(root, path)


def _open_current(root: Root, location: Location, path: str) -> ObjectFile | None:
    """Open the file at `path`, with its own metadata. Return None if it is not an object's file."""
    while (object_file := _open_file(root, location, path)) is not None:
        # If the metadata is missing, a put or delete may have removed the sidecar after the file was
        # opened. Not every file system shows this in the link count of the file, so check that the
        # path still leads to the open file.
        if object_file.metadata is not NO_METADATA or _is_current(root, path, object_file.status):
            break
        object_file.close()
    return object_file


def _is_current(root: Root, path: str, status: os.stat_result) -> bool:
    """Return whether the path still leads to this file."""
    try:
        fd = root.confined.open(path, READ)
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise
    try:
        current = os.fstat(fd)
    finally:
        os.close(fd)
    return (current.st_ino, current.st_dev) == (status.st_ino, status.st_dev)


def _open_file(root: Root, location: Location, path: str) -> ObjectFile | None:
    try:
        fd = root.confined.open(path, READ)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return ObjectFile(fd, status, root.read_metadata(location, fd, status))
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
