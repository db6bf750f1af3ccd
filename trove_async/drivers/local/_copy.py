"""Copy an object within the file system: blocks are shared, or copied by the kernel."""

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
_COPY_AT_ONCE = 16 * 1024 * 1024
_NO_COPY = frozenset(
    (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADF)
)


def copy(
    root: Root, source: Location, target: Location, options: CopyOptions, cancel: CancelFlag
) -> ObjectInfo:
    """Copy the version of the source that `options` names."""
    object_file = find(root, source)
    try:
        _check_source(object_file.status, options)
        staged = root.staging.create()
        try:
            _copy_bytes(object_file, staged.fd, cancel)
            _check_source(os.fstat(object_file.fd), options)
            crc = options.put.checksums.get("crc32c", object_file.metadata.crc32c)
            metadata = Metadata.from_options(options.put, crc)
            put = options.put
            onto_itself = (source.bucket, source.key) == (target.bucket, target.key)
            if onto_itself and not put.conditional:
                # A metadata change must not replace the content of a concurrent put.
                put = replace(put, if_match=options.source.etag)
            return publish(root, target, staged, metadata, options=put, cancel=cancel)
        except PreconditionFailedError as error:
            staged.discard()
            if options.put.conditional or isinstance(error, ObjectChangedError):
                raise
            raise ObjectChangedError(error.message) from error
        except BaseException:
            staged.discard()
            raise
    finally:
        object_file.close()


def _check_source(status: os.stat_result, options: CopyOptions) -> None:
    if etag(status) != options.source.etag:
        raise ObjectChangedError(
            "the source must be unchanged since the copy began, but was replaced: retry"
        )


def _copy_bytes(object_file: ObjectFile, target: int, cancel: CancelFlag) -> None:
    size = object_file.status.st_size
    with contextlib.suppress(OSError):  # most file systems cannot share blocks
        fcntl.ioctl(target, _FICLONE, object_file.fd)
        return
    done = 0
    by_kernel = hasattr(os, "copy_file_range")
    while done < size:
        cancel.check()
        try:
            count = (
                os.copy_file_range(
                    object_file.fd, target, min(_COPY_AT_ONCE, size - done), done, done
                )
                if by_kernel
                else os.pwrite(target, os.pread(object_file.fd, 1024 * 1024, done), done)
            )
        except OSError as error:
            if not by_kernel or error.errno not in _NO_COPY:
                raise
            by_kernel = False
            continue
        if count == 0:
            raise ObjectChangedError("the source was truncated while it was copied")
        done += count
