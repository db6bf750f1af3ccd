"""Copy an object within the file system, without copying its blocks if they can be shared."""

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

from ._errors import translated
from ._metadata import Metadata, etag
from ._objects import find
from ._publish import publish

if TYPE_CHECKING:
    from ._layout import Location
    from ._objects import ObjectFile
    from ._root import Root
    from ._threads import CancelFlag

FICLONE = 0x40049409  # linux/include/uapi/linux/fs.h
_MAX_COPY = 16 * 1024 * 1024  # bytes between checks for a cancel
_MAX_READ = 1024 * 1024

# Errors of copy_file_range(2) if the file system or the kernel does not support it.
_UNSUPPORTED = frozenset(
    (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADF)
)


def copy(
    root: Root, source: Location, target: Location, options: CopyOptions, cancel: CancelFlag
) -> ObjectInfo:
    """Copy the source to the target, with the metadata and conditions in `options`.

    Raises:
        ObjectNotFoundError, BucketNotFoundError: The source or a bucket does not exist.
        ObjectChangedError: The source is not the version in `options.source`, or changed during the
            copy.
        ObjectExistsError, PreconditionFailedError: A condition of `options.put` does not hold.
    """
    # 1. Open the source, and check that it is the expected version.
    with translated(source.bucket, source.key):
        object_file = find(root, source)
    try:
        check_source(source, object_file.status, options)
        # 2. Copy it to a staged file. Check again, because another tool may have changed the source
        #    in place during the copy.
        staged = root.staging.create()
        try:
            _copy_bytes(source, object_file, staged.fd, cancel)
            check_source(source, os.fstat(object_file.fd), options)
            # 3. Publish the staged file as the target.
            put_options = options.put
            crc32c = put_options.checksums.get("crc32c", object_file.metadata.crc32c)
            metadata = Metadata.from_options(put_options, crc32c)
            is_same_object = (source.bucket, source.key) == (target.bucket, target.key)
            if is_same_object and not put_options.conditional:
                # A metadata change must not replace the content of a concurrent put.
                put_options = replace(put_options, if_match=options.source.etag)
            return publish(root, target, staged, metadata, options=put_options, cancel=cancel)
        except PreconditionFailedError as error:
            staged.discard()
            if options.put.conditional or isinstance(error, ObjectChangedError):
                raise
            # The caller passed no condition: the one that failed was added in step 3.
            raise source_changed(source) from error
        except BaseException:
            staged.discard()
            raise
    finally:
        object_file.close()


def check_source(source: Location, status: os.stat_result, options: CopyOptions) -> None:
    """Raise ObjectChangedError if the file is not the version in `options.source`."""
    if etag(status) != options.source.etag:
        raise source_changed(source)


def source_changed(source: Location) -> ObjectChangedError:
    """Return the error for a source that is a different version, or was truncated."""
    return ObjectChangedError(
        "the source was changed before it was copied completely: retry",
        bucket=source.bucket,
        key=source.key,
    )


def _copy_bytes(
    source: Location, object_file: ObjectFile, target_fd: int, cancel: CancelFlag
) -> None:
    # 1. Share the blocks. Most file systems do not support this.
    with contextlib.suppress(OSError):
        fcntl.ioctl(target_fd, FICLONE, object_file.fd)
        return
    # 2. Let the kernel copy, or copy through this process if the kernel cannot.
    size, offset = object_file.status.st_size, 0
    by_kernel = hasattr(os, "copy_file_range")
    while offset < size:
        cancel.check()
        try:
            if by_kernel:
                length = min(_MAX_COPY, size - offset)
                count = os.copy_file_range(object_file.fd, target_fd, length, offset, offset)
            else:
                count = os.pwrite(target_fd, os.pread(object_file.fd, _MAX_READ, offset), offset)
        except OSError as error:
            if not by_kernel or error.errno not in _UNSUPPORTED:
                raise
            by_kernel = False
            continue
        if count == 0:
            raise source_changed(source)  # it was truncated
        offset += count
