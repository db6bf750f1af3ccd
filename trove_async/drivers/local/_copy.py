"""Copying an object within the file system: its blocks are shared, or moved by the kernel."""

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

from ._metadata import Record, etag
from ._objects import find
from ._publish import publish

if TYPE_CHECKING:
    from ._layout import Spot
    from ._objects import Found
    from ._root import Root
    from ._threads import Stop

_FICLONE = 0x40049409  # linux/include/uapi/linux/fs.h
_COPY_AT_ONCE = 16 * 1024 * 1024
_NO_COPY = frozenset(
    (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EBADF)
)


def copy(root: Root, source: Spot, target: Spot, options: CopyOptions, stop: Stop) -> ObjectInfo:
    """Copy the version of the object that `options` tell, within the file system."""
    found = find(root, source)
    try:
        _check_source(found.status, options)
        staged = root.staging.create()
        try:
            _copy_bytes(found, staged.fd, stop)
            _check_source(os.fstat(found.fd), options)
            crc = options.put.checksums.get("crc32c", found.record.crc32c)
            record = Record.of(options.put, crc)
            put = options.put
            onto_itself = (source.bucket, source.key) == (target.bucket, target.key)
            if onto_itself and not put.conditional:
                # A change of metadata brings no older content back over a put that was faster.
                put = replace(put, if_match=options.source.etag)
            return publish(root, target, staged, record, options=put, stop=stop)
        except PreconditionFailedError as error:
            staged.discard()
            if options.put.conditional or isinstance(error, ObjectChangedError):
                raise
            raise ObjectChangedError(error.message) from error
        except BaseException:
            staged.discard()
            raise
    finally:
        found.close()


def _check_source(status: os.stat_result, options: CopyOptions) -> None:
    if etag(status) != options.source.etag:
        raise ObjectChangedError("the source is no longer the version that was to be copied")


def _copy_bytes(found: Found, target: int, stop: Stop) -> None:
    size = found.status.st_size
    with contextlib.suppress(OSError):  # most file systems share no blocks
        fcntl.ioctl(target, _FICLONE, found.fd)
        return
    done = 0
    by_kernel = hasattr(os, "copy_file_range")
    while done < size:
        stop.check()
        try:
            count = (
                os.copy_file_range(found.fd, target, min(_COPY_AT_ONCE, size - done), done, done)
                if by_kernel
                else os.pwrite(target, os.pread(found.fd, 1024 * 1024, done), done)
            )
        except OSError as error:
            if not by_kernel or error.errno not in _NO_COPY:
                raise
            by_kernel = False
            continue
        if count == 0:
            raise ObjectChangedError("the source was cut short while it was copied")
        done += count
