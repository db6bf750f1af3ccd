"""Copy an object within the file system. Its blocks are shared if possible, else the kernel copies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from trove_async.errors import ObjectChangedError, PreconditionFailedError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions

from ._metadata import Metadata, etag
from ._objects import find
from ._publish import publish

if TYPE_CHECKING:
    from ._layout import Location
    from ._objects import ObjectFile
    from ._root import Root
    from ._threads import CancelFlag

_FICLONE = 0x40049409  # linux/include/uapi/linux/fs.h
_MAX_COPY = 16 * 1024 * 1024  # bytes between two checks for a cancel
_MAX_READ = 1024 * 1024

# Errors of copy_file_range(2) where the file system or the kernel does not support it.
_UNSUPPORTED = frozenset(
    (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADF)
)


def copy(
    root: Root, source: Location, target: Location, options: CopyOptions, cancel: CancelFlag
) -> ObjectInfo:
    """Copy the source to the target, with the metadata and conditions in `options`.

    Raises:
        ObjectChangedError: The source is not the version `options.source`, or changed during the copy.
        ObjectExistsError, PreconditionFailedError: A condition of the put does not hold.
    """
    # 1. Open the source, and check that it is the expected version.
    object_file = find(root, source)
    try:
        _check_source(object_file.status, options)
        # 2. Copy it to a staged file. Another tool may have changed it in place during the copy.
        staged = root.staging.create()
        try:
            _copy_bytes(object_file, staged.fd, cancel)
            _check_source(os.fstat(object_file.fd), options)
            # 3. Publish the staged file as the target.
            put = options.put
            crc32c = put.checksums.get("crc32c", object_file.metadata.crc32c)
            metadata = Metadata.from_options(put, crc32c)
            is_same_object = (source.bucket, source.key) == (target.bucket, target.key)
            if is_same_object and not put.conditional:
                # A metadata change must not replace the content of a concurrent put.
                put = replace(put, if_match=options.source.etag)
            return publish(root, target, staged, metadata, options=put, cancel=cancel)
        except PreconditionFailedError as error:
            staged.discard()
            if options.put.conditional or isinstance(error, ObjectChangedError):
                raise
            # The caller passed no condition: the one that failed was added in step 3.
            raise ObjectChangedError(error.message) from error
        except BaseException:
            staged.discard()
            raise
    finally:
        object_file.close()


def _check_source(status: os.stat_result, options: CopyOptions) -> None:
    if etag(status) != options.source.etag:
        raise ObjectChangedError(
            "the source must not change before it is copied, but it was replaced: retry"
        )


def _copy_bytes(object_file: ObjectFile, target: int, cancel: CancelFlag) -> None:
    # 1. Share the blocks. Most file systems do not support this.
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, _FICLONE, object_file.fd)
        return
    # 2. Let the kernel copy, or copy through this process if the kernel cannot.
    size, offset = object_file.status.st_size, 0
    by_kernel = hasattr(os, "copy_file_range")
    while offset < size:
        cancel.check()
        try:
            if by_kernel:
                length = min(_MAX_COPY, size - offset)
                count = os.copy_file_range(object_file.fd, target, length, offset, offset)
            else:
                count = os.pwrite(target, os.pread(object_file.fd, _MAX_READ, offset), offset)
        except OSError as error:
            if not by_kernel or error.errno not in _UNSUPPORTED:
                raise
            by_kernel = False
            continue
        if count == 0:
            raise ObjectChangedError(
                "the source must not change while it is copied, but it was truncated: retry"
            )
        offset += count
